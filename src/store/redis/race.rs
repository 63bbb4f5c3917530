//! Several are asked at once, and the first good answer counts: in turn, each one that is dead would cost a time-out, in
//! the middle of a fail-over.

use std::future::Future;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::store::StoreError;

/// The first success. If there is none: a failure that may pass, if any may, so that one server that is set up wrong does
/// not speak for the others; else the last one. What has not answered by then is dropped.
pub(super) async fn first<T, F>(tries: impl IntoIterator<Item = F>) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut tries: FuturesUnordered<F> = tries.into_iter().collect();
    let mut failure = None;
    while let Some(outcome) = tries.next().await {
        match outcome {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = Some(milder(failure, error)),
        }
    }
    Err(failure.unwrap_or_else(|| StoreError::Options("there is nobody to ask".to_owned())))
}

/// The outcomes of all.
pub(super) async fn all<T>(tries: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    tries.into_iter().collect::<FuturesUnordered<_>>().collect().await
}

fn milder(earlier: Option<StoreError>, later: StoreError) -> StoreError {
    match earlier {
        Some(earlier) if !earlier.is_misconfigured() => earlier,
        Some(_) | None => later,
    }
}
