//! The flags that say how copies are sent, for the commands that send to whoever the user names.

use std::path::PathBuf;
use std::time::Duration;

use super::{Client, Node, Protocol, Retries, Target, Trust, TrustError};
use crate::cli::Stdio;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options;

/// How copies are sent.
#[derive(clap::Args)]
pub struct Sending {
    /// Send each copy once, whatever is answered
    #[arg(long)]
    no_retry: bool,
    /// How long to wait for an answer; LiveKit itself waits for ever
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = options::duration)]
    timeout: Duration,
    /// Trust any certificate: for a self-signed one on your own machine
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak HTTP/1.1 even where HTTP/2 is offered
    #[arg(long)]
    http1: bool,
}

impl Sending {
    /// Says to whom the flags give more trust than is usual.
    pub fn warn(&self, to: &Target, stdio: &mut Stdio<'_>) -> Result<(), Failure> {
        if self.insecure {
            writeln!(stdio.talk, "WARNING: --insecure: whoever answers at {to} is trusted")?;
        }
        Ok(())
    }

    /// So many nodes that send to `to`, called `node-1` and so on.
    pub fn nodes(&self, to: &Target, count: u32) -> Result<Vec<Node>, Failure> {
        let trust = match (&self.ca, self.insecure) {
            (_, true) => Trust::Anything,
            (Some(file), false) => Trust::Authority(file.clone()),
            (None, false) => Trust::Native,
        };
        let protocol = if self.http1 { Protocol::Http1 } else { Protocol::Negotiated };
        let retries = if self.no_retry { Retries::None } else { Retries::AsLiveKit };
        let node = |number| {
            let client = Client::new(to.clone(), &trust, protocol, self.timeout)?;
            Ok(Node::new(format!("node-{number}"), client, retries))
        };
        let nodes: Result<Vec<_>, TrustError> = (1..=count).map(node).collect();
        nodes.map_err(|error| {
            Failure::new(Exit::NoInput, error)
                .with_hint("--ca FILE names a PEM file of authorities to trust")
        })
    }
}
