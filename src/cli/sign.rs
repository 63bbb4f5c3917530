//! `oncehook sign`: the token that LiveKit would send with a body. Sending it is left to `oncehook trigger`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;

use super::credentials::Secret;
use crate::clock::{self, UnixTime};
use crate::webhook::verify;

/// The largest body that is read: twice LiveKit's largest metadata, doubled for escapes.
pub(super) const BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;

const AFTER_HELP: &str = "\
Examples:
  oncehook sign body.json --api-key devkey --api-secret secret
  curl -sS https://gateway.test/webhook --data-binary @body.json \\
      -H \"Authorization: $(oncehook sign body.json)\"";

/// Print the token that LiveKit would send with a body
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The body; - is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub body: PathBuf,
    /// The API key
    #[arg(long, value_name = "KEY", env = "LIVEKIT_API_KEY", hide_env_values = true)]
    pub api_key: String,
    /// The API secret
    #[command(flatten)]
    pub secret: Secret,
    /// From when on the token is valid: now, or seconds since the epoch
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub at: SignAt,
    /// For how long it is valid, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub valid_for: u64,
}

/// A point of time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignAt {
    /// `now`
    Now,
    /// Seconds since the epoch
    Unix(u64),
}

impl SignAt {
    fn time(self) -> UnixTime {
        match self {
            Self::Now => clock::unix(),
            Self::Unix(seconds) => UnixTime::from_epoch(Duration::from_secs(seconds)),
        }
    }
}

impl FromStr for SignAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(Self::Now),
            seconds => {
                seconds.parse().map(Self::Unix).map_err(|_| "write now, or seconds since the epoch")
            }
        }
    }
}

/// Writes the token and a line end to `stdout`.
pub fn run(args: &Args, stdin: &mut dyn Read, stdout: &mut dyn Write) -> anyhow::Result<()> {
    let secret = args.secret.read()?;
    let body = read(&args.body, stdin)?;
    let lifetime = Duration::from_secs(args.valid_for);
    let token = verify::sign(&args.api_key, &secret, &body, args.at.time(), lifetime)?;
    writeln!(stdout, "{token}")?;
    Ok(())
}

/// Reads a file, or the standard input for `-`, byte for byte: a line end more would be another body.
pub(super) fn read(path: &Path, stdin: &mut dyn Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        stdin
            .take(BODY_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .context("cannot read the standard input")?;
    } else {
        fs::File::open(path)
            .and_then(|file| file.take(BODY_BYTES_MAX + 1).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    anyhow::ensure!(
        length <= BODY_BYTES_MAX,
        "{} has more than {BODY_BYTES_MAX} bytes",
        path.display()
    );
    Ok(bytes)
}
