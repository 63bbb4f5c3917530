//! The backend's side against real sockets: what each way of answering, and of not answering, comes to.

mod connection;
mod head;
mod outcome;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::request::{Builder, Parts};
use oncehook::claim::Key;
use oncehook::upstream::{Forward, Forwarded, HostPolicy, Options, PathPolicy, Peer, Upstream};
use tokio_util::task::TaskTracker;

const BODY: &[u8] = br#"{"event":"room_started","id":"EV_1"}"#;
const KEY: Key = Key([0xab; 16]);

fn options(url: &str) -> Options {
    Options {
        target: url.parse().unwrap(),
        path: PathPolicy::Sender,
        host: HostPolicy::Backend,
        tls: None,
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_millis(1500),
        connections_max: 512,
        refused: vec![400, 409, 410, 411, 413, 414, 415, 422],
        via: "oncehook".to_owned(),
    }
}

fn upstream(options: &Options) -> Upstream {
    Upstream::new(options, TaskTracker::new()).unwrap()
}

fn arrived() -> Builder {
    Request::post("/livekit/webhook")
        .header("host", "gateway.example")
        .header("authorization", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln")
        .header("content-type", "application/webhook+json")
        .header("user-agent", "Go-http-client/1.1")
}

fn head(request: Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

fn peer() -> Peer {
    let address = SocketAddr::from(([192, 0, 2, 60], 4711));
    Peer { address, client: address.ip(), tls: true, trusted: false }
}

/// One forward; most tests change one thing of it.
struct Copy {
    head: Parts,
    body: Bytes,
    peer: Peer,
    attempt: u32,
    possible_duplicate: bool,
    budget: Duration,
}

impl Copy {
    fn new() -> Self {
        let body = Bytes::from_static(BODY);
        Self {
            head: head(arrived()),
            body,
            peer: peer(),
            attempt: 1,
            possible_duplicate: false,
            budget: Duration::from_secs(8),
        }
    }

    fn within(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    async fn forward(&self, upstream: &Upstream) -> Forwarded {
        self.forward_while(upstream, &|| true).await
    }

    async fn forward_while(
        &self,
        upstream: &Upstream,
        may_write: &(dyn Fn() -> bool + Send + Sync),
    ) -> Forwarded {
        let forward = Forward {
            head: &self.head,
            body: &self.body,
            peer: &self.peer,
            key: KEY,
            attempt: self.attempt,
            possible_duplicate: self.possible_duplicate,
            request_id: "req-1",
            budget: self.budget,
            may_write,
        };
        upstream.forward(forward).await
    }
}

/// Says yes once, then no.
fn only_once() -> impl Fn() -> bool + Send + Sync {
    let used = AtomicBool::new(false);
    move || !used.swap(true, Ordering::SeqCst)
}
