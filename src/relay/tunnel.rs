//! A connection after both sides have changed the protocol: bytes, both ways.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::timeout;

use crate::upstream::Carried;

use super::flow::Flow;

/// How long the two sides may take to change the protocol once the backend has said so.
const SWITCH_TIME: Duration = Duration::from_secs(10);

/// The two sides of an upgraded connection.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) backend: OnUpgrade,
    /// Holds the backend's connection, and its place among the connections, until the tunnel ends.
    pub(super) held: Carried,
    pub(super) idle_timeout: Duration,
}

impl Tunnel {
    /// Carries bytes until both sides have ended, one has failed, or neither has sent any for the idle time.
    pub(super) async fn run(self) {
        let Self { client, backend, held, idle_timeout } = self;
        let both = async { tokio::try_join!(client, backend) };
        let Ok(Ok((client, backend))) = timeout(SWITCH_TIME, both).await else { return };
        let flow = Arc::new(Flow::default());
        let mut client = Watched { io: TokioIo::new(client), flow: Arc::clone(&flow) };
        let mut backend = TokioIo::new(backend);
        tokio::select! {
            // How it ended is the two sides' affair: each sees the other's end or failure as its own.
            _ = copy_bidirectional(&mut client, &mut backend) => {}
            () = flow.stalled(idle_timeout) => {}
        }
        drop(held);
    }
}

/// The client's side, which sees the bytes of both directions.
struct Watched {
    io: TokioIo<Upgraded>,
    flow: Arc<Flow>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.flow.note();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if written.is_ready() {
            self.flow.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
