//! `oncehook listen`: a sample backend to put behind a gateway, or straight behind LiveKit.
//!
//! It prints a line for each webhook: what came, whether it is genuine, and whether it was there before. How it takes
//! them is left to [`super::backend`].

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use secrecy::SecretString;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Stdio;
use crate::cli::backend::{self, Arrival, Backend, Known, Manner};
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::options::{self, Credentials, Format};
use crate::webhook::event::EventKind;
use crate::webhook::verify::{KeyRing, Tenant, Verifier};

/// Arrivals that wait to be printed.
const ARRIVALS_MAX: usize = 1024;

const AFTER_HELP: &str = "\
Examples:
  oncehook listen                              answer 200 to all that is genuine
  oncehook listen --delay 9s                   a backend that is too slow
  oncehook listen --fail-rate 0.3 --seed 7     fail the same 30 % each time
  oncehook listen --fail-first 1               fail each event's first attempt
  oncehook listen --count 10 --format json     end after ten accepted webhooks";

/// Run a sample backend that verifies, prints and answers webhooks
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Take webhooks at this path alone [default: at every path]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// Answer this to what is accepted
    #[arg(long, value_name = "STATUS", default_value = "200")]
    status: StatusCode,
    /// Answer only after this time
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = options::duration)]
    delay: Duration,
    /// Fail this share of the webhooks, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = rate)]
    fail_rate: u32,
    /// Decides which of them fail
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Fail so many arrivals of each event before one is accepted
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    fail_first: u32,
    /// Fail only this event; can be given more than once
    #[arg(long, value_name = "EVENT", value_parser = options::event)]
    fail_event: Vec<EventKind>,
    /// Answer this to what fails
    #[arg(long, value_name = "STATUS", default_value = "500")]
    fail_status: StatusCode,
    /// End after so many accepted webhooks
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// How to print webhooks: text, or json, an object a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Format,
}

/// Listens until it is interrupted or has accepted `--count` webhooks.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    super::block_on(listen(args, stdio))
}

async fn listen(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    let verifier = verifier(&args.credentials.api_key, args.credentials.secret()?)?;
    let taken = |error| Failure::listening(args.address, error);
    let (listener, address) = backend::bind(args.address).await.map_err(taken)?;
    writeln!(stdio.talk, "listening at http://{address}{}", args.path.as_deref().unwrap_or("/"))?;
    writeln!(stdio.talk, "API key {:?}; end with Ctrl-C", args.credentials.api_key)?;
    let sums = follow(args, listener, verifier, stdio).await?;
    match args.format {
        Format::Json => Format::json(stdio.out, &Summary { summary: &sums })?,
        Format::Text => writeln!(
            stdio.out,
            "{} arrived: {} accepted ({} of them duplicates), {} failed, {} refused",
            sums.arrived, sums.accepted, sums.duplicates, sums.failed, sums.refused
        )?,
    }
    Ok(Exit::Success)
}

/// Serves, and prints what arrives, until there is a reason to end; then what was under way.
async fn follow(
    args: &Args,
    listener: TcpListener,
    verifier: Verifier,
    stdio: &mut Stdio<'_>,
) -> Result<Sums, Failure> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, mut arrivals) = mpsc::channel(ARRIVALS_MAX);
    let backend = Backend::new(listener, args.path.clone(), verifier, args.manner(), sender);
    let mut serving = JoinSet::new();
    serving.spawn(backend.serve(stop.clone()));
    if args.format == Format::Text {
        writeln!(stdio.out, "{}", heading())?;
    }
    let mut sums = Sums::default();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => {
                    sums.add(&arrival);
                    print(args.format, &arrival, stdio)?;
                }
                // The backend has ended, and with it whoever could tell of an arrival.
                None => return Ok(sums),
            },
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
        if args.count.is_some_and(|count| sums.accepted >= count) {
            stop.cancel();
        }
    }
}

impl Args {
    fn manner(&self) -> Manner {
        Manner {
            status: self.status,
            fail_status: self.fail_status,
            fail_rate: self.fail_rate,
            seed: self.seed,
            fail_first: self.fail_first,
            fail_events: self.fail_event.clone(),
            delay: self.delay,
        }
    }
}

#[derive(Default, Serialize)]
struct Sums {
    arrived: u64,
    accepted: u64,
    duplicates: u64,
    failed: u64,
    refused: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    summary: &'a Sums,
}

impl Sums {
    fn add(&mut self, arrival: &Arrival) {
        self.arrived += 1;
        let sum = if arrival.refusal.is_some() {
            &mut self.refused
        } else if arrival.is_accepted() {
            &mut self.accepted
        } else {
            &mut self.failed
        };
        *sum += 1;
        self.duplicates += u64::from(arrival.duplicate.is_some());
    }
}

/// A verifier that knows one key.
pub fn verifier(api_key: &str, secret: SecretString) -> Result<Verifier, Failure> {
    let key = (Tenant::from("sample"), api_key.to_owned(), secret);
    let keys = KeyRing::new([key]).map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(Verifier::new(keys))
}

fn heading() -> String {
    format!(
        "{:>5}  {:<24} {:<18} {:>7}  {:<32} {:>6}  what",
        "#", "event", "id", "attempt", "idempotency key", "answer"
    )
}

fn print(format: Format, arrival: &Arrival, stdio: &mut Stdio<'_>) -> Result<(), Failure> {
    match format {
        Format::Json => Format::json(stdio.out, arrival)?,
        Format::Text => writeln!(
            stdio.out,
            "{:>5}  {:<24} {:<18} {:>7}  {:<32} {:>6}  {}",
            arrival.number,
            arrival.event.unwrap_or("-"),
            arrival.id.as_deref().unwrap_or("-"),
            arrival.attempt.as_deref().unwrap_or("-"),
            arrival.idempotency_key.as_deref().unwrap_or("-"),
            arrival.status,
            what(arrival)
        )?,
    }
    Ok(())
}

fn what(arrival: &Arrival) -> String {
    let marked = if arrival.possible_duplicate { ", marked as a possible duplicate" } else { "" };
    match (&arrival.refusal, arrival.duplicate) {
        (Some(refusal), _) => format!("REFUSED: {refusal}"),
        (None, Some(Known::IdempotencyKey)) => format!("DUPLICATE: same idempotency key{marked}"),
        (None, Some(Known::Id)) => format!("DUPLICATE: same id{marked}"),
        (None, Some(Known::Event)) => format!("DUPLICATE: same event under another id{marked}"),
        (None, None) if arrival.is_accepted() => format!("accepted{marked}"),
        (None, None) => format!("failed as told{marked}"),
    }
}

/// Reads a share from 0 to 1 as so many of 2^32.
fn rate(text: &str) -> Result<u32, String> {
    let share: f64 =
        text.parse().map_err(|_| "expected a number from 0 to 1, such as 0.3".to_owned())?;
    if !(0.0..=1.0).contains(&share) {
        return Err("expected a number from 0 to 1, such as 0.3".to_owned());
    }
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product is within 0 and u32::MAX"
    )]
    Ok((share * f64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!(rate("0"), Ok(0));
        assert_eq!(rate("1"), Ok(u32::MAX));
        assert!(
            rate("1.1").is_err()
                && rate("-0.1").is_err()
                && rate("NaN").is_err()
                && rate("x").is_err()
        );
    }
}
