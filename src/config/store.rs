//! `[store]` as it is in force: where records are held.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::{HostPort, UpstreamTls};

/// Where records are held.
#[derive(Clone)]
pub struct Store {
    /// Which store.
    pub kind: StoreKind,
    /// How much memory records of this process may take, in bytes: all of them, or the local ones beside a file or Redis.
    pub memory_bytes_max: usize,
}

/// Which store.
#[derive(Clone)]
pub enum StoreKind {
    /// This process's memory: one gateway.
    Memory,
    /// A file of this machine: one gateway, which remembers through a restart.
    Disk(Disk),
    /// Redis: any number of gateways.
    Redis(Box<Redis>),
}

/// A file of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file; its folder must be there.
    pub path: PathBuf,
    /// How much of the disk records may take, in bytes.
    pub bytes_max: usize,
    /// From asking to the reply; less than [`Claim::guard`](super::Claim::guard).
    pub operation_timeout: Duration,
}

/// Redis: one server, or several that stand in for each other.
#[derive(Clone)]
pub struct Redis {
    /// Where.
    pub servers: RedisServers,
    /// The ACL user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
    /// What every key begins with.
    pub prefix: String,
    /// From asking to the reply; less than [`Claim::guard`](super::Claim::guard).
    pub operation_timeout: Duration,
    /// For connecting and TLS.
    pub connect_timeout: Duration,
    /// Which replicas must have a claim before it counts.
    pub wait_replicas: Option<WaitReplicas>,
    /// How many failures in a row open the breaker.
    pub breaker_failures: u32,
    /// How often an open breaker asks whether Redis is back.
    pub breaker_probe_interval: Duration,
    /// `None`: plain TCP.
    pub tls: Option<UpstreamTls>,
}

/// Where Redis is.
#[derive(Clone)]
pub enum RedisServers {
    /// At one address.
    One {
        /// Which.
        address: HostPort,
        /// Which database; from 0 to 65535.
        database: i64,
    },
    /// Where sentinels say.
    Sentinel(Box<Sentinel>),
    /// A Cluster, by some of its nodes.
    Cluster(Vec<HostPort>),
}

/// Sentinels, and which of their masters is meant.
#[derive(Clone)]
pub struct Sentinel {
    /// The name of the master.
    pub master: String,
    /// The sentinels.
    pub addresses: Vec<HostPort>,
    /// Which of the master's databases; from 0 to 65535.
    pub database: i64,
    /// The sentinels' own ACL user.
    pub username: Option<String>,
    /// The sentinels' own password.
    pub password: Option<SecretString>,
}

/// Which replicas must have a claim before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitReplicas {
    /// How many, at least one.
    pub replicas: u32,
    /// How long they may take.
    pub timeout: Duration,
}

impl fmt::Display for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |addresses: &[HostPort]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::One { address, .. } => write!(f, "{address}"),
            Self::Sentinel(sentinel) => {
                write!(f, "{} by sentinels {}", sentinel.master, list(&sentinel.addresses))
            }
            Self::Cluster(addresses) => write!(f, "cluster {}", list(addresses)),
        }
    }
}
