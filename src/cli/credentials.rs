//! The API key's secret, for the commands that sign or check: from a file or from the environment, never echoed.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config;

/// Where the secret comes from. It has no `Debug`.
#[derive(clap::Args)]
pub struct Secret {
    /// File that holds the API secret; goes before --api-secret
    #[arg(long, value_name = "FILE")]
    pub api_secret_file: Option<PathBuf>,
    /// The API secret; other users of this machine can read a command line, so prefer the environment or a file
    #[arg(long, value_name = "SECRET", env = "LIVEKIT_API_SECRET", hide_env_values = true)]
    pub api_secret: Option<SecretString>,
}

/// There is no secret, neither on the command line nor in the environment.
#[derive(Debug, thiserror::Error)]
#[error("no API secret; hint: set LIVEKIT_API_SECRET, or name a file with --api-secret-file")]
pub struct NoSecret;

/// Every user of this machine may read the secret's file.
#[derive(Debug, thiserror::Error)]
#[error("all users of this machine may read {}, and it holds a secret; hint: chmod o= {}", path.display(), path.display())]
pub struct OpenToOthers {
    /// Which file.
    path: PathBuf,
}

impl Secret {
    /// The secret, a file's without the line end that editors leave.
    pub fn read(&self) -> anyhow::Result<SecretString> {
        let secret = match (&self.api_secret_file, &self.api_secret) {
            (Some(path), _) => {
                if config::open_to_others(path) {
                    return Err(OpenToOthers { path: path.clone() }.into());
                }
                let text = fs::read_to_string(path).with_context(|| {
                    format!("cannot read the API secret from {}", path.display())
                })?;
                let text = Zeroizing::new(text);
                SecretString::from(text.trim_end_matches(['\r', '\n']))
            }
            (None, Some(secret)) => secret.clone(),
            (None, None) => return Err(NoSecret.into()),
        };
        anyhow::ensure!(!secret.expose_secret().is_empty(), "the API secret is empty");
        Ok(secret)
    }
}
