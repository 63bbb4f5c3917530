//! How long a connection may go on doing what it does.
//!
//! The end moves with every request, and is hardly ever reached. So the timer is not moved along with it: it rings when
//! an earlier end would have come, and is then set for what is left. Only an end that comes nearer sets it at once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

pin_project! {
    /// A timer whose end is moved often.
    pub(super) struct Patience {
        end: Option<Instant>,
        // Whether the timer will ring.
        set: bool,
        #[pin]
        timer: Sleep,
    }
}

impl Patience {
    /// Without an end. To be made inside a tokio runtime.
    pub(super) fn endless() -> Self {
        Self { end: None, set: false, timer: sleep(Duration::ZERO) }
    }

    /// Ends after `lasts`, counted from now; never, if there is nothing to wait for.
    pub(super) fn renew(self: Pin<&mut Self>, lasts: Option<Duration>) {
        // A timer that nobody waits for is a reading of tokio's clock, and little more.
        *self.project().end = lasts.map(|lasts| sleep(lasts).deadline());
    }

    /// Until the end. Once it has come, there is none.
    pub(super) fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(end) = *this.end else { return Poll::Pending };
        loop {
            if !*this.set || end < this.timer.deadline() {
                this.timer.set(sleep_until(end));
                *this.set = true;
            }
            ready!(this.timer.as_mut().poll(cx));
            *this.set = false;
            if end <= this.timer.deadline() {
                *this.end = None;
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_mins(10);

    async fn ends(mut patience: Pin<&mut Patience>) -> Duration {
        let began = sleep(Duration::ZERO).deadline();
        poll_fn(|cx| patience.as_mut().poll_end(cx)).await;
        sleep(Duration::ZERO).deadline() - began
    }

    /// Whether it has not ended, asked once, as a task would that was woken by something else.
    async fn lasts(mut patience: Pin<&mut Patience>) -> bool {
        poll_fn(|cx| Poll::Ready(patience.as_mut().poll_end(cx).is_pending())).await
    }

    #[tokio::test]
    async fn an_end_that_moves_away_comes_later() {
        let mut patience = pin!(Patience::endless());
        patience.as_mut().renew(Some(SHORT));
        assert!(lasts(patience.as_mut()).await);
        patience.as_mut().renew(Some(SHORT * 4));
        assert!(ends(patience.as_mut()).await >= SHORT * 4);
    }

    #[tokio::test]
    async fn an_end_that_comes_nearer_is_not_missed() {
        let mut patience = pin!(Patience::endless());
        patience.as_mut().renew(Some(LONG));
        assert!(lasts(patience.as_mut()).await);
        patience.as_mut().renew(Some(SHORT));
        let took = ends(patience.as_mut()).await;
        assert!(SHORT <= took && took < LONG, "{took:?}");
    }

    #[tokio::test]
    async fn without_an_end_it_never_comes_whatever_was_set_before() {
        let mut patience = pin!(Patience::endless());
        patience.as_mut().renew(Some(SHORT));
        assert!(lasts(patience.as_mut()).await);
        patience.as_mut().renew(None);
        sleep(SHORT * 2).await;
        assert!(lasts(patience.as_mut()).await);
        patience.as_mut().renew(Some(SHORT));
        assert!(ends(patience.as_mut()).await >= SHORT);
    }
}
