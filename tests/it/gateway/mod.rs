//! The promises, held against real gateway processes, a real Redis and real sockets.

mod delivery;
mod disk;
mod ends;
mod failover;
mod faults;
mod log;
mod outcomes;
mod paths;
mod refusals;
mod sources;

use crate::support::backend::Backend;
use crate::support::gateway::Gateway;

/// A configuration with one route to `backend`, plain HTTP and the memory store, and `more`.
fn to(backend: &Backend, more: &str) -> String {
    format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\n{more}\n[[route]]\npath = \"/webhook\"\nbackend = \"{}/hook\"\n",
        backend.url()
    )
}

/// The same with the Redis at `url`.
fn through_redis(backend: &Backend, url: &str, more: &str) -> String {
    to(backend, &format!("store.kind = \"redis\"\nstore.redis.url = \"{url}\"\n{more}"))
}

/// The value of a metric's series, named as in the text; 0 if it is not there.
pub(crate) async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let text = page(gateway, "/metrics").await.1;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

/// An admin page: its status and its text.
pub(crate) async fn page(gateway: &Gateway, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(gateway.admin()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}
