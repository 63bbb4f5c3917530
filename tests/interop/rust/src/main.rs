//! A backend that uses the livekit-api crate's own receiver. It prints the port that it
//! listens on, then one JSON line for each request.

use std::error::Error;
use std::io::Read as _;
use std::sync::Arc;
use std::{env, thread};

use livekit_api::access_token::TokenVerifier;
use livekit_api::webhooks::WebhookReceiver;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tiny_http::{Request, Response, Server};

const BODY_BYTES_MAX: u64 = 4 << 20;
const THREADS: usize = 8;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listen = flag("--listen").unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let key = flag("--key").ok_or("--key is needed")?;
    let secret = flag("--secret").ok_or("--secret is needed")?;

    let receiver = WebhookReceiver::new(TokenVerifier::with_api_key(&key, &secret));
    let server = Arc::new(Server::http(listen)?);
    println!("{}", server.server_addr().to_ip().ok_or("not an address")?.port());

    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (server, receiver) = (Arc::clone(&server), receiver.clone());
            thread::spawn(move || {
                for request in server.incoming_requests() {
                    if let Err(error) = answer(request, &receiver) {
                        eprintln!("interop: {error}");
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")?;
    }
    Ok(())
}

fn flag(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

fn answer(mut request: Request, receiver: &WebhookReceiver) -> Result<(), std::io::Error> {
    let mut body = Vec::new();
    request.as_reader().take(BODY_BYTES_MAX).read_to_end(&mut body)?;
    let digest =
        Sha256::digest(&body).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let mut line = json!({
        "sha256": digest,
        "attempt": header(&request, "Oncehook-Attempt"),
        "idempotency_key": header(&request, "Idempotency-Key"),
        "possible_duplicate": header(&request, "Oncehook-Possible-Duplicate"),
        "protocol": format!("HTTP/{}", request.http_version()),
    });
    let token = header(&request, "Authorization").unwrap_or_default();
    let status = match receiver.receive(&String::from_utf8_lossy(&body), &token) {
        Ok(event) => {
            line["outcome"] = Value::from("accepted");
            line["event"] = Value::from(event.event);
            line["id"] = Value::from(event.id);
            200
        }
        Err(error) => {
            line["outcome"] = Value::from("refused");
            line["reason"] = Value::from(error.to_string());
            401
        }
    };
    println!("{line}");
    request.respond(Response::empty(status))
}

fn header(request: &Request, name: &'static str) -> Option<String> {
    request
        .headers()
        .iter()
        .find(|header| header.field.equiv(name))
        .map(|header| header.value.to_string())
}
