//! Work that outlives whoever waits for it.
//!
//! As long as the request waits, its exchange is a part of the request's own task, which costs no task of its own. When
//! the request is dropped (its sender hung up, or was kept waiting long enough) the exchange goes on in one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// It panicked.
#[derive(Debug, thiserror::Error)]
#[error("the work panicked")]
pub(super) struct Panicked;

/// A future that is polled by whoever awaits this, and spawned if this is dropped before it has ended.
pub(super) struct Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    work: Option<Pin<Box<F>>>,
    tracker: TaskTracker,
    /// So that it is waited for at the end wherever it runs.
    #[expect(dead_code, reason = "held for as long as this is")]
    tracked: TaskTrackerToken,
}

impl<F> Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// `work`, to be tracked by `tracker` in either case.
    pub(super) fn new(work: F, tracker: &TaskTracker) -> Self {
        Self { work: Some(Box::pin(work)), tracker: tracker.clone(), tracked: tracker.token() }
    }
}

impl<F> Future for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        // Nothing of it is used again after a panic, as if it had been a task.
        let polled = match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(_panic) => Err(Panicked),
        };
        self.work = None;
        Poll::Ready(polled)
    }
}

impl<F> Drop for Detached<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            drop(self.tracker.spawn(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_is_dropped_goes_on_and_is_waited_for() {
        let tracker = TaskTracker::new();
        let (go, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let work = async move {
            gone.await.ok();
            tell.send(()).ok();
        };
        let waiting = timeout(Duration::from_millis(10), Detached::new(work, &tracker)).await;
        assert!(waiting.is_err(), "it waits for the word");
        assert_eq!(tracker.len(), 1, "it is still tracked");
        go.send(()).unwrap();
        timeout(Duration::from_secs(5), told).await.expect("it goes on").unwrap();
        tracker.close();
        timeout(Duration::from_secs(5), tracker.wait()).await.expect("nothing is left");
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_nothing_else() {
        let tracker = TaskTracker::new();
        let work = async { panic!("on purpose") };
        let ended: Result<(), Panicked> = Detached::new(work, &tracker).await;
        assert!(ended.is_err());
        assert!(tracker.is_empty());
    }

    #[test]
    fn without_a_runtime_it_is_dropped() {
        let tracker = TaskTracker::new();
        drop(Detached::new(std::future::pending::<()>(), &tracker));
        assert!(tracker.is_empty());
    }
}
