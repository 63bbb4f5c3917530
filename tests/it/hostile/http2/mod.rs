//! Sequences of HTTP/2 frames (`tests/data/http2`), each on a connection of its own to a real gateway over TLS: what the
//! peer is told, and that nothing of it reaches Redis or the backend. After each, a webhook in order is delivered once.

mod case;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use oncehook::webhook::event::EventKind;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::gateway::metric;
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::h2::{ACK, END_STREAM, Frame, Frames, PING, connect, connector};
use crate::support::redis::RedisServer;
use crate::support::sender::{Sender, Signed, event};

use case::{Case, Expected, Step};

/// More than any answer may take, time-outs included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Fewer, and some were lost.
const CASES_MIN: usize = 55;
/// What a PING of the test's own carries.
const STILL_THERE: &[u8; 8] = b"oncehook";

/// What has come back so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    statuses: BTreeMap<u32, u16>,
    resets: BTreeMap<u32, &'static str>,
    ended: BTreeSet<u32>,
    goaway: Option<&'static str>,
    alive: bool,
    closed: bool,
}

impl Seen {
    fn frame(&mut self, frame: &Frame) {
        if let Some(status) = frame.status() {
            self.statuses.insert(frame.stream, status);
        }
        match (frame.kind, frame.code()) {
            (crate::support::h2::RST_STREAM, Some(code)) => {
                self.resets.entry(frame.stream).or_insert(code);
            }
            (_, Some(code)) => self.goaway = Some(code),
            (0 | 1, None) if frame.flags & END_STREAM != 0 => {
                self.ended.insert(frame.stream);
            }
            (PING, None) if frame.flags & ACK != 0 && frame.payload == STILL_THERE => {
                self.alive = true;
            }
            _ => {}
        }
    }

    fn is_over(&self, stream: u32) -> bool {
        self.closed || self.ended.contains(&stream) || self.resets.contains_key(&stream)
    }

    fn has(&self, expected: &Expected) -> bool {
        match expected {
            Expected::Status(stream, status) => self.statuses.get(stream) == Some(status),
            Expected::Reset(stream, code) => self.resets.get(stream) == Some(code),
            Expected::Goaway(code) => self.goaway == Some(code) && self.closed,
            Expected::Closed => self.closed,
            Expected::Alive => self.alive,
        }
    }
}

/// Plays `steps`, and says what came back until all of `expect` had come or nothing more could.
async fn play(connector: &TlsConnector, gateway: &Gateway, case: &Case, steps: Vec<Step>) -> Seen {
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let stream = connect(connector, source, gateway.address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut from, mut to) = tokio::io::split(stream);
    let (seen, mut told) = watch::channel(Seen::default());
    let reading = async move {
        let mut frames = Frames::default();
        while let Some(frame) = frames.next(&mut from).await {
            seen.send_modify(|seen| seen.frame(&frame));
        }
        seen.send_modify(|seen| seen.closed = true);
        // Whoever looks must not take the end of this for the end of the channel.
        std::future::pending::<()>().await;
    };
    let mut writer_told = told.clone();
    let ping = case.expect.contains(&Expected::Alive);
    let writing = async {
        for step in steps {
            match step {
                // The other side may have closed, which the reader notices.
                Step::Write(bytes) => drop(to.write_all(&bytes).await),
                Step::Await(stream) => {
                    drop(writer_told.wait_for(|seen| seen.is_over(stream)).await);
                }
            }
            drop(to.flush().await);
        }
        if ping {
            drop(to.write_all(&Frame::new(PING, 0, 0, *STILL_THERE).bytes()).await);
            drop(to.flush().await);
        }
        // The connection stays open: its end would be a sender that hangs up.
        std::future::pending::<()>().await;
    };
    let all = |seen: &Seen| case.expect.iter().all(|expected| seen.has(expected));
    let settled = |seen: &Seen| seen.closed || all(seen);
    let waiting = timeout(PATIENCE, told.wait_for(|seen| settled(seen)));
    tokio::select! {
        () = reading => unreachable!("it waits for ever"),
        () = writing => unreachable!("it waits for ever"),
        waited = waiting => drop(waited),
    }
    told.borrow().clone()
}

/// The gateways that the cases are for, and what stands behind both.
struct Stage {
    patient: Gateway,
    hasty: Gateway,
    backend: Backend,
    redis: RedisServer,
    connector: TlsConnector,
}

impl Stage {
    async fn set() -> Self {
        let redis = RedisServer::start().await;
        let backend = Backend::always(Action::status(200));
        let configuration = |more: &str| {
            format!(
                "tls.self_signed = true\nshutdown.drain_delay = \"0s\"\nstore.kind = \"redis\"\n\
                 store.redis.url = \"{}\"\n{more}\n[[route]]\npath = \"/webhook\"\nbackend = \"{}/hook\"\n",
                redis.url(),
                backend.url()
            )
        };
        let patient = Gateway::start(&configuration(""));
        let hasty = "limits.head_timeout = \"2s\"\nlimits.idle_timeout = \"2s\"\n\
                     limits.body_timeout = \"2s\"\nlimits.answer_timeout = \"1s\"";
        let hasty = Gateway::start(&configuration(hasty));
        Self { patient, hasty, backend, redis, connector: connector() }
    }

    async fn store_commands(&self) -> u64 {
        self.redis.store_commands().await
    }

    fn backend_requests(&self) -> u64 {
        self.backend.requests().len() as u64
    }

    /// A webhook in order, on a connection of its own; it makes two commands and one request.
    async fn good(&self, gateway: &Gateway, signed: &Signed) -> (u16, String) {
        let told = Sender::to(&format!("https://{}/webhook", gateway.address())).post(signed).await;
        (told.status, told.word)
    }

    /// What is wrong with what came of `case`, the `number`th.
    async fn judge(&self, case: &Case, number: u64) -> Vec<String> {
        let gateway = if case.hasty { &self.hasty } else { &self.patient };
        let signed = event(EventKind::RoomStarted, 2 * number, &format!("EV_{number}"));
        let (requests, commands) = (self.backend_requests(), self.store_commands().await);
        let seen = play(&self.connector, gateway, case, case.steps(&signed)).await;
        let next = event(EventKind::RoomStarted, 2 * number + 1, &format!("EV_{number}_good"));
        let good = self.good(gateway, &next).await;
        let mut wrong = Vec::new();
        for expected in case.expect.iter().filter(|expected| !seen.has(expected)) {
            wrong.push(format!("not {expected:?} but {seen:?}"));
        }
        if good != (200, "forwarded".to_owned()) {
            wrong.push(format!("the webhook after it was told {good:?}"));
        }
        let requests = self.backend_requests() - requests;
        if requests != case.backend + 1 {
            wrong
                .push(format!("the backend was asked {requests} times, the good webhook included"));
        }
        let commands = self.store_commands().await - commands;
        if commands != case.store + 2 {
            wrong.push(format!("the store was asked {commands} times, the good webhook included"));
        }
        wrong.into_iter().map(|wrong| format!("{}: {wrong}", case.name)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_are_refused_and_reach_nobody() {
    let cases = case::all();
    assert!(cases.len() >= CASES_MIN, "there are {} cases", cases.len());
    let stage = Stage::set().await;
    // Opens the gateways' connections to Redis and to the backend, so that their own commands are not counted below.
    for (gateway, number) in [(&stage.patient, 1_000_000), (&stage.hasty, 1_000_001)] {
        let first = event(EventKind::RoomStarted, number, &format!("EV_{number}"));
        assert_eq!(stage.good(gateway, &first).await.0, 200);
    }
    let mut wrong = Vec::new();
    for (case, number) in cases.iter().zip(1..) {
        wrong.extend(stage.judge(case, number).await);
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));

    let resets = "oncehook_http2_errors_total{scope=\"stream\",code=\"protocol_error\"}";
    assert!(metric(&stage.patient, resets).await > 0, "streams that were reset are counted");
    let floods = "oncehook_connections_ended_total{reason=\"flood\"}";
    assert!(metric(&stage.patient, floods).await > 0, "floods are counted");
    let malformed = "oncehook_requests_malformed_total{reason=\"authority_mismatch\"}";
    assert!(metric(&stage.patient, malformed).await > 0, "malformed requests are counted");
}
