//! Another configuration for a gateway that runs: all of it or nothing, and what was before stays if it cannot be used.
//!
//! What is under way ends as it began: on the old route, with the old key, on the old connection. Stores, records,
//! metrics and listeners stay; what they are made from is told to need a restart. When there is something to reload is
//! left to `cli`.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Guard;
use crate::config::{Change, Config, LoadError, StoreKind, Tls as TlsSection};
use crate::listener::tls::Tls;
use crate::telemetry::labels::ReloadResult;

use super::service::Service;
use super::{Running, StartError, announce, expiry, rooms, tls, watch};

/// What only a restart changes: keys, and sections with their dot.
const RESTART: [&str; 5] = ["listen.address", "tls.enabled", "admin.address", "store.", "log."];
/// What of these sections does not need one.
const NO_RESTART: [&str; 2] = ["store.on_store_error", "store.on_store_error_after"];

/// What came of a reload that was not rejected. Names of keys, never values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What changed and holds now.
    pub changed: Vec<String>,
    /// What differs from what the process started with, and waits for a restart.
    pub restart_needed: Vec<String>,
}

/// Why a configuration that is right in itself does not take the place of the one before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What it names cannot be used.
    #[error(transparent)]
    Room(#[from] StartError),
    /// It would fit a store that only a restart brings.
    #[error(
        "`claim.guard` ({} ms) must be more than `{key}` ({} ms), which only a restart changes; \
         hint: restart, or change one after the other",
        guard.as_millis(), operation_timeout.as_millis()
    )]
    Guard {
        /// As it is in the new configuration.
        guard: Duration,
        /// What it does not fit to.
        key: &'static str,
        /// As it is in this process.
        operation_timeout: Duration,
    },
    /// The admin listener would ask for nothing, where other machines can reach it until a restart.
    #[error(
        "the admin listener is on {address} until a restart, and would ask for neither a token nor a client \
         certificate; hint: restart, or keep admin.token_file until then"
    )]
    AdminOpen {
        /// Where it listens.
        address: SocketAddr,
    },
}

/// How long an operation of the store may take, and the key that says so.
const fn operation_timeout(store: &StoreKind) -> Option<(&'static str, Duration)> {
    match store {
        StoreKind::Memory => None,
        StoreKind::Disk(disk) => Some(("store.disk.operation_timeout", disk.operation_timeout)),
        StoreKind::Redis(redis) => Some(("store.redis.operation_timeout", redis.operation_timeout)),
    }
}

/// What a new configuration changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Takes effect.
    applied: BTreeSet<Change>,
    /// Does not, compared with the start.
    waiting: BTreeSet<Change>,
    /// Of these, what has been said now.
    newly_waiting: bool,
}

impl Plan {
    /// What becomes of `new`, after `started` and then `current`.
    fn new(started: &Config, current: &Config, new: &Config) -> Result<Self, ReloadError> {
        let guard = new.claim.guard;
        if let Some((key, operation_timeout)) = operation_timeout(&started.store.kind)
            && operation_timeout >= guard
        {
            return Err(ReloadError::Guard { guard, key, operation_timeout });
        }
        // Certificates for a listener that speaks no TLS come with the restart that it needs to do so.
        let tls_waits = speaks_tls(started) != speaks_tls(new);
        let waits = |change: &Change| {
            let key = change.key();
            (tls_waits && key.starts_with("tls."))
                || (is_among(key, &RESTART) && !is_among(key, &NO_RESTART))
        };
        let (waiting_now, applied): (BTreeSet<_>, BTreeSet<_>) =
            current.changes(new).into_iter().partition(waits);
        let waiting = started.changes(new).into_iter().filter(waits).collect();
        Ok(Self { applied, waiting, newly_waiting: !waiting_now.is_empty() })
    }

    /// Whether a key of this section, with its dot, takes effect.
    fn touches(&self, section: &str) -> bool {
        self.applied.iter().any(|change| change.key().starts_with(section))
    }
}

fn is_among(key: &str, names: &[&str]) -> bool {
    let is = |name: &&str| key == *name || (name.ends_with('.') && key.starts_with(*name));
    names.iter().any(is)
}

const fn speaks_tls(config: &Config) -> bool {
    match config.tls {
        TlsSection::Off => false,
        TlsSection::SelfSigned | TlsSection::Certificates(_) => true,
    }
}

impl Running {
    /// Lets `config` take the place of the one that holds. What came of it is in the log, the metrics and the status
    /// too. Does no I/O but to read the files that `config` names.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        let outcome = self.replace(config);
        match &outcome {
            Ok(reloaded) => {
                let result = if reloaded.changed.is_empty() {
                    ReloadResult::Unchanged
                } else {
                    ReloadResult::Applied
                };
                self.ledger.waits_for_restart(reloaded.restart_needed.clone());
                self.ledger.reloaded(result, reloaded.changed.clone(), None);
            }
            Err(error) => self.reject(error),
        }
        outcome
    }

    /// Takes note of a configuration that could not even be read.
    pub fn reload_failed(&self, error: &LoadError) {
        self.reject(error);
    }

    fn reject(&self, error: &dyn Error) {
        let problems = watch::chain(error);
        tracing::error!(%problems, "the new configuration is rejected; the one before still holds");
        self.ledger.reloaded(ReloadResult::Rejected, Vec::new(), Some(problems));
    }

    fn replace(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        let plan = Plan::new(&self.started, &self.current, &config)?;
        let reloaded =
            Reloaded { changed: names(&plan.applied), restart_needed: names(&plan.waiting) };
        if !plan.applied.is_empty() {
            // All that can fail comes before all that changes anything.
            let service = Service::new(&config, &self.lasting, Some(&self.service.load()))?;
            let tls = if plan.touches("tls.") { self.certificates(&config)? } else { None };
            let admin = plan.touches("admin.").then(|| self.admin(&config)).transpose()?;
            if tls.is_some() {
                self.tls = tls;
            }
            if let Some((guard, tls)) = admin {
                self.admin_guard.store(Arc::new(guard));
                self.admin_tls = tls;
            }
            self.lasting.dispatch.set_options(rooms::dispatch(&config));
            self.control.set(rooms::listener(&config, self.tls.as_ref()));
            self.service.store(Arc::new(service));
            self.ledger.configured(&config, expiry::of([&self.tls, &self.admin_tls]));
            tracing::info!(changed = reloaded.changed.join(", "), "configuration reloaded");
            announce::configuration(&config);
        } else if !plan.newly_waiting {
            tracing::info!("configuration read again: nothing has changed");
        }
        if plan.newly_waiting {
            tracing::warn!(
                not_applied = reloaded.restart_needed.join(", "),
                "these changes need a restart"
            );
        }
        self.current = config;
        Ok(reloaded)
    }

    /// What the admin listener shall ask for and show.
    fn admin(&self, config: &Config) -> Result<(Guard, Option<Tls>), ReloadError> {
        let tls = tls::admin(&config.admin)?;
        let guard = tls::guard(&config.admin, tls.as_ref());
        let address = self.admin_address;
        if guard.is_open() && !address.ip().to_canonical().is_loopback() {
            return Err(ReloadError::AdminOpen { address });
        }
        Ok((guard, tls))
    }

    /// What the listener shall show; `None` if it speaks no TLS.
    fn certificates(&self, config: &Config) -> Result<Option<Tls>, StartError> {
        if self.tls.is_none() { Ok(None) } else { tls::listener(config) }
    }
}

fn names(changes: &BTreeSet<Change>) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_and_sections_that_need_a_restart_or_none_are_in_the_schema() {
        let schema: Vec<String> = crate::config::schema()
            .into_iter()
            .map(|key| format!("{}.{}", key.section.trim_matches(['[', ']']), key.name))
            .collect();
        for name in RESTART.iter().chain(&NO_RESTART) {
            assert!(schema.iter().any(|key| is_among(key, &[name])), "{name} is no key");
        }
        let at_once = |key: &&String| key.starts_with("store.") && is_among(key, &NO_RESTART);
        assert_eq!(schema.iter().filter(at_once).count(), 2);
    }
}
