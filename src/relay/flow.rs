//! Whether something still moves: time-outs that run only while nothing does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::upstream::BoxError;

/// Counts what moved.
#[derive(Debug, Default)]
pub(super) struct Flow {
    moved: AtomicU64,
    failed: AtomicBool,
}

impl Flow {
    /// Something moved.
    pub(super) fn note(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the source broke off.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns when nothing has moved for `limit`, or for twice that at most. Cancel safe.
    pub(super) async fn stalled(&self, limit: Duration) {
        let mut seen = self.moved.load(Ordering::Relaxed);
        loop {
            sleep(limit).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}

/// A body that fails when its next piece does not come in time.
///
/// Time runs only while the body is asked and has nothing, so that a slow reader does not count against it.
pub(super) struct Paced<B> {
    body: Pin<Box<B>>,
    limit: Duration,
    /// `None` while the body keeps up.
    patience: Option<Pin<Box<Sleep>>>,
    flow: Option<Arc<Flow>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, limit: Duration, flow: Option<Arc<Flow>>) -> Self {
        Self { body: Box::pin(body), limit, patience: None, flow }
    }
}

/// The next piece of a body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("nothing more of the body came in time")]
struct Stalled;

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let limit = this.limit;
        let frame = match this.body.as_mut().poll_frame(context) {
            Poll::Ready(frame) => {
                this.patience = None;
                frame
            }
            Poll::Pending => {
                let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
                match patience.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => Some(Err(Stalled.into())),
                }
            }
        };
        if let Some(flow) = &this.flow {
            flow.note();
            if matches!(frame, Some(Err(_))) {
                flow.failed.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
