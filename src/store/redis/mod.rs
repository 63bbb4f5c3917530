//! Records in Redis: three scripts that do what `apply` does, and single commands that do the same where they can, over
//! one connection to each server that all operations share.
//!
//! Connects when it is first needed, retries nothing, and gives every step a time-out of its own; a breaker keeps an
//! outage from costing each operation one. What an operation needs: EVALSHA, EVAL, GET, SET, PTTL, TIME; a probe likewise;
//! a Cluster besides CLUSTER SLOTS and ASKING, waiting for replicas WAIT.
//!
//! [`link`] makes a connection, [`wire`] keeps one; [`sentinel`] knows which server is the master, [`cluster`] and
//! [`slots`] which node serves a record; [`node`] asks one server, [`barrier`] waits for its replicas; [`command`]
//! and [`script`] translate operations and replies, whose parts [`text`] writes and reads; [`classify`] makes errors of
//! what went wrong; [`check`] looks at the servers when the gateway starts.

mod barrier;
mod check;
mod classify;
mod cluster;
mod command;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod link;
mod node;
mod race;
mod script;
mod sentinel;
mod slots;
mod text;
mod wire;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use barrier::WaitReplicas;
pub use link::{Address, ClientCertificate, Credentials, Endpoint, Sentinel, TlsOptions};

use self::cluster::Cluster;
use self::link::{Dialer, Place, Tls};
use self::node::{Errand, Node, Said, Terms};
use self::script::{Asking, Call, Scripts, Way};
use self::sentinel::Sentinels;
use self::wire::{Patience, Source, Wire};
use super::StoreError;
use crate::claim::record::{Operation, Reply};
use crate::claim::{Key, Owner};

/// The hash tag of the record that probes use; in a Cluster each node has another one.
const PROBE: &str = "probe";
/// A key in its braces: 16 bytes of base64url (RFC 4648 §5), unpadded.
const TAG_BYTES: usize = 24;

/// What a probe is remembered for; any value does, for every probe writes the same record.
const PROBE_WINDOW: Duration = Duration::from_mins(1);

/// How often to look whom the sentinels take for the master. A fail-over by command leaves the old one a master for some
/// ten seconds, and what it is told meanwhile is forgotten.
const SENTINELS_INTERVAL: Duration = Duration::from_millis(200);

/// Where the servers are, and how patient to be. `app` makes it of the configuration, where the defaults are.
pub struct Options {
    /// Where the server listens, or who knows.
    pub endpoint: Endpoint,
    /// Who asks; `None` for a server that needs no password.
    pub credentials: Option<Credentials>,
    /// The number of the database; 0 in a Cluster.
    pub database: u16,
    /// TLS, if the servers, and the sentinels, speak it. Not over a Unix socket.
    pub tls: Option<TlsOptions>,
    /// What every key begins with; without braces, which have a meaning to Redis Cluster.
    pub prefix: String,
    /// How long a connection may take, from the look-up of the name to the server's first answer.
    pub connect_timeout: Duration,
    /// How long an operation may take on a connection that stands.
    pub operation_timeout: Duration,
    /// Which replicas to wait for after each claim; `None` for none.
    pub wait_replicas: Option<WaitReplicas>,
    /// After how many failures in a row a server is not asked any more.
    pub breaker_failures: u32,
    /// How long the pauses between probes of a failing server are.
    pub breaker_probe_interval: Duration,
}

/// A store in Redis of version 6.2 or newer: one server, the master that sentinels name, or a Cluster.
pub struct Redis {
    servers: Servers,
    scripts: Scripts,
    prefix: String,
    probe_interval: Duration,
}

enum Servers {
    One(Box<Node>),
    Cluster(Box<Cluster>),
}

impl Redis {
    /// Reads the certificates; connects to nothing.
    pub fn new(options: Options) -> Result<Self, StoreError> {
        if options.prefix.contains(['{', '}']) {
            return Err(StoreError::Options(format!(
                "the key prefix {:?} contains a brace",
                options.prefix
            )));
        }
        Ok(Self {
            prefix: options.prefix.clone(),
            probe_interval: options.breaker_probe_interval,
            servers: Servers::new(options)?,
            scripts: Scripts::new(),
        })
    }

    /// Performs `operation` of `owner` on the record of `key`.
    ///
    /// Takes at most the connect time-out and the operation time-out; three times that where sentinels have to be asked,
    /// in a Cluster as much again for each redirection, and after a won claim the time that replicas have. Nothing while
    /// the breaker is open. A dropped future, a time-out or a broken connection leaves it open whether the operation was performed.
    pub async fn execute(
        &self,
        key: Key,
        owner: Owner,
        operation: Operation,
    ) -> Result<Reply, StoreError> {
        pin!(self.perform(&self.name(key), owner, &operation, Errand::Operation)).await
    }

    /// How long every operation and probe has failed, in a Cluster those of the node that fares worst; `None` if the last
    /// one did not.
    pub fn outage(&self) -> Option<Duration> {
        match &self.servers {
            Servers::One(node) => node.health.outage(),
            Servers::Cluster(cluster) => cluster.outage(),
        }
    }

    /// Probes, at every interval, each server whose last operation failed; and looks whom the sentinels take for the
    /// master. Never returns; see [`Store::probe_loop`](super::Store::probe_loop).
    pub async fn probe_loop(&self) -> Infallible {
        tokio::select! {
            never = self.probe_failing_again_and_again() => never,
            never = self.watch_sentinels() => never,
        }
    }

    async fn probe_failing_again_and_again(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.probe_interval).await;
            self.probe_failing().await;
        }
    }

    async fn watch_sentinels(&self) -> Infallible {
        match &self.servers {
            Servers::Cluster(_) => std::future::pending().await,
            Servers::One(node) => loop {
                tokio::time::sleep(SENTINELS_INTERVAL).await;
                node.wire.verify().await;
            },
        }
    }

    /// The name of the record of `key`: the prefix, then the key in a hash tag, readable and short (base64url).
    pub fn name(&self, key: Key) -> String {
        let mut name = String::with_capacity(self.prefix.len().saturating_add(TAG_BYTES));
        name.push_str(&self.prefix);
        name.push('{');
        URL_SAFE_NO_PAD.encode_string(key.0, &mut name);
        name.push('}');
        name
    }

    async fn probe_failing(&self) {
        for tag in self.failing_tags().await {
            if let Err(error) = self.probe(&tag).await {
                tracing::debug!(error = error.label(), "the store still fails");
            }
        }
    }

    /// For every server whose last operation failed, the hash tag of a record to probe it with.
    async fn failing_tags(&self) -> Vec<String> {
        match &self.servers {
            Servers::One(node) if node.health.wants_probe() => vec![PROBE.to_owned()],
            Servers::One(_) => Vec::new(),
            Servers::Cluster(cluster) => cluster.failing_tags().await,
        }
    }

    /// A whole claim on a record of its own, by the script: a PING would also be answered by a replica, by a server that is
    /// out of memory, and for a user who may not run scripts, which every other claim but the first may need. The SET that
    /// comes first otherwise needs no right that the script does not.
    async fn probe(&self, tag: &str) -> Result<Reply, StoreError> {
        // A new owner each time, and a lease that has lapsed by the next, so that the claim has to be written.
        let owner = Owner(u128::from(getrandom::u64().unwrap_or_default()));
        let claim = Operation::Claim { lease: Duration::ZERO, window: PROBE_WINDOW };
        self.perform(&self.probed(tag), owner, &claim, Errand::Probe).await
    }

    /// The name of the record that probes with the hash tag `tag` use.
    fn probed(&self, tag: &str) -> String {
        format!("{}{{{tag}}}", self.prefix)
    }

    async fn perform(
        &self,
        name: &str,
        owner: Owner,
        operation: &Operation,
        errand: Errand,
    ) -> Result<Reply, StoreError> {
        let way = match errand {
            Errand::Operation => Way::Cheapest,
            Errand::Probe => Way::Script,
        };
        let call = Call { scripts: &self.scripts, name, owner, operation, way };
        match &self.servers {
            Servers::Cluster(cluster) => Box::pin(cluster.perform(&call, errand)).await,
            Servers::One(node) => {
                let said = pin!(node.perform(&call, Asking::No, errand)).await?;
                match said {
                    Said::Reply(reply) => Ok(reply),
                    Said::Moved(target) | Said::Ask(target) => Err(StoreError::Unsupported(
                        format!("the server is a node of a cluster, and sends us to {target}"),
                    )),
                }
            }
        }
    }
}

impl Servers {
    fn new(options: Options) -> Result<Self, StoreError> {
        let tls = options.tls.as_ref().map(Tls::new).transpose()?;
        let for_sentinels = tls.clone();
        let terms = Terms {
            dialer: Arc::new(Dialer::new(options.credentials, options.database, tls)),
            patience: Patience {
                connect: options.connect_timeout,
                operation: options.operation_timeout,
            },
            breaker_failures: options.breaker_failures,
            wait_replicas: options.wait_replicas,
        };
        let dialer = Arc::clone(&terms.dialer);
        let one = |source, name| Ok(Self::One(Box::new(Node::new(source, name, &terms))));
        match options.endpoint {
            Endpoint::Unix(_) if for_sentinels.is_some() => {
                Err(StoreError::Options("TLS over a Unix socket".to_owned()))
            }
            Endpoint::Unix(path) => {
                let name = path.display().to_string();
                one(Source::Place(dialer, Place::Unix(path)), name)
            }
            Endpoint::Tcp { host, port } => {
                let address = Address { host, port };
                dialer.vet(&address)?;
                let name = address.to_string();
                one(Source::Place(dialer, Place::Tcp(address)), name)
            }
            Endpoint::Sentinel(Sentinel { master, addresses, credentials }) => {
                vet(&dialer, &addresses)?;
                let to_sentinels = Arc::new(Dialer::new(credentials, 0, for_sentinels));
                let wire = |at: &Address| {
                    let place = Place::Tcp(at.clone());
                    Wire::new(Source::Place(Arc::clone(&to_sentinels), place), terms.patience)
                };
                let wires = addresses.into_iter().map(|at| (wire(&at), at)).collect();
                let (servers, patience, name) = (dialer, terms.patience, master.clone());
                one(Source::Sentinels(Sentinels { master, wires, servers, patience }), name)
            }
            Endpoint::Cluster(_) if options.database != 0 => {
                Err(StoreError::Options("a cluster has but database 0".to_owned()))
            }
            Endpoint::Cluster(seeds) => {
                vet(&dialer, &seeds)?;
                Ok(Self::Cluster(Box::new(Cluster::new(seeds, terms))))
            }
        }
    }
}

fn vet(dialer: &Dialer, addresses: &[Address]) -> Result<(), StoreError> {
    if addresses.is_empty() {
        return Err(StoreError::Options("no address is given".to_owned()));
    }
    addresses.iter().try_for_each(|address| dialer.vet(address))
}
