//! Flags that several commands share, and the values they take.
//!
//! What a command does with them is left to that command.

use std::io::Write;
use std::time::Duration;

use clap::ValueEnum;
use secrecy::SecretString;
use serde::Serialize;

use crate::cli::credentials::Secret;
use crate::cli::exit::Failure;
use crate::webhook::event::EventKind;

/// The key of `livekit-server --dev`, and of `oncehook run --dev`.
pub const DEV_API_KEY: &str = "devkey";
/// Its secret.
pub const DEV_API_SECRET: &str = "secret";

/// How data is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a reader
    #[default]
    Text,
    /// For a program: one JSON object a line
    Json,
}

impl Format {
    /// Writes `value` as one JSON object on one line.
    pub fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut *out, value)?;
        Ok(writeln!(out)?)
    }
}

/// The API key and secret that webhooks are signed and verified with. It has no `Debug`.
#[derive(clap::Args)]
pub struct Credentials {
    /// API key; "devkey" has the secret "secret" if no other one is given
    #[arg(long, value_name = "KEY", env = "LIVEKIT_API_KEY", hide_env_values = true, default_value = DEV_API_KEY)]
    pub api_key: String,
    #[command(flatten)]
    secret: Secret,
}

impl Credentials {
    /// The secret: from the file, else from the flag or the environment, else that of the development key.
    pub fn secret(&self) -> Result<SecretString, Failure> {
        let given = self.secret.api_secret_file.is_some() || self.secret.api_secret.is_some();
        if !given && self.api_key == DEV_API_KEY {
            return Ok(SecretString::from(DEV_API_SECRET));
        }
        self.secret.read().map_err(Failure::of)
    }
}

/// Reads a duration such as `250ms`, `8s`, `5m`, `1h`; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "expected a duration such as 250ms, 8s or 5m".to_owned())?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => seconds(60).ok_or_else(|| "too long".to_owned()),
        "h" => seconds(3600).ok_or_else(|| "too long".to_owned()),
        "" => Err(format!("which unit? write {number}ms or {number}s")),
        other => Err(format!("{other:?} is no unit: ms, s, m and h are")),
    }
}

/// Reads LiveKit's name of an event.
pub fn event(name: &str) -> Result<EventKind, String> {
    let kind = EventKind::from_name(name);
    if kind.name() == name {
        return Ok(kind);
    }
    let names = EventKind::ALL.map(EventKind::name);
    let likeness = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    let near = names.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let near = near.unwrap_or_default();
    Err(format!("no such event; did you mean {near}? All: {}", names.join(", ")))
}

/// Writes a duration as a reader wants it: `0.4 ms`, `12 ms`, `1.25 s`.
pub fn human(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("8"), Err("which unit? write 8ms or 8s".to_owned()));
        assert!(duration("s").is_err() && duration("-1s").is_err() && duration("1.5s").is_err());
        assert!(duration("99999999999999999h").is_err());
    }

    #[test]
    fn a_duration_is_written_in_the_unit_that_fits() {
        assert_eq!(human(Duration::from_micros(420)), "0.4 ms");
        assert_eq!(human(Duration::from_millis(12)), "12 ms");
        assert_eq!(human(Duration::from_millis(1250)), "1.25 s");
    }
}
