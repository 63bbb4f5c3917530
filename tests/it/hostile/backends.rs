//! `tests/data/backends`: whatever a backend answers, the sender reads an answer of the gateway's own, the record says
//! what is known, and the next event finds a connection that has nothing to do with it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;

use crate::support::backend::{Action, Backend, Piece, Reading, Then, eventually};
use crate::support::corpus::{self, Values};
use crate::support::gateway::Gateway;
use crate::support::raw::{self, Answered};
use crate::support::redis::RedisServer;
use crate::support::sender::Signed;

/// Stands wherever a backend says what is nobody's business.
const SECRET: &str = "hunter2";
/// The fields that an answer of the gateway may have.
const FIELDS: [&str; 7] = [
    "oncehook-status",
    "x-request-id",
    "content-type",
    "content-length",
    "retry-after",
    "connection",
    "date",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    source: String,
    says: String,
    /// How much of the request is read first.
    #[serde(default)]
    read: Read,
    #[serde(default)]
    write: Vec<Write>,
    then: End,
    expect: Expect,
}

impl Case {
    /// Whether the answer never comes, though the connection stands.
    pub(super) fn is_silent(&self) -> bool {
        self.expect.word == "backend-silent" && matches!(self.then, End::Hang)
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Read {
    #[default]
    Whole,
    Head,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    bytes: String,
    /// How long to wait before it.
    #[serde(default)]
    pause_ms: u64,
    #[serde(default = "once")]
    times: usize,
}

const fn once() -> usize {
    1
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum End {
    Keep,
    Close,
    Reset,
    Hang,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// What the sender is told.
    status: u16,
    /// `Oncehook-Status`.
    word: String,
    /// `Retry-After`; none by default.
    #[serde(default)]
    retry_after: String,
    /// How often the backend was asked.
    requests: usize,
    next: Next,
    /// The gateway gives the connection up before another event is sent: what comes over it later would else be taken for
    /// the answer to that, by whoever is quicker.
    #[serde(default)]
    lets_go: bool,
}

/// What becomes of the next copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Next {
    /// The record is settled.
    Duplicate,
    /// It is released, and nobody has the event.
    Forwarded,
    /// It is released, and somebody may have the event.
    Marked,
    /// It is released, but the backend asked for a pause.
    Busy,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_backend_gets_through_to_the_sender_or_to_another_event() {
    let cases: Vec<(String, Case)> = corpus::read("backends", 20);
    // Long, since none of the backends that do answer may run into it; the cases wait side by side.
    let redis = RedisServer::start().await;
    let mut configuration = format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\nupstream.timeout = \"4s\"\n\
         store.kind = \"redis\"\nstore.redis.url = \"{}\"\n\
         store.redis.operation_timeout = \"1s\"\n",
        redis.url()
    );
    let mut plays = Vec::new();
    for (name, case) in cases {
        assert!(
            !case.source.is_empty() && !case.says.is_empty(),
            "{name} says not why it is there"
        );
        let backend = Backend::in_turn(vec![action(&name, &case), Action::status(200)]);
        let url = backend.url();
        write!(configuration, "[[route]]\npath = \"/{name}\"\nbackend = \"{url}/hook\"\n").unwrap();
        plays.push((name, case.expect, backend));
    }
    let gateways = Arc::new([Gateway::start(&configuration), Gateway::start(&configuration)]);
    let mut running = JoinSet::new();
    for (name, expect, backend) in plays {
        let gateways = Arc::clone(&gateways);
        running.spawn(async move { play(&gateways, &name, &expect, &backend).await });
    }
    let differences: Vec<String> = running.join_all().await.concat();
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    for gateway in gateways.iter() {
        assert!(!gateway.log().join("\n").contains(SECRET), "the log tells what a backend said");
    }
}

/// A connection that has carried several requests well is trusted no further than its last answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_many_on_a_proven_connection_is_nobodys() {
    let twice =
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    let good = || Action::status(200);
    let extra =
        Action::silent(Then::Keep).reading(Reading::Whole).and_bytes(twice.as_bytes().to_vec());
    let backend = Backend::in_turn(vec![good(), good(), good(), extra, good()]);
    let gateway = Gateway::start(&format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\n[[route]]\npath = \"/r\"\nbackend = \"{}/hook\"\n",
        backend.url()
    ));
    for number in 1..=6 {
        let answered = post(&gateway, "r", number, &format!("EV_{number}")).await;
        let told = (answered.status, answered.field("oncehook-status").to_owned());
        assert_eq!(told, (200, "forwarded".to_owned()), "event {number}");
    }
    assert_eq!(backend.requests().len(), 6);
}

/// What the backend does with the first request.
pub(super) fn action(name: &str, case: &Case) -> Action {
    let values = Values::of(name);
    let read = match case.read {
        Read::Whole => Reading::Whole,
        Read::Head => Reading::Head,
    };
    let then = match case.then {
        End::Keep => Then::Keep,
        End::Close => Then::Close,
        End::Reset => Then::Reset,
        End::Hang => Then::Hang,
    };
    let mut action = Action::silent(then).reading(read);
    for write in &case.write {
        let bytes = values.fill(&write.bytes);
        for _ in 0..write.times {
            if write.pause_ms > 0 {
                action = action.and(Piece::Pause(Duration::from_millis(write.pause_ms)));
            }
            action = action.and_bytes(bytes.clone());
        }
    }
    action
}

/// Plays one case, and returns what was not as it should be. The next copy comes to another gateway, which knows of the
/// first one only what the record says.
async fn play(
    [gateway, replica]: &[Gateway; 2],
    name: &str,
    expect: &Expect,
    backend: &Backend,
) -> Vec<String> {
    let mut differences = Vec::new();
    let mut check = |what: &str, is: String, should: String| {
        if is != should {
            differences.push(format!("{name}: {what} is {is}, and should be {should}"));
        }
    };
    let told = |answered: &Answered| {
        let retry_after = answered.field("retry-after");
        format!("{} {} {retry_after}", answered.status, answered.field("oncehook-status"))
    };
    let first = post(gateway, name, 1, "EV_1").await;
    let Expect { status, word, retry_after, requests, next, lets_go } = expect;
    check("the answer", told(&first), format!("{status} {word} {retry_after}"));
    check("how often it asked", backend.requests().len().to_string(), requests.to_string());
    check("what is not its own", foreign(&first), String::new());

    let again = post(replica, name, 1, "EV_2").await;
    let mut after = backend.requests();
    let asked = requests + usize::from(matches!(next, Next::Forwarded | Next::Marked));
    check("how often it asked for both", after.len().to_string(), asked.to_string());
    let became = match again.field("oncehook-status") {
        "duplicate" if again.status == *status => "Duplicate".to_owned(),
        "busy" if again.status == 503 => "Busy".to_owned(),
        "forwarded" => {
            let last = after.pop().expect("it was forwarded");
            let mark = last.one("oncehook-possible-duplicate").map_or("Forwarded", |_| "Marked");
            let attempt = last.one("oncehook-attempt").unwrap_or_default();
            if attempt == "2" { mark.to_owned() } else { format!("attempt {attempt}") }
        }
        _ => told(&again),
    };
    check("the next copy", became, format!("{next:?}"));
    check("what is not its own, then", foreign(&again), String::new());

    if *lets_go {
        eventually(&format!("{name}: it lets go"), || backend.open_connections() == 0).await;
    }
    let other = post(gateway, name, 2, "EV_3").await;
    check("another event", told(&other), "200 forwarded ".to_owned());
    let requests = backend.requests();
    check("how often it asked at last", requests.len().to_string(), (asked + 1).to_string());
    let elsewhere = requests.iter().find(|request| request.line() != "POST /hook HTTP/1.1");
    check(
        "where it asked",
        elsewhere.map_or("", |request| request.line()).to_owned(),
        String::new(),
    );
    eventually(&format!("{name}: it lets go of all connections"), || {
        backend.open_connections() == 0
    })
    .await;
    differences
}

/// What an answer says that the gateway never does.
fn foreign(answered: &Answered) -> String {
    let mut fields = answered.fields.iter().map(|(name, _)| name.as_str());
    let unknown = fields.find(|name| !FIELDS.contains(name)).unwrap_or_default();
    let secret = format!("{answered:?}").contains(SECRET);
    if secret { format!("{unknown} {SECRET}") } else { unknown.to_owned() }
}

async fn post(gateway: &Gateway, name: &str, number: u32, id: &str) -> Answered {
    let body = format!(r#"{{"event":"room_started","room":{{"sid":"RM_{number}"}},"id":"{id}"}}"#);
    let signed = Signed::new(body.clone());
    let request = format!(
        "POST /{name} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nauthorization: {}\r\n\
         content-length: {}\r\n\r\n{body}",
        signed.token,
        body.len()
    );
    raw::send(gateway.address(), request.as_bytes()).await
}
