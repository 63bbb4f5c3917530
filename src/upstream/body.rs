//! Bodies: what goes to the backend, and what comes back through the relay.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::pool::Lent;

/// An error of a body that somebody else produces.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a request to the backend. It has no `Debug`: what it holds is nobody's to see.
pub enum Outgoing {
    /// One that is there in whole; `None` once it is written, or if there is none.
    Whole(Option<Bytes>),
    /// One that is still arriving.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Outgoing {
    /// A body that is there in whole.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// No body.
    pub const fn empty() -> Self {
        Self::Whole(None)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// The body of an answer, on its way through the relay. Its end gives the connection back; dropping it earlier closes
/// the connection, as what is left could be endless.
#[derive(Debug)]
pub struct Carried {
    body: Incoming,
    ended: bool,
    lent: Option<Lent>,
}

impl Carried {
    pub(super) const fn new(body: Incoming, lent: Lent) -> Self {
        Self { body, ended: false, lent: Some(lent) }
    }
}

impl Body for Carried {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // Here rather than at the last frame: a server that knows the length never polls past it.
        let whole = self.ended || self.body.is_end_stream();
        if let Some(lent) = self.lent.take().filter(|_| whole) {
            lent.give_back(None);
        }
    }
}
