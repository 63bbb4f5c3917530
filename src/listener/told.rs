//! A token that is looked at whenever a connection's task runs, and hardly ever cancelled.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

pin_project! {
    /// Waits for a token. It is registered for a task once: until that is another, the token is only asked.
    pub(super) struct Told<'a> {
        token: &'a CancellationToken,
        #[pin]
        cancelled: WaitForCancellationFuture<'a>,
        registered: Option<Waker>,
    }
}

impl<'a> Told<'a> {
    /// Until `token` is cancelled.
    pub(super) fn by(token: &'a CancellationToken) -> Self {
        Self { token, cancelled: token.cancelled(), registered: None }
    }
}

impl Future for Told<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.registered.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            return if this.token.is_cancelled() { Poll::Ready(()) } else { Poll::Pending };
        }
        let polled = this.cancelled.poll(cx);
        *this.registered = Some(cx.waker().clone());
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_looked_last_is_woken_and_told() {
        let token = CancellationToken::new();
        let mut told = pin!(Told::by(&token));
        let tasks: [Arc<Woken>; 2] = Default::default();
        for task in &tasks {
            let waker = Waker::from(Arc::clone(task));
            for _ in 0..3 {
                assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        token.cancel();
        let woken = tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1]);
        let waker = Waker::from(Arc::clone(&tasks[1]));
        assert!(told.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn what_was_cancelled_before_is_told_at_once() {
        let token = CancellationToken::new();
        token.cancel();
        let told = pin!(Told::by(&token));
        assert!(told.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
