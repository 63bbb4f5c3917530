//! What the stores' tests share: options for a test's server, and operations with ordinary terms.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use oncehook::claim::record::{Ending, Operation};
use oncehook::claim::{Digest, Key, Owner, Verdict};
use oncehook::clock::{self, UnixTime};
use oncehook::store::StoreError;
use oncehook::store::disk::{self, Disk};
use oncehook::store::redis::{Credentials, Endpoint, Options};
use secrecy::SecretString;

use super::redis::RedisServer;
use super::traced;

pub(crate) const LEASE: Duration = Duration::from_mins(1);
pub(crate) const WINDOW: Duration = Duration::from_hours(1);

pub(crate) const CLAIM: Operation = Operation::Claim { lease: LEASE, window: WINDOW };

pub(crate) const SETTLE: Operation =
    Operation::Settle { verdict: Verdict::Delivered(200), digest: Digest(7), window: WINDOW };

/// The same of an event that the backend refused for good.
pub(crate) const REFUSED: Operation =
    Operation::Settle { verdict: Verdict::Refused(422), digest: Digest(7), window: WINDOW };

pub(crate) const RELEASE: Operation =
    Operation::Release { ending: Ending::Failed, pause: Duration::ZERO, window: WINDOW };

/// Patient ones, for tests in which nothing fails on a machine that may be busy.
pub(crate) fn options(server: &RedisServer) -> Options {
    options_at(server.port())
}

pub(crate) fn options_at(port: u16) -> Options {
    Options {
        endpoint: Endpoint::Tcp { host: "127.0.0.1".to_owned(), port },
        credentials: None,
        database: 0,
        tls: None,
        prefix: "oncehook:".to_owned(),
        connect_timeout: Duration::from_secs(10),
        operation_timeout: Duration::from_secs(10),
        wait_replicas: None,
        breaker_failures: 5,
        breaker_probe_interval: Duration::from_millis(50),
    }
}

/// A store in a file, with the thread that writes it.
pub(crate) struct OnDisk {
    pub(crate) store: Disk,
    writer: JoinHandle<()>,
}

impl OnDisk {
    pub(crate) fn open(path: &Path) -> Self {
        Self::open_at(path, disk::RECORD_BYTES * 1_000_000, clock::unix()).unwrap()
    }

    pub(crate) fn open_at(path: &Path, bytes_max: u64, now: UnixTime) -> Result<Self, StoreError> {
        let operation_timeout = Duration::from_secs(10);
        let options = disk::Options { path: path.to_owned(), bytes_max, operation_timeout };
        let (store, writer) = Disk::open(options, now)?;
        Ok(Self { store, writer: std::thread::spawn(move || writer.run()) })
    }

    /// Closes the file in order.
    pub(crate) async fn close(self) {
        self.store.close().await;
        self.writer.join().unwrap();
    }
}

pub(crate) fn credentials(username: Option<&str>, password: &str) -> Credentials {
    traced::canary(password);
    Credentials { username: username.map(str::to_owned), password: SecretString::from(password) }
}

pub(crate) fn key(number: u128) -> Key {
    Key(number.to_be_bytes())
}

pub(crate) fn owner(number: u128) -> Owner {
    Owner(number)
}
