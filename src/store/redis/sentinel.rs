//! Which server is the master: what the sentinels say, and whether the server agrees.

use std::sync::Arc;

use redis::{ErrorKind, FromRedisValue, ServerErrorKind, Value};

use super::link::{Address, Dialer, Link, Place};
use super::wire::{Patience, Wire, within};
use super::{classify, race};
use crate::store::StoreError;

/// The sentinels of one master.
pub(super) struct Sentinels {
    /// What they call it.
    pub(super) master: String,
    /// A connection to each, and where it listens; all are asked at once.
    pub(super) wires: Vec<(Wire, Address)>,
    /// Connects to the servers that they name.
    pub(super) servers: Arc<Dialer>,
    pub(super) patience: Patience,
}

impl Sentinels {
    /// A connection to the master that a sentinel names, if that one takes itself for a master too.
    ///
    /// Takes at most twice what an operation does: once for the sentinels, once for the server.
    pub(super) async fn connect(&self) -> Result<Link, StoreError> {
        race::first(self.wires.iter().map(|(wire, at)| self.connect_through(wire, at))).await
    }

    /// Whether more than half of all sentinels agree on another master than `place`.
    pub(super) async fn disown(&self, place: &Place) -> bool {
        let named = race::all(self.wires.iter().map(|(wire, at)| self.named_by(wire, at))).await;
        let others: Vec<Address> = named
            .into_iter()
            .flatten()
            .filter(|named| !matches!(place, Place::Tcp(address) if address == named))
            .collect();
        let votes = |other| others.iter().filter(|named| *named == other).count();
        others.iter().any(|other| votes(other) * 2 > self.wires.len())
    }

    async fn connect_through(&self, wire: &Wire, sentinel: &Address) -> Result<Link, StoreError> {
        let master = self.named_by(wire, sentinel).await?;
        let place = Place::Tcp(master.clone());
        let mut link = within(self.patience.connect, self.servers.dial(&place)).await?;
        let role = within(self.patience.operation, role(&mut link)).await?;
        match role.as_deref() {
            Some("master") | None => Ok(link),
            Some(role) => Err(StoreError::Unavailable(format!(
                "the sentinel {sentinel} names {master}, which is a {role}"
            ))),
        }
    }

    /// Whom this sentinel takes for the master.
    async fn named_by(&self, wire: &Wire, sentinel: &Address) -> Result<Address, StoreError> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let asked = wire.ask(async |link| question.query_async(link.connection()).await).await;
        let (answer, _): (Value, Link) = asked.map_err(|error| told_by(sentinel, error))?;
        if answer == Value::Nil {
            return Err(StoreError::Options(format!(
                "the sentinel {sentinel} knows no master called {:?}",
                self.master
            )));
        }
        let (host, port) = <(String, u16)>::from_redis_value(answer)
            .map_err(|error| StoreError::Unexpected(format!("{error} from {sentinel}")))?;
        Ok(Address { host, port })
    }
}

/// What the server takes itself for; `None` if the user may not ask. Then a replica is known by its READONLY.
async fn role(link: &mut Link) -> Result<Option<String>, StoreError> {
    let answer: Value = match redis::cmd("ROLE").query_async(link.connection()).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => {
            return Ok(None);
        }
        answer => answer.map_err(|error| classify::error(&error))?,
    };
    if let Value::Array(items) = &answer
        && let Some(Value::BulkString(role)) = items.first()
    {
        return Ok(Some(String::from_utf8_lossy(role).into_owned()));
    }
    Err(StoreError::Unexpected(format!("{answer:?} to ROLE")))
}

/// Says of what an operator has to set right that it is the sentinel's, not the server's.
fn told_by(sentinel: &Address, error: StoreError) -> StoreError {
    match error {
        StoreError::Credentials(text) => {
            StoreError::Credentials(format!("the sentinel {sentinel}: {text}"))
        }
        StoreError::Permission(text) => {
            StoreError::Permission(format!("the sentinel {sentinel}: {text}"))
        }
        StoreError::Unsupported(text) => {
            StoreError::Unsupported(format!("{sentinel} is no sentinel: {text}"))
        }
        other @ (StoreError::Open
        | StoreError::Timeout(_)
        | StoreError::Unreachable(_)
        | StoreError::Unavailable(_)
        | StoreError::Unexpected(_)
        | StoreError::Full
        | StoreError::Foreign(_)
        | StoreError::Untrusted(_)
        | StoreError::InUse(_)
        | StoreError::File { .. }
        | StoreError::Options(_)) => other,
    }
}
