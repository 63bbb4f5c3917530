//! Requests byte for byte, which no client would write, and what came back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer may take, a gateway's own limits included.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// In lower case, in order.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answered {
    /// The value of a field; empty if it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Sends `request`, which asks for the connection's end, and reads until that comes. Whatever cannot be written any
/// more is not: the answer may come first.
pub(crate) async fn send(address: SocketAddr, request: &[u8]) -> Answered {
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let writing = async {
        to.write_all(request).await.ok();
        // The other half stays: an end of it would be a sender that hangs up.
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..length]);
        }
    };
    let reading = tokio::time::timeout(PATIENCE, reading);
    tokio::select! {
        done = reading => done.expect("an answer in time"),
        () = writing => {}
    }
    parse(&answer)
}

fn parse(answer: &[u8]) -> Answered {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.get(9..12)).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {text:?}"));
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Answered { status, fields: fields.collect(), body: body.to_owned() }
}
