//! A connection's stream under [`Watch`]: it tells of the bytes that come and go, and holds the connection's place.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::frames::{Frames, Offence};
use super::limit::Place;
use super::watch::Watch;
use crate::telemetry::labels::ConnectionRejection;
use crate::telemetry::metrics::Occupied;

/// What a connection occupies as long as any part of it lives; after an upgrade that is longer than its task.
#[derive(Debug)]
pub(super) struct Hold {
    place: Place,
    _open: Occupied,
    _tracked: TaskTrackerToken,
}

impl Hold {
    pub(super) const fn new(place: Place, open: Occupied, tracked: TaskTrackerToken) -> Self {
        Self { place, _open: open, _tracked: tracked }
    }

    /// Whom the connection is from, which was not known when it was accepted.
    pub(super) fn count_for(&mut self, address: IpAddr) -> Result<(), ConnectionRejection> {
        self.place.count_for(address)
    }
}

/// A stream that tells its [`Watch`] of the bytes that come, and holds the connection's place.
pub(super) struct Watched<T> {
    inner: T,
    watch: Arc<Watch>,
    frames: Option<Box<Frames>>,
    kill: CancellationToken,
    killed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _hold: Hold,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, watch: Arc<Watch>, kill: CancellationToken, hold: Hold) -> Self {
        Self { inner, watch, frames: None, kill, killed: None, _hold: hold }
    }

    /// It carries HTTP/2: its frames are counted, too.
    pub(super) fn with_frames(self, frames: Frames) -> Self {
        Self { frames: Some(Box::new(frames)), ..self }
    }

    /// While HTTP is spoken, the connection's task sees to the kill; after an upgrade nobody else does.
    fn poll_killed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.watch.is_upgraded() {
            return Ok(());
        }
        let kill = &self.kill;
        let killed = self.killed.get_or_insert_with(|| Box::pin(kill.clone().cancelled_owned()));
        match killed.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "shutting down"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_killed(cx)?;
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, into);
        let new = into.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return polled;
        }
        let this = &mut *self;
        match &mut this.frames {
            None => this.watch.bytes_came(),
            Some(frames) => {
                let arrived = frames.arrived(new);
                if let Some(open) = arrived.block_open {
                    this.watch.head_open(open);
                }
                if let Some(offence) = frames.offence(arrived, cx) {
                    return Poll::Ready(Err(this.send_away(offence, cx)));
                }
            }
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    /// A peer that offends is told so, if it can be told at once, and not listened to any more.
    fn send_away(&mut self, offence: Offence, cx: &mut Context<'_>) -> io::Error {
        if offence == Offence::Flood {
            self.watch.flood();
        }
        let goaway = offence.goaway();
        if let Some(frames) = self.frames.as_mut().filter(|frames| frames.between_frames())
            && let Poll::Ready(Ok(written)) = Pin::new(&mut self.inner).poll_write(cx, &goaway)
        {
            frames.left(goaway.get(..written).unwrap_or_default());
            // Whether it arrives is no longer our affair.
            drop(Pin::new(&mut self.inner).poll_flush(cx));
        }
        io::Error::other("the peer was sent away")
    }

    fn left(&mut self, slices: &[io::IoSlice<'_>], polled: &Poll<io::Result<usize>>) {
        let (Some(frames), Poll::Ready(Ok(written))) = (&mut self.frames, polled) else { return };
        let mut written = *written;
        for slice in slices {
            let of_this = slice.get(..written.min(slice.len())).unwrap_or_default();
            frames.left(of_this);
            written -= of_this.len();
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_killed(cx)?;
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.left(&[io::IoSlice::new(bytes)], &polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_killed(cx)?;
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.left(slices, &polled);
        polled
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
