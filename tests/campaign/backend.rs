//! The backend: counts what it accepts, and breaks as it is told.
//!
//! An acceptance is recorded before the first byte of its answer is written: whatever an acknowledgement comes after,
//! it comes after that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::history::{Arrival, Fault, Recorder};
use crate::wire::{self, Answers, event_in};

/// What to do with one request.
#[derive(Clone)]
pub(crate) enum Act {
    /// 200.
    Accept,
    /// 200 after this, accepted at the end of it.
    AcceptAfter(Duration),
    /// The same, when nobody waits any more.
    AcceptLate(Duration),
    /// 200 once the gate is open, accepted before.
    AcceptAndHold(Arc<Gate>),
    /// Another status, and fields: not accepted.
    Say(&'static str),
    /// Nothing is said, nothing accepted.
    Hang,
    AcceptAndHang,
    /// RST rather than an answer.
    Reset,
    AcceptAndReset,
    /// Half a head, and the end.
    AcceptAndTruncate,
}

impl Act {
    /// What the sender of this request cannot know, if so: each may cost one more copy.
    const fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Accept | Self::AcceptAfter(_) | Self::AcceptAndHold(_) | Self::Say(_) => None,
            Self::AcceptLate(_) => Some("the backend is late"),
            Self::Hang | Self::AcceptAndHang => Some("the backend hangs"),
            Self::Reset | Self::AcceptAndReset => Some("the backend resets"),
            Self::AcceptAndTruncate => Some("the backend truncates"),
        }
    }
}

/// A request, as far as a script may look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) event: u64,
    /// How often this event has arrived, this time included.
    pub(crate) nth: u32,
}

type Script = dyn Fn(Request) -> Act + Send + Sync;

/// Holds answers back until it is opened.
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.ok();
    }
}

struct Shared {
    recorder: Arc<Recorder>,
    script: Mutex<Arc<Script>>,
    seen: Mutex<HashMap<u64, u32>>,
}

/// The backend; ends with the value.
pub(crate) struct Backend {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Backend {
    /// Accepts everything until it is told otherwise.
    pub(crate) async fn start(recorder: Arc<Recorder>) -> Self {
        let script: Mutex<Arc<Script>> = Mutex::new(Arc::new(|_| Act::Accept));
        let shared = Arc::new(Shared { recorder, script, seen: Mutex::default() });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut backend = Self { shared, address, stop: CancellationToken::new() };
        backend.open().await;
        backend
    }

    /// Closes its port and every connection.
    pub(crate) fn close(&self) {
        self.stop.cancel();
    }

    /// Listens, on the port that it had before.
    pub(crate) async fn open(&mut self) {
        // tokio sets SO_REUSEADDR: what is left of old connections does not stand in the way.
        let listener = TcpListener::bind(self.address).await.expect("the port is still free");
        self.address = listener.local_addr().unwrap();
        self.stop = CancellationToken::new();
        wire::serve(listener, Arc::clone(&self.shared), self.stop.clone());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn script(&self, script: impl Fn(Request) -> Act + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Answers for Shared {
    /// Records the request, and does as the script says.
    async fn answer(&self, request: &[u8], socket: &mut TcpStream) -> Option<BytesMut> {
        let (index, act, event) = self.arrived(request);
        if let (Some(what), Some(event)) = (act.fault(), event) {
            let fault = self.recorder.over(what, self.recorder.now());
            self.recorder.fault(Fault { event: Some(event), ..fault });
        }
        match act {
            Act::Accept => self.accept(index),
            Act::AcceptAfter(pause) | Act::AcceptLate(pause) => {
                // The gateway may leave meanwhile; a slow backend does not notice, and accepts all the same.
                tokio::time::sleep(pause).await;
                self.accept(index);
            }
            Act::AcceptAndHold(gate) => {
                self.accept(index);
                gate.passed().await;
            }
            Act::Say(answer) => return Some(head(answer)),
            Act::Hang => return closed(socket).await,
            Act::AcceptAndHang => {
                self.accept(index);
                return closed(socket).await;
            }
            Act::Reset => return reset(socket),
            Act::AcceptAndReset => {
                self.accept(index);
                return reset(socket);
            }
            Act::AcceptAndTruncate => {
                self.accept(index);
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.ok();
                return None;
            }
        }
        Some(head("200 OK"))
    }
}

impl Shared {
    fn arrived(&self, request: &[u8]) -> (usize, Act, Option<u64>) {
        let text = String::from_utf8_lossy(request);
        let field = |name: &str| {
            text.lines().take_while(|line| !line.is_empty()).find_map(|line| {
                let (field, value) = line.split_once(": ")?;
                field.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let event = event_in(&text);
        let act = event.map_or(Act::Accept, |event| {
            let nth = self.count(event);
            let script = Arc::clone(&*self.script.lock().unwrap());
            script(Request { event, nth })
        });
        let at = self.recorder.now();
        let mut history = self.recorder.write();
        history.arrivals.push(Arrival {
            event,
            key: field("idempotency-key").unwrap_or_default(),
            marked: field("oncehook-possible-duplicate").is_some(),
            at,
            accepted: None,
        });
        (history.arrivals.len() - 1, act, event)
    }

    fn count(&self, event: u64) -> u32 {
        let mut seen = self.seen.lock().unwrap();
        let count = seen.entry(event).or_default();
        *count += 1;
        *count
    }

    fn accept(&self, index: usize) {
        let now = self.recorder.now();
        self.recorder.write().arrivals[index].accepted = Some(now);
    }
}

fn head(status: &str) -> BytesMut {
    BytesMut::from(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_str())
}

/// Waits until the other side gives up.
async fn closed(socket: &mut TcpStream) -> Option<BytesMut> {
    let mut sink = [0; 1024];
    while let Ok(1..) = socket.read(&mut sink).await {}
    None
}

fn reset(socket: &TcpStream) -> Option<BytesMut> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
    None
}
