//! For `fuzz/`: one operation over a stream at whose other end anything may be.

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};

use super::link::{Credentials, Dialer, Place};
use super::script::{Answer, Asking, Call, Scripts, Way};
use super::{StoreError, classify};
use crate::claim::Owner;
use crate::claim::record::{Operation, Reply};

/// Logs in and performs `operation`, as `node` does; not bounded in time.
pub async fn perform<S>(
    stream: S,
    credentials: Option<Credentials>,
    owner: Owner,
    operation: &Operation,
) -> Result<Reply, StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    run(stream, credentials, (owner, operation), Way::Cheapest).await
}

/// The same by the script alone, as a probe does it.
pub async fn perform_by_script<S>(
    stream: S,
    credentials: Option<Credentials>,
    owner: Owner,
    operation: &Operation,
) -> Result<Reply, StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    run(stream, credentials, (owner, operation), Way::Script).await
}

async fn run<S>(
    stream: S,
    credentials: Option<Credentials>,
    (owner, operation): (Owner, &Operation),
    way: Way,
) -> Result<Reply, StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let dialer = Dialer::new(credentials, 0, None);
    let mut link = dialer.log_in(stream, &Place::Unix(PathBuf::new())).await?;
    let scripts = Scripts::new();
    let call = Call { scripts: &scripts, name: "{fuzz}", owner, operation, way };
    match call.run(&mut link, Asking::No).await {
        Ok(Answer::Reply(said)) => said,
        Ok(Answer::Moved(target) | Answer::Ask(target)) => Err(StoreError::Unsupported(target)),
        Err(error) => Err(classify::error(&error)),
    }
}
