//! Why an operation could not be performed.

use std::path::PathBuf;
use std::time::Duration;

/// Why a store did not perform an operation, or did not say so.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The breaker is open: the store failed again and again, and nobody asked it this time.
    #[error("the store has been failing and is not asked for now")]
    Open,
    /// No answer in time; the operation may have been performed.
    #[error("the store did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// No connection, or it broke; the operation may have been performed.
    #[error("the store cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers that it cannot serve now.
    #[error("the store cannot serve now: {0}")]
    Unavailable(String),
    /// It answers what nobody asked.
    #[error("the store gave an unexpected answer: {0}")]
    Unexpected(String),
    /// Bounded memory holds nothing that may be forgotten.
    #[error("the store is full of records that must not be forgotten")]
    Full,
    /// It does not accept the user name or the password.
    #[error("the store refused the credentials: {0}")]
    Credentials(String),
    /// The user may not do what the protocol needs.
    #[error("the store denied a permission: {0}")]
    Permission(String),
    /// The key holds something that this version did not write.
    #[error("the store holds a record that is not ours: {0}")]
    Foreign(String),
    /// It cannot do what the protocol needs.
    #[error("the store lacks what is needed: {0}")]
    Unsupported(String),
    /// Its certificate is not accepted.
    #[error("the store's certificate is not trusted")]
    Untrusted(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another process has its file.
    #[error("the store's file {} is open in another process", .0.display())]
    InUse(PathBuf),
    /// Its file cannot be opened, read or written.
    #[error("the store's file {} cannot be used", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The options contradict themselves, or hold what cannot be read.
    #[error("the store's options are wrong: {0}")]
    Options(String),
}

impl StoreError {
    /// The value of the metrics' label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Unavailable(_) => "unavailable",
            Self::Unexpected(_) => "unexpected",
            Self::Full => "full",
            Self::Credentials(_) => "credentials",
            Self::Permission(_) => "permission",
            Self::Foreign(_) => "foreign",
            Self::Unsupported(_) => "unsupported",
            Self::Untrusted(_) => "untrusted",
            Self::InUse(_) => "in_use",
            Self::File { .. } => "file",
            Self::Options(_) => "options",
        }
    }

    /// Whether waiting does not help, because somebody has to change a setting.
    pub const fn is_misconfigured(&self) -> bool {
        match self {
            Self::Open
            | Self::Timeout(_)
            | Self::Unreachable(_)
            | Self::Unavailable(_)
            | Self::Unexpected(_)
            | Self::Full => false,
            Self::Credentials(_)
            | Self::Permission(_)
            | Self::Foreign(_)
            | Self::Unsupported(_)
            | Self::Untrusted(_)
            | Self::InUse(_)
            | Self::File { .. }
            | Self::Options(_) => true,
        }
    }

    /// What an operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Open | Self::Unreachable(_) => {
                "check that the server runs, and its address, port and TLS setting (rediss:// or redis://)"
            }
            Self::Timeout(_) => {
                "check the server's load and the network, or allow a longer time-out"
            }
            Self::Unavailable(_) => {
                "the server says what it lacks: memory, a master, or the end of its start"
            }
            Self::Unexpected(_) => "check that the address is a Redis server's",
            Self::Full => "allow the store more bytes",
            Self::Credentials(_) => {
                "check the user name and the password; without a user name Redis takes `default`"
            }
            Self::Permission(_) => {
                "grant the user: ~PREFIX* +eval +evalsha +get +set +pttl +time +ping (and +info, for the start-up checks; in a \
                 Cluster +cluster|slots +asking; for wait_replicas +wait; at the sentinels \
                 +sentinel|get-master-addr-by-name)"
            }
            Self::Foreign(_) => {
                "give oncehook a key prefix of its own; gateways that share it need the same version"
            }
            Self::Unsupported(_) => {
                "oncehook needs Redis 6.2 or newer; a Cluster is named in store.redis.cluster, sentinels in \
                 store.redis.sentinel, any other server by its URL"
            }
            Self::Untrusted(_) => {
                "check the CA file, and that the certificate is valid now and names the host as it is configured"
            }
            Self::InUse(_) => {
                "`fuser -v` on the file names that process; give each gateway a file of its own, or let them share a Redis"
            }
            Self::File { .. } => {
                "check that its folder is there, writable for this user and not full, and that store.disk.path names the right file"
            }
            Self::Options(_) => "correct the setting",
        }
    }

    /// Whether the server itself works, and this one record is at fault.
    pub const fn concerns_one_record(&self) -> bool {
        matches!(self, Self::Foreign(_))
    }

    /// Whether another connection may fare better: this one is dead, or leads to a server that is no master any more.
    pub(super) const fn spoils_connection(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Unreachable(_)
            | Self::Unavailable(_)
            | Self::Unexpected(_)
            | Self::Credentials(_)
            | Self::Unsupported(_)
            | Self::Untrusted(_) => true,
            Self::Open
            | Self::Full
            | Self::Permission(_)
            | Self::Foreign(_)
            | Self::InUse(_)
            | Self::File { .. }
            | Self::Options(_) => false,
        }
    }
}
