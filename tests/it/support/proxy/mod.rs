//! A proxy between a gateway and Redis that breaks what passes through it, command by command.
//!
//! It knows where commands and replies end and which operation of the claim protocol a command is, so that a fault hits
//! the moment that a test is about: before the command was executed, or after it and before its reply. A client that
//! shares one connection matches replies by their order, so no reply is ever left out of a stream that goes on: what is
//! lost is lost with the connection, or in its silence, as on a real network.

mod frames;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use frames::Asked;

/// Commands of one connection whose replies are still to come.
const PENDING_MAX: usize = 65_536;

/// What becomes of one command and its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Pass,
    /// The command does not reach the server, and the connection breaks.
    CutBefore,
    /// The command is executed, its reply is lost, and the connection breaks.
    CutAfter,
    /// The command does not reach the server, and the connection stays silent from here on.
    StallBefore,
    /// The command is executed; the connection is silent from its reply on.
    StallAfter,
    /// The reply comes later, and all that are behind it too.
    Delay(Duration),
    /// Bytes that are no reply, in the place of it.
    Corrupt,
}

type Rule = dyn Fn(Asked) -> Fate + Send + Sync;

struct Shared {
    server: SocketAddr,
    rule: Mutex<Arc<Rule>>,
    /// Nothing passes in either direction, and nothing says so.
    partitioned: watch::Sender<bool>,
    /// Breaks the connections that are open.
    cut: Mutex<CancellationToken>,
    hit: AtomicUsize,
}

/// The proxy; ends with the value.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    stop: CancellationToken,
}

impl Proxy {
    /// Passes everything on to Redis at `server`, until it is told otherwise.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            rule: Mutex::new(Arc::new(|_| Fate::Pass)),
            partitioned: watch::Sender::new(false),
            cut: Mutex::default(),
            hit: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, Arc::clone(&shared))));
        Self { shared, port, stop }
    }

    /// For the gateway's configuration.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on `rule` says what becomes of each command.
    pub(crate) fn rule(&self, rule: impl Fn(Asked) -> Fate + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Arc::new(rule);
    }

    /// Everything passes again. Connections that were made silent stay so: their owner gives them up.
    pub(crate) fn pass(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// How many faults have taken effect so far.
    pub(crate) fn hits(&self) -> usize {
        self.shared.hit.load(Ordering::SeqCst)
    }

    /// Lets nothing pass, on old connections and new ones; what is under way is held.
    pub(crate) fn part(&self) {
        self.shared.partitioned.send_replace(true);
    }

    /// Lets it pass again.
    pub(crate) fn heal(&self) {
        self.shared.partitioned.send_replace(false);
    }

    /// Breaks every open connection.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let cut = shared.cut.lock().unwrap().clone();
        tokio::spawn(cut.run_until_cancelled_owned(pass_on(client, Arc::clone(&shared))));
    }
}

/// One connection: two pumps, and the first that ends ends both.
async fn pass_on(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(shared.server).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (fates, decided) = channel(PENDING_MAX);
    tokio::select! {
        _ = commands(from_client, to_server, &fates, &shared) => {}
        _ = replies(from_server, to_client, decided, &shared) => {}
    }
}

async fn commands(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    fates: &Sender<Fate>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(length) = frames::frame_len(&buffer) {
            let frame = buffer.split_to(length);
            let asked = frames::asked(&frames::words(&frame));
            let rule = Arc::clone(&*shared.rule.lock().unwrap());
            let fate = rule(asked);
            match fate {
                Fate::CutBefore => {
                    shared.strike();
                    return Ok(());
                }
                Fate::StallBefore => {
                    shared.strike();
                    return silence(&mut client).await;
                }
                Fate::Pass | Fate::CutAfter | Fate::StallAfter | Fate::Delay(_) | Fate::Corrupt => {
                }
            }
            fates.send(fate).await.ok();
            shared.connected().await;
            server.write_all(&frame).await?;
        }
        if client.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn replies(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut decided: Receiver<Fate>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(length) = frames::frame_len(&buffer) {
            let fate = decided.recv().await.unwrap_or(Fate::Pass);
            shared.connected().await;
            match fate {
                Fate::Pass | Fate::CutBefore | Fate::StallBefore => {}
                Fate::CutAfter => {
                    shared.strike();
                    return Ok(());
                }
                Fate::StallAfter => {
                    shared.strike();
                    std::future::pending::<()>().await;
                }
                Fate::Delay(pause) => {
                    shared.strike();
                    tokio::time::sleep(pause).await;
                }
                Fate::Corrupt => {
                    client.write_all(b"%not a reply\r\n").await?;
                    shared.strike();
                    return Ok(());
                }
            }
            client.write_all(&buffer[..length]).await?;
            buffer.advance(length);
        }
        if server.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Reads on, so that the client's end is noticed, and says nothing.
async fn silence(client: &mut OwnedReadHalf) -> std::io::Result<()> {
    let mut sink = [0; 4096];
    while client.read(&mut sink).await? > 0 {}
    Ok(())
}

impl Shared {
    async fn connected(&self) {
        self.partitioned.subscribe().wait_for(|parted| !parted).await.ok();
    }

    fn strike(&self) {
        self.hit.fetch_add(1, Ordering::SeqCst);
    }
}
