//! The address that one of LiveKit's nodes posts to, where the node is LiveKit's own sender and keeps its attempts to
//! itself: each request is passed on to the gateway whose turn it is, and recorded with what came of it.
//!
//! Nothing is made up here: a gateway's answer goes back byte for byte, and where there is none the connection ends
//! without one, as it would if the sender were connected to the gateway itself.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::history::{Attempt, Recorder, Told};
use crate::senders::Balancer;
use crate::wire::{self, Answers, event_in, message_len};

struct Shared {
    recorder: Arc<Recorder>,
    balancer: Arc<Balancer>,
    /// The number of the node, and of its copies.
    node: u32,
    seed: u64,
    /// How often each event has been posted.
    posted: Mutex<HashMap<u64, u32>>,
}

/// The front of one node; ends with the value.
pub(crate) struct Front {
    address: SocketAddr,
    stop: CancellationToken,
}

impl Front {
    pub(crate) async fn start(
        recorder: Arc<Recorder>,
        balancer: Arc<Balancer>,
        node: u32,
        seed: u64,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { recorder, balancer, node, seed, posted: Mutex::default() });
        wire::serve(listener, shared, stop.clone());
        Self { address, stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/webhook", self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Answers for Shared {
    /// The gateway's answer.
    async fn answer(&self, request: &[u8], socket: &mut TcpStream) -> Option<BytesMut> {
        let Some(event) = event_in(&String::from_utf8_lossy(request)) else {
            self.recorder.complain(format!("node {} posts what has no number", self.node));
            return None;
        };
        let number = self.count(event);
        let turn = self.seed + event + u64::from(self.node) + u64::from(number);
        let (gateway, address) = self.balancer.pick(turn)?;
        let sent = self.recorder.now();
        let (told, answer) = tokio::select! {
            answer = ask(address, request) => match answer {
                Ok(answer) => (Told::Status(status(&answer)), Some(answer)),
                Err(_) => (Told::Nothing, None),
            },
            () = left(socket) => (Told::HungUp, None),
        };
        let (copy, ended) = (self.node, self.recorder.now());
        let attempt = Attempt { event, copy, number, gateway, sent, ended, told };
        self.recorder.write().attempts.push(attempt);
        answer
    }
}

impl Shared {
    fn count(&self, event: u64) -> u32 {
        let mut posted = self.posted.lock().unwrap();
        let count = posted.entry(event).or_default();
        *count += 1;
        *count
    }
}

/// A connection for each request: whatever breaks one of them is of that request, and not of one before.
async fn ask(gateway: SocketAddr, request: &[u8]) -> io::Result<BytesMut> {
    let mut socket = TcpStream::connect(gateway).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request).await?;
    let mut answer = BytesMut::new();
    while message_len(&answer).is_none() {
        if socket.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(answer)
}

/// Waits until the sender has closed its connection.
async fn left(socket: &mut TcpStream) {
    // LiveKit's sender speaks HTTP/1.1 here and waits for one answer before it asks again: more bytes are not expected.
    let mut early = [0; 1];
    let more = matches!(socket.read(&mut early).await, Ok(1..));
    assert!(!more, "a sender does not wait for its answer");
}

fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.expect("an answer begins with a status")
}
