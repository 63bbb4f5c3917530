//! `oncehook verify`: explains one captured request, step by step, as the gateway would judge it.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::capture::Capture;
use super::credentials::Secret;
use super::explain::{Explanation, Setting, explain};
use super::options::Format;
use super::sign::read;
use crate::clock;
use crate::webhook::key::Identity;
use crate::webhook::token::Token;
use crate::webhook::verify::{KeyRing, Tenant, Verifier};

const AFTER_HELP: &str = "\
Exit codes: 0 the gateway would take it, 65 it would answer 401.

Examples:
  oncehook verify request.http --at nbf
      judge a captured request as if it had just been sent
  oncehook verify requests.jsonl --line 3 --format json
  oncehook verify --authorization \"$TOKEN\" --body body.json";

/// Explain one captured request, step by step
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// A capture: JSON lines with `authorization` and `body`, or a raw HTTP/1.1 request; - is the standard input
    #[arg(value_name = "FILE", default_value = "-", conflicts_with_all = ["authorization", "body"])]
    pub capture: PathBuf,
    /// Which line of a capture with several
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub line: usize,
    /// The value of the Authorization field, instead of a capture
    #[arg(long, value_name = "TOKEN", requires = "body")]
    pub authorization: Option<String>,
    /// The body to go with --authorization; - is the standard input
    #[arg(long, value_name = "FILE", requires = "authorization")]
    pub body: Option<PathBuf>,
    /// The API key; without one, the secret is tried with whichever key the token names
    #[arg(long, value_name = "KEY", env = "LIVEKIT_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// The API secret
    #[command(flatten)]
    pub secret: Secret,
    /// When to judge the times: nbf (as if it had just been sent), now, or seconds since the epoch
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub at: At,
    /// What to tell events apart by: event, id, or a template such as {createdAt}:{event}
    #[arg(long, value_name = "IDENTITY", default_value = "event")]
    pub identity: Identity,
    /// The route's name in the configuration; it is part of the key
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub route: String,
    /// The tenant's name in the configuration; it is part of the key
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub tenant: String,
    /// How to print it: text, or json, one object
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Format,
}

/// When to judge a token's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At its `nbf`: when it was sent.
    NotBefore,
    /// Now.
    Now,
    /// Seconds since the epoch.
    Unix(u64),
}

impl FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nbf" => Ok(Self::NotBefore),
            "now" => Ok(Self::Now),
            seconds => seconds
                .parse()
                .map(Self::Unix)
                .map_err(|_| "write nbf, now, or seconds since the epoch"),
        }
    }
}

/// What came of it, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The gateway would take it.
    Accepted,
    /// It would answer 401. `EX_DATAERR` of sysexits.h says so best.
    Refused,
}

/// Writes the explanation to `stdout`.
pub fn run(args: &Args, stdin: &mut dyn Read, stdout: &mut dyn Write) -> anyhow::Result<Outcome> {
    let capture = match (&args.authorization, &args.body) {
        (Some(authorization), Some(body)) => {
            Capture { authorization: authorization.clone(), body: read(body, stdin)? }
        }
        _ => Capture::parse(&read(&args.capture, stdin)?, args.line)?,
    };
    let token = Token::parse(capture.authorization.as_bytes()).ok();
    let api_key = args.api_key.clone().or_else(|| token.as_ref()?.grants.iss.clone());
    let tenant = Tenant::from(&args.tenant);
    let keys = api_key.map(|api_key| args.secret.read().map(|secret| (tenant, api_key, secret)));
    let keys = keys.transpose()?;
    let now = match args.at {
        At::Now => clock::unix(),
        At::Unix(seconds) => clock::UnixTime::from_epoch(Duration::from_secs(seconds)),
        At::NotBefore => {
            let nbf = token.and_then(|token| token.grants.nbf).unwrap_or_default();
            clock::UnixTime::from_epoch(Duration::from_secs(nbf))
        }
    };
    let verifier = Verifier::new(KeyRing::new(keys)?);
    let setting = Setting { now, route: &args.route, identity: &args.identity };
    let explanation =
        explain(&verifier, &setting, &capture.authorization, &Bytes::from(capture.body));
    print(&explanation, args.format, stdout)?;
    Ok(if explanation.refusal.is_none() { Outcome::Accepted } else { Outcome::Refused })
}

fn print(explanation: &Explanation, format: Format, stdout: &mut dyn Write) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *stdout, explanation)?;
            writeln!(stdout)?;
        }
        Format::Text => {
            for step in &explanation.steps {
                writeln!(stdout, "{:5} {:10} {}", step.result.word(), step.name, step.detail)?;
            }
        }
    }
    Ok(())
}
