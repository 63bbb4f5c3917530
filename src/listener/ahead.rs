//! Reads ahead of TLS. rustls asks for 4 KB at a time (`msgs/deframer/buffers.rs`), which makes a system call of every 4 KB
//! of a large body: as soon as more is there than was asked for, a piece of [`AHEAD_BYTES`] is read, and handed out from
//! memory. What is kept belongs to a connection that has just sent it, and goes as soon as it is handed out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// How much is read at once of what comes in large amounts: two TLS records at the most (RFC 8446 §5.1).
const AHEAD_BYTES: usize = 32 * 1024;

/// A stream that is read in larger pieces than its reader asks for, if there is more.
pub(super) struct Ahead<T> {
    inner: T,
    kept: BytesMut,
    /// The last read brought as much as it could.
    more: bool,
}

impl<T> Ahead<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, kept: BytesMut::new(), more: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Ahead<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        if this.kept.is_empty() {
            // Whatever comes of it, also if nothing does: it is known anew with the next read.
            if !std::mem::take(&mut this.more) {
                ready!(inner.poll_read(cx, into))?;
                this.more = into.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            let mut piece = BytesMut::with_capacity(AHEAD_BYTES);
            let bytes = ready!(poll_read_buf(inner, cx, &mut piece))?;
            this.more = bytes >= AHEAD_BYTES;
            this.kept = piece;
        }
        let bytes = this.kept.len().min(into.remaining());
        into.put_slice(this.kept.get(..bytes).unwrap_or_default());
        this.kept.advance(bytes);
        if this.kept.is_empty() {
            // An idle connection keeps no room.
            this.kept = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Ahead<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.inner);
        match slices {
            // An answer, most often: send(2) has less to do than writev(2).
            [only] => inner.poll_write(cx, only),
            _ => inner.poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Counts what is asked of it.
    struct Counted<T> {
        inner: T,
        reads: usize,
    }

    impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            Pin::new(&mut self.inner).poll_read(cx, into)
        }
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|place| u8::try_from(place % 251).unwrap()).collect()
    }

    /// Reads to the end, as much at a time as rustls does.
    async fn read(ahead: &mut Ahead<Counted<impl AsyncRead + Unpin>>, step: usize) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            match ahead.read(&mut piece).await.unwrap() {
                0 => return all,
                taken => all.extend_from_slice(&piece[..taken]),
            }
        }
    }

    /// Sends so many bytes through a pipe that holds `room`, and reads them in steps.
    async fn through(room: usize, step: usize, count: usize) {
        let (mut far, near) = duplex(room);
        let mut ahead = Ahead::new(Counted { inner: near, reads: 0 });
        let sent = bytes(count);
        let sending = async {
            far.write_all(&sent).await.unwrap();
            drop(far);
        };
        let (read, ()) = tokio::join!(read(&mut ahead, step), sending);
        assert!(read == sent, "{room} {step}");
        assert_eq!(ahead.kept.capacity(), 0, "{room} {step}");
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_sent_in_whatever_pieces() {
        for step in [7, 4096, 50_000] {
            through(1, step, 5000).await;
        }
        for room in [4095, 4096, 4097, 40_000, 400_000] {
            through(room, 7, 300_000).await;
            through(room, 4096, 300_000).await;
            through(room, 50_000, 300_000).await;
        }
    }

    #[tokio::test]
    async fn of_much_that_is_there_much_is_read_at_once_and_of_little_no_more_than_asked() {
        let (mut far, near) = duplex(1 << 20);
        let mut ahead = Ahead::new(Counted { inner: near, reads: 0 });
        far.write_all(&bytes(256 * 1024)).await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(read(&mut ahead, 4096).await.len(), 256 * 1024);
        let reads = ahead.inner.reads;
        assert!((9..=12).contains(&reads), "{reads} reads of 64 pieces");

        let (mut far, near) = duplex(1 << 20);
        let mut ahead = Ahead::new(Counted { inner: near, reads: 0 });
        far.write_all(&bytes(1500)).await.unwrap();
        let mut piece = [0; 4096];
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 1500);
        assert_eq!((ahead.inner.reads, ahead.kept.capacity()), (1, 0));
    }
}
