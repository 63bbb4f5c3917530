//! The same backends behind the relay, which does pass their answers on: nobody is answered with what another request
//! was told, and no line of an answer becomes two.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::backends::{self, Case};
use crate::support::backend::{Action, Backend};
use crate::support::corpus;
use crate::support::gateway::Gateway;

/// How long a body may pause: some never end, and some never go on.
const BRIEF: Duration = Duration::from_millis(200);
/// How long an answer may take that does end.
const LONG: Duration = Duration::from_secs(20);
/// What a request that is none of theirs is told.
const OWN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nown";

#[tokio::test(flavor = "multi_thread")]
async fn no_backend_answers_another_request_through_the_relay() {
    let cases: Vec<(String, Case)> = corpus::read("backends", 20);
    let next = Arc::new(Mutex::new(None::<Action>));
    let script = Arc::clone(&next);
    let backend =
        Backend::start(move |_| script.lock().unwrap().take().unwrap_or_else(|| Action::raw(OWN)));
    let url = backend.url();
    let gateway = Gateway::start(&format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\nrelay.backend = \"{url}\"\n\
         [[route]]\npath = \"/webhook\"\nbackend = \"{url}/hook\"\n"
    ));
    let (mut played, mut differences) = (0, Vec::new());
    // The relay waits a minute for those that keep silent.
    for (name, case) in cases.iter().filter(|(_, case)| !case.is_silent()) {
        *next.lock().unwrap() = Some(backends::action(name, case));
        let told = get(&gateway, &format!("/{name}"), BRIEF).await;
        let head = told.split("\r\n\r\n").next().unwrap_or_default();
        let lines = head.split("\r\n").filter(|line| line.contains(['\r', '\n']));
        differences.extend(lines.map(|line| format!("{name}: {line:?} is more than a line")));
        // Of an answer whose body breaks off at once nothing may be left but the end of the connection.
        if !told.is_empty() && !told.starts_with("HTTP/1.1 ") {
            differences.push(format!("{name}: no answer: {told:?}"));
        }
        *next.lock().unwrap() = None;
        for which in ["first", "second"] {
            let told = get(&gateway, &format!("/after-{name}"), LONG).await;
            let (head, body) = told.split_once("\r\n\r\n").unwrap_or_default();
            if !head.starts_with("HTTP/1.1 200 ") || body != "own" {
                differences.push(format!("{name}: the {which} request behind it got {told:?}"));
            }
        }
        played += 1;
    }
    assert!(played >= 20, "{played} backends are too few to tell anything");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The head of the answer, and what comes of the body until nothing does for as long as `pause`, or five times that.
async fn get(gateway: &Gateway, path: &str, pause: Duration) -> String {
    const BYTES_MAX: usize = 256 * 1024;
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let reading = async {
        while answer.len() < BYTES_MAX {
            let more = tokio::time::timeout(pause, socket.read(&mut buffer)).await;
            match more {
                Ok(Ok(length @ 1..)) => answer.extend_from_slice(&buffer[..length]),
                Err(_) if answer.is_empty() => {}
                Ok(_) | Err(_) => break,
            }
        }
    };
    // One that drips would go on for as long as it is listened to.
    tokio::time::timeout(5 * pause, Box::pin(reading)).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}
