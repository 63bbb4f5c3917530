//! Reads a webhook's body: in time, within its limit, and within the memory set aside for all of them.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Rejection;

/// What a permit of [`Shelf`] stands for.
const UNIT_BYTES: usize = 1024;

/// The memory that bodies may take, all together.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    bytes_max: usize,
    places: Arc<Semaphore>,
}

/// A body, and its place in memory; the place is free again when this goes. It has no `Debug`: what it holds is nobody's to see.
pub(super) struct Shelved {
    /// The bytes as they came.
    pub(super) bytes: Bytes,
    /// Held for as long as the bytes are.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl Shelf {
    /// Room for `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { bytes_max, places: Arc::new(Semaphore::new(units)) }
    }

    /// The same one if it has room for `bytes_max`; else another, beside which this one empties.
    pub(super) fn resized(&self, bytes_max: usize) -> Self {
        if self.bytes_max == bytes_max { self.clone() } else { Self::new(bytes_max) }
    }

    fn reserve(
        &self,
        place: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Rejection> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).map_err(|_| Rejection::Crowded)?;
        let more = Arc::clone(&self.places)
            .try_acquire_many_owned(units)
            .map_err(|_| Rejection::Crowded)?;
        match place {
            Some(place) => place.merge(more),
            None => *place = Some(more),
        }
        Ok(())
    }
}

/// Reads `body` to its end. Trailers are dropped. The memory of a body whose length is announced is reserved before its
/// first byte is read, so that many slow senders cannot promise more than there is.
///
/// # Errors
/// [`Rejection::TooLarge`], [`Rejection::BodySlow`], [`Rejection::BodyMalformed`], [`Rejection::BodyBroken`] or
/// [`Rejection::Crowded`].
pub(super) async fn read<B>(
    body: B,
    shelf: &Shelf,
    bytes_max: usize,
    within: Duration,
) -> Result<Shelved, Rejection>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut reading = pin!(read_all(body, shelf, bytes_max));
    // Most bodies have come with their heads, and need no clock.
    if let Poll::Ready(read) = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await
    {
        return read;
    }
    tokio::time::timeout(within, reading).await.map_err(|_| Rejection::BodySlow(within))?
}

async fn read_all<B>(mut body: B, shelf: &Shelf, bytes_max: usize) -> Result<Shelved, Rejection>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(Rejection::TooLarge(bytes_max));
    }
    let mut place = None;
    shelf.reserve(&mut place, announced)?;
    let mut reserved = announced.next_multiple_of(UNIT_BYTES);
    // Most bodies are one frame, which is taken as it is.
    let mut whole = Bytes::new();
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let length = whole.len().max(parts.len()) + data.len();
        if length > bytes_max {
            return Err(Rejection::TooLarge(bytes_max));
        }
        if length > reserved {
            // What is taken in whole units is counted so, or small frames would take a unit each.
            let more = (length - reserved).next_multiple_of(UNIT_BYTES);
            shelf.reserve(&mut place, more)?;
            reserved += more;
        }
        if whole.is_empty() && parts.is_empty() {
            whole = data;
            continue;
        }
        if parts.capacity() < length {
            // Twice as much each time, so that few bytes are moved, but never more than a body may have; and by the
            // allocator, which moves large pieces without a second copy.
            let capacity = announced.max((2 * length).min(bytes_max));
            parts.reserve_exact(capacity - parts.len());
        }
        parts.extend_from_slice(&std::mem::take(&mut whole));
        parts.extend_from_slice(&data);
    }
    let bytes = if parts.is_empty() { whole } else { Bytes::from(parts) };
    Ok(Shelved { bytes, place })
}

/// Whether the bytes make no sense, or there are no more: the one is the sender's doing, the other may be the network's.
fn broken(error: hyper::Error) -> Rejection {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let kind = source.map(io::Error::kind);
    if matches!(kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) {
        Rejection::BodyMalformed(error)
    } else {
        Rejection::BodyBroken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::Context;

    use http_body::Frame;
    use http_body_util::Full;

    const PATIENT: Duration = Duration::from_secs(5);

    /// Frames that are ready, one after the other; then the end, or nothing more.
    struct Frames {
        ready: std::vec::IntoIter<&'static [u8]>,
        ends: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            match self.ready.next() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(part))))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn chunks(parts: &[&'static [u8]]) -> Frames {
        let parts: Vec<_> = parts.to_vec();
        Frames { ready: parts.into_iter(), ends: true }
    }

    fn whole(bytes: &'static [u8]) -> impl Body<Data = Bytes, Error = hyper::Error> + Unpin {
        Full::new(Bytes::from_static(bytes)).map_err(|never| match never {})
    }

    #[tokio::test]
    async fn parts_are_joined_in_order() {
        let shelf = Shelf::new(1 << 20);
        let read =
            read(chunks(&[b"one ", b"two ", b"", b"three"]), &shelf, 100, PATIENT).await.unwrap();
        assert_eq!(read.bytes, "one two three");
    }

    #[tokio::test]
    async fn the_limit_is_exact_whether_or_not_the_length_is_announced() {
        let shelf = Shelf::new(1 << 20);
        assert_eq!(read(whole(b"12345"), &shelf, 5, PATIENT).await.unwrap().bytes, "12345");
        assert!(matches!(
            read(whole(b"123456"), &shelf, 5, PATIENT).await,
            Err(Rejection::TooLarge(5))
        ));
        assert_eq!(
            read(chunks(&[b"123", b"45"]), &shelf, 5, PATIENT).await.unwrap().bytes,
            "12345"
        );
        let long = read(chunks(&[b"123", b"456"]), &shelf, 5, PATIENT).await;
        assert!(matches!(long, Err(Rejection::TooLarge(5))));
    }

    #[tokio::test]
    async fn bodies_share_a_bounded_memory_and_give_it_back() {
        let shelf = Shelf::new(2 * UNIT_BYTES);
        let first = read(whole(&[b'x'; 1_500]), &shelf, 4_096, PATIENT).await.unwrap();
        assert!(matches!(read(whole(b"y"), &shelf, 4_096, PATIENT).await, Err(Rejection::Crowded)));
        drop(first);
        assert!(read(whole(b"y"), &shelf, 4_096, PATIENT).await.is_ok());
    }

    #[tokio::test]
    async fn many_small_frames_take_no_more_memory_than_one_large_one() {
        let shelf = Shelf::new(4 * UNIT_BYTES);
        let frames = vec![&b"x"[..]; 3_000];
        let read = read(chunks(&frames), &shelf, 4_096, PATIENT).await.unwrap();
        assert_eq!(read.bytes.len(), 3_000);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let shelf = Shelf::new(1 << 20);
        let slow = Frames { ready: vec![&b"some"[..]].into_iter(), ends: false };
        let given_up = read(slow, &shelf, 100, Duration::from_millis(10)).await;
        assert!(matches!(given_up, Err(Rejection::BodySlow(_))));
    }
}
