//! Between hyper and the service: tells the watch when an exchange begins and ends, and lets a panic end one exchange
//! rather than the process.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::watch::Exchanging;
use crate::telemetry::Metrics;

/// The service panicked. hyper closes the HTTP/1.1 connection, or resets the HTTP/2 stream: the sender tries again.
#[derive(Debug, thiserror::Error)]
#[error("the service panicked")]
pub(super) struct Panicked;

pin_project! {
    /// One exchange on its way to an answer.
    pub(super) struct Answering<F> {
        #[pin]
        service: F,
        exchanging: Option<Exchanging>,
        metrics: Arc<Metrics>,
    }
}

impl<F> Answering<F> {
    pub(super) const fn new(service: F, exchanging: Exchanging, metrics: Arc<Metrics>) -> Self {
        Self { service, exchanging: Some(exchanging), metrics }
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Response<B>>,
{
    type Output = Result<Response<Tracked<B>>, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Nothing of the service is used again after a panic: hyper drops it.
        match catch_unwind(AssertUnwindSafe(|| this.service.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(mut response)) => {
                let mut exchanging = this.exchanging.take();
                if let Some(exchanging) = &mut exchanging {
                    announce(exchanging, &mut response);
                    exchanging.waits_for_peer();
                }
                let metrics = Arc::clone(this.metrics);
                Poll::Ready(Ok(response.map(|body| Tracked { body, exchanging, metrics })))
            }
            Err(_panic) => {
                report(this.metrics);
                Poll::Ready(Err(Panicked))
            }
        }
    }
}

pin_project! {
    /// An answer's body; the exchange lasts until hyper drops it.
    pub(super) struct Tracked<B> {
        #[pin]
        body: B,
        exchanging: Option<Exchanging>,
        metrics: Arc<Metrics>,
    }
}

impl<B> Body for Tracked<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        // hyper asks as soon as the peer takes more. Until there is more, the service is waited for.
        if let Some(exchanging) = this.exchanging {
            exchanging.goes_on();
        }
        match catch_unwind(AssertUnwindSafe(|| this.body.poll_frame(cx))) {
            Ok(polled) => {
                if let (Poll::Ready(Some(Ok(_))), Some(exchanging)) = (&polled, this.exchanging) {
                    exchanging.waits_for_peer();
                }
                polled.map_err(Into::into)
            }
            Err(_panic) => {
                report(this.metrics);
                Poll::Ready(Some(Err(Box::new(Panicked))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What an answer means for its connection.
fn announce<B>(exchanging: &Exchanging, response: &mut Response<B>) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        exchanging.switch();
    } else if exchanging.body_is_due() {
        // Nobody will read the rest, and the connection closes. A sender that is not told may send its next request into
        // the closing, and never know whether it arrived (RFC 9112, §9.6).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The panic hook has told where. The message is not repeated: nobody knows what it quotes.
fn report(metrics: &Metrics) {
    metrics.service_panicked();
    tracing::error!("the service panicked; one exchange failed, the process goes on");
}
