//! For `fuzz/`: one operation over a stream at whose other end anything may be.

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};

use super::link::{Credentials, Dialer, Place};
use super::script::{Answer, Asking, Call, Scripts, Way};
use super::{StoreError, classify};
use crate::claim::Owner;
use crate::claim::record::{Operation, Reply};

/// Logs in and performs `operation`, as `node` does, or `by_script` alone, as a probe does; not bounded in time.
pub async fn perform<S>(
    stream: S,
    credentials: Option<Credentials>,
    (owner, operation): (Owner, &Operation),
    by_script: bool,
) -> Result<Reply, StoreError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let way = if by_script { Way::Script } else { Way::Cheapest };
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
