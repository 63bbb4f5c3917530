//! `oncehook status`: what a running gateway says of itself, for people.
//!
//! What it says is made by `admin`; a program reads the same with `--format json`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::cli::Stdio;
use crate::cli::admin::Access;
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::options::{self, Format};

const AFTER_HELP: &str = "\
Exit codes: 0 it is ready, 1 it is not, 69 nobody answers there, 77 it asks for
a token or a client certificate.

Examples:
  oncehook status
  oncehook status --admin 127.0.0.1:9464 --format json | jq .reload";

/// Show how a running gateway fares
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Address of the gateway's admin listener
    #[arg(long, value_name = "ADDRESS", env = "ONCEHOOK_ADMIN__ADDRESS", hide_env_values = true)]
    #[arg(default_value = "127.0.0.1:9464")]
    admin: SocketAddr,
    /// How to print it: text, or json, one object
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Format,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = options::duration)]
    timeout: Duration,
    #[command(flatten)]
    access: Access,
}

/// As `/status` has it; what a later version says besides is left out.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    ready: bool,
    stage: String,
    started: String,
    uptime_seconds: u64,
    routes: Vec<Route>,
    relay: Option<String>,
    store: Store,
    in_flight: u64,
    unfinished: u64,
    reload: Option<Reload>,
    restart_needed: Vec<String>,
    certificates: Vec<Certificate>,
    counters: Counters,
}

#[derive(Debug, Deserialize)]
struct Route {
    path: String,
    backend: String,
}

#[derive(Debug, Deserialize)]
struct Store {
    kind: String,
    outage_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Reload {
    result: String,
    at: String,
    changed: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Certificate {
    name: String,
    not_after: String,
    days_left: i64,
}

#[derive(Debug, Deserialize)]
struct Counters {
    received: u64,
    forwarded: u64,
    duplicates: u64,
    collapsed: u64,
    refused: u64,
    failed: u64,
}

/// Asks, prints, and answers with the exit code whether it is ready.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    super::block_on(show(args, stdio))
}

async fn show(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    let (code, body) = args.access.page(args.admin, "/status", args.timeout).await?;
    if code != StatusCode::OK {
        let told = String::from_utf8_lossy(&body);
        let told = told.lines().next().unwrap_or_default();
        let error = anyhow::anyhow!("{}/status answers {code}: {told}", args.admin);
        let failure = match code {
            StatusCode::UNAUTHORIZED => Failure::new(Exit::NoPermission, error)
                .with_hint("name the token's file with --token-file, or set ONCEHOOK_ADMIN__TOKEN"),
            StatusCode::FORBIDDEN => Failure::new(Exit::NoPermission, error)
                .with_hint("name a client certificate with --certificate-file and --key-file"),
            _ => Failure::new(Exit::Unavailable, error),
        };
        return Err(failure);
    }
    let strange = |error| {
        let error = anyhow::Error::new(error).context("this is not the status of a gateway");
        Failure::new(Exit::Unavailable, error)
    };
    let status: Status = serde_json::from_slice(&body).map_err(strange)?;
    match args.format {
        Format::Json => stdio.out.write_all(&body)?,
        Format::Text => print(&status, stdio.out)?,
    }
    Ok(if status.ready { Exit::Success } else { Exit::No })
}

fn print(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let Status { version, stage, started, .. } = status;
    let up = duration(status.uptime_seconds);
    writeln!(out, "oncehook {version}   {stage}   up {up} (since {started})")?;
    for Route { path, backend } in &status.routes {
        writeln!(out, "webhooks  {path} -> {backend}")?;
    }
    match &status.relay {
        None => writeln!(out, "the rest  404")?,
        Some(backend) => writeln!(out, "the rest  -> {backend}")?,
    }
    match (&status.store.kind, status.store.outage_seconds) {
        (kind, None) => writeln!(out, "store     {kind}")?,
        (kind, Some(seconds)) => {
            writeln!(out, "store     {kind}, OUT for {}", duration(seconds))?;
        }
    }
    let Counters { received, forwarded, duplicates, collapsed, refused, failed } = status.counters;
    writeln!(
        out,
        "copies    {received} received: {forwarded} forwarded, {duplicates} duplicates, {collapsed} collapsed, \
         {refused} refused, {failed} failed"
    )?;
    writeln!(out, "now       {} in flight, {} unfinished", status.in_flight, status.unfinished)?;
    for Certificate { name, not_after, days_left } in &status.certificates {
        let expiry = if *days_left < 0 { "EXPIRED" } else { "expires" };
        writeln!(out, "tls       {name} {expiry} {not_after} ({days_left} days)")?;
    }
    reload(status, out)
}

fn reload(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    match &status.reload {
        None => writeln!(out, "reload    none since the start")?,
        Some(Reload { result, at, error: Some(error), .. }) => {
            writeln!(
                out,
                "reload    {} at {at}; what was before still holds",
                result.to_uppercase()
            )?;
            error.lines().try_for_each(|line| writeln!(out, "          {line}"))?;
        }
        Some(Reload { result, at, changed, error: None }) => {
            let changed = changed.join(", ");
            let colon = if changed.is_empty() { "" } else { ": " };
            writeln!(out, "reload    {result} at {at}{colon}{changed}")?;
        }
    }
    if status.restart_needed.is_empty() {
        return Ok(());
    }
    writeln!(out, "restart   NEEDED for {}", status.restart_needed.join(", "))
}

/// The two largest units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_readable_and_says_loudly_what_is_wrong() {
        let status = serde_json::json!({
            "version": "1.2.3", "ready": true, "stage": "ready", "started": "2026-01-01T00:00:00Z",
            "uptime_seconds": 90_061, "later": "unknown",
            "routes": [{"path": "/webhook", "backend": "http://backend:8080/hook"}],
            "relay": null, "store": {"kind": "redis", "degraded": true, "outage_seconds": 75},
            "in_flight": 1, "unfinished": 2,
            "reload": {"result": "rejected", "at": "2026-01-02T00:00:00Z", "changed": [], "error": "one\ntwo"},
            "restart_needed": ["listen.address"],
            "certificates": [{"name": "a.example", "not_after": "2025-12-31T00:00:00Z", "days_left": -2}],
            "counters": {"received": 6, "forwarded": 1, "duplicates": 2, "collapsed": 1, "refused": 1, "failed": 0},
        });
        let mut out = Vec::new();
        print(&serde_json::from_value(status).unwrap(), &mut out).unwrap();
        let expected = "\
oncehook 1.2.3   ready   up 1d1h (since 2026-01-01T00:00:00Z)
webhooks  /webhook -> http://backend:8080/hook
the rest  404
store     redis, OUT for 1m15s
copies    6 received: 1 forwarded, 2 duplicates, 1 collapsed, 1 refused, 0 failed
now       1 in flight, 2 unfinished
tls       a.example EXPIRED 2025-12-31T00:00:00Z (-2 days)
reload    REJECTED at 2026-01-02T00:00:00Z; what was before still holds
          one
          two
restart   NEEDED for listen.address
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
