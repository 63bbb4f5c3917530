//! At trace level, no log line, metric, page or answer carries a secret, a token, a signature, metadata, attributes or
//! an identity: each test drives one kind of trouble with canaries in all of these, and looks through all that came out.
//!
//! The other suites are held to the same by a traced run (`./test --traced`, see `support/traced.rs`).

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oncehook::clock;
use oncehook::webhook::verify::sign;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gateway::{metric, page};
use crate::support::backend::{Action, Backend, Then};
use crate::support::gateway::{API_KEY, API_SECRET, Gateway, Surroundings};
use crate::support::process;
use crate::support::redis::{RedisServer, Settings, until};
use crate::support::resp::{Answer, Scripted};
use crate::support::sender::{Sender, Signed, event};

/// What every canary contains; nothing else does.
const MARK: &str = "canary";
const SECRET: &str = "canary-secret-0123456789abcdef0123456789";
const REDIS_PASSWORD: &str = "canary-redis-password";
/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// All that came out, and what must not be in it besides [`MARK`].
#[derive(Default)]
struct Outputs {
    texts: Vec<String>,
    forbidden: Vec<String>,
}

impl Outputs {
    fn add(&mut self, text: impl Into<String>) {
        self.texts.push(text.into());
    }

    /// Takes note of a token's parts, and of the digest of its body as the token writes it.
    fn forbid(&mut self, signed: &Signed) {
        self.forbidden
            .extend(signed.token.split('.').map(str::to_owned).filter(|part| part.len() > 8));
        self.forbidden.push(STANDARD.encode(Sha256::digest(&signed.body)));
    }

    /// The gateway's pages, and its log to its end.
    async fn take(&mut self, gateway: &mut Gateway) {
        for path in ["/metrics", "/status", "/readyz", "/livez", "/canary-page"] {
            // Whoever asks for a page is told what there is, not what he asked for.
            self.add(page(gateway, path).await.1);
        }
        gateway.signal("TERM");
        // Before that line there are all the others.
        gateway.wait_for_line("\"stopped\"");
        self.add(gateway.log().join("\n"));
    }

    /// The canaries, tokens and signatures that are there, each with its surroundings.
    fn leaks(&self) -> Vec<String> {
        let forbidden = self.forbidden.iter().map(String::as_str);
        let always = [MARK, API_SECRET, "eyJ", "sample-turn-password"];
        let mut leaks = Vec::new();
        for mark in always.into_iter().chain(forbidden) {
            for text in &self.texts {
                leaks.extend(text.find(mark).map(|at| {
                    let (from, to) = (at.saturating_sub(200), (at + 200).min(text.len()));
                    format!("{mark}: …{}…", String::from_utf8_lossy(&text.as_bytes()[from..to]))
                }));
            }
        }
        leaks
    }

    /// Nothing of it is there; and `expected` is, so that what was looked through is what happened.
    fn assert_clean(&self, expected: &[&str]) {
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
        for word in expected {
            let found = self.texts.iter().any(|text| text.contains(word));
            assert!(found, "{word} is nowhere");
        }
    }
}

/// A gateway that logs all it can, in front of `backend`.
fn traced(backend: &str, more: &str) -> Gateway {
    let variables = [("ONCEHOOK_LOG__LEVEL".to_owned(), "trace".to_owned())].to_vec();
    let surroundings = Surroundings { variables, ..Surroundings::default() };
    let configuration = format!(
        "tls.enabled = false\nshutdown.drain_delay = \"0s\"\nkeys.APIleaks = \"{SECRET}\"\n\
         upstream.timeout = \"3s\"\nupstream.connect_timeout = \"2s\"\n{more}\n[[route]]\npath = \"/webhook\"\nbackend = \"{backend}/hook\"\n"
    );
    Gateway::start_in(&surroundings, &configuration)
}

/// An event whose every free text is a canary, about participant `number`.
fn event_of(number: usize) -> Signed {
    changed(number, "canary-value")
}

/// The same, with another attribute: a copy with other content.
fn changed(number: usize, value: &str) -> Signed {
    let room = r#"{"sid":"RM_1","name":"canary-room","metadata":"{\"a\":\"canary-metadata\"}","turnPassword":"canary-turn","emptyTimeout":300}"#;
    let participant = format!(
        r#"{{"sid":"PA_{number}","identity":"canary-identity","name":"canary-name","metadata":"canary-metadata","attributes":{{"canary-key":"{value}"}}}}"#
    );
    let body = format!(
        r#"{{"event":"participant_joined","room":{room},"participant":{participant},"id":"EV_{number}","createdAt":"1795574895"}}"#
    );
    Signed::by("APIleaks", SECRET, body)
}

/// One request over plain HTTP, as it is, and all that is answered, up to the connection's end.
async fn raw(gateway: &Gateway, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address()).await.unwrap();
    let mut answer = Vec::new();
    let talking = async {
        // The gateway may have closed before it has read all.
        socket.write_all(request).await.ok();
        socket.read_to_end(&mut answer).await.ok();
    };
    timeout(PATIENCE, talking).await.expect("the gateway closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(line: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{line}\r\nhost: gateway\r\nconnection: close\r\n");
    for (name, value) in fields {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    write!(request, "content-length: {}\r\n\r\n", body.len()).unwrap();
    [request.as_bytes(), body].concat()
}

/// A webhook, with canaries in fields that nobody reads.
fn webhook(signed: &Signed) -> Vec<u8> {
    let fields = [
        ("authorization", signed.token.as_str()),
        ("content-type", "application/webhook+json"),
        ("cookie", "session=canary-cookie"),
        ("x-canary", "canary-field"),
    ];
    request("POST /webhook HTTP/1.1", &fields, &signed.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_backend_does_with_an_event() {
    let answer = |status: &str| {
        let body = "canary-of-the-backend";
        Action::raw(format!(
            "HTTP/1.1 {status}\r\nset-cookie: canary-cookie\r\nlocation: /canary\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let actions = vec![
        answer("200 OK"),
        answer("302 canary-reason"),
        answer("400 Bad Request"),
        answer("401 Unauthorized"),
        answer("404 Not Found"),
        answer("429 Too Many Requests"),
        answer("500 Internal Server Error"),
        answer("501 Not Implemented"),
        answer("503 Service Unavailable"),
        Action::raw("HTTP/1.1 100 Continue\r\n\r\n").then(Then::Close),
        Action::raw("canary: this is no HTTP\r\n\r\n").then(Then::Close),
        Action::raw("HTTP/1.1 200 OK\r\ncanary field: x\r\n\r\n").then(Then::Close),
        Action::silent(Then::Close),
        Action::silent(Then::Reset),
        Action::silent(Then::Hang),
    ];
    let (count, backend) = (actions.len(), Backend::in_turn(actions));
    let mut gateway = traced(&backend.url(), "claim.lease = \"10s\"");
    let mut outputs = Outputs::default();
    for number in 0..count {
        let signed = event_of(number);
        outputs.forbid(&signed);
        outputs.add(raw(&gateway, &webhook(&signed)).await);
    }
    // A duplicate, and one with other content.
    for signed in [event_of(0), changed(0, "canary-other-value")] {
        outputs.forbid(&signed);
        outputs.add(raw(&gateway, &webhook(&signed)).await);
    }
    outputs.take(&mut gateway).await;
    let words = [
        "backend-misconfigured",
        "backend-failed",
        "backend-overloaded",
        "backend-silent",
        "\"result\":\"duplicate\"",
        "content differs from what was forwarded",
        "oncehook_key_conflicts_total 1",
    ];
    outputs.assert_clean(&words);
    assert!(backend.requests().iter().any(|request| request.head.contains(MARK)), "they arrive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_cannot_be_reached_and_copies_that_wait() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut gateway = traced(&format!("http://{closed}"), "");
    let mut outputs = Outputs::default();
    let signed = event_of(1);
    outputs.forbid(&signed);
    let copy = webhook(&signed);
    let (first, second) = tokio::join!(raw(&gateway, &copy), raw(&gateway, &copy));
    outputs.texts.extend([first, second]);
    outputs.take(&mut gateway).await;
    outputs.assert_clean(&["backend-unreached"]);
}

/// A token of our own making, signed with the right secret.
fn token(header: &str, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(header), part(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// Tokens that are refused, each for its reason.
fn refused(good: &Signed) -> Vec<Signed> {
    let with = |token: String| Signed { body: good.body.clone(), token };
    let now = clock::unix();
    let signed_at = |at: clock::UnixTime| {
        sign("APIleaks", &SecretString::from(SECRET), &good.body, at, Duration::from_mins(5))
            .unwrap()
    };
    let before = |ago: u64| {
        clock::UnixTime::from_epoch(now.since_epoch().saturating_sub(Duration::from_secs(ago)))
    };
    let later = clock::UnixTime::from_epoch(now.since_epoch() + Duration::from_mins(10));
    let exp = now.seconds() + 300;
    let hs256 = r#"{"alg":"HS256","typ":"JWT","kid":"canary-kid"}"#;
    vec![
        Signed::by("APIleaks", "canary-of-another-secret-0123456789abcdef", good.body.clone()),
        Signed::by("APIx-unknown", SECRET, good.body.clone()),
        Signed { body: "canary-altered".into(), token: good.token.clone() },
        with(String::new()),
        with("canary-is-no-token".to_owned()),
        with(format!("Bearer {}", good.token)),
        with(format!("{}canary!", good.token)),
        with(format!("canary{}", "x".repeat(9_000))),
        with(signed_at(before(1_000))),
        with(signed_at(later)),
        with(token(
            hs256,
            &format!(r#"{{"iss":"APIleaks","exp":{exp},"video":{{"room":"canary-room"}}}}"#),
        )),
        with(token(
            hs256,
            &format!(r#"{{"iss":"APIleaks","exp":"canary","sha256":"canary{exp}"}}"#),
        )),
        with(token(hs256, "canary is no JSON")),
        with(token(
            r#"{"alg":"none","canary":1}"#,
            &format!(r#"{{"iss":"APIleaks","exp":{exp}}}"#),
        )),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_refused() {
    let backend = Backend::always(Action::status(200));
    let limits = "limits.body_bytes_max = \"8KiB\"\nlimits.body_timeout = \"300ms\"\nlimits.head_timeout = \"1s\"";
    let mut gateway = traced(&backend.url(), limits);
    let mut outputs = Outputs::default();
    let good = event_of(1);
    outputs.forbid(&good);
    for signed in refused(&good) {
        outputs.forbid(&signed);
        let told = raw(&gateway, &webhook(&signed)).await;
        assert!(told.starts_with("HTTP/1.1 4"), "{told}");
        outputs.add(told);
    }
    let large = Signed::by("APIleaks", SECRET, "canary ".repeat(4_000));
    outputs.forbid(&large);
    outputs.add(raw(&gateway, &webhook(&large)).await);
    let (token, whole) = (good.token.as_str(), webhook(&good));
    let twice = [("authorization", token), ("authorization", token)];
    let trouble = [
        request("POST /webhook HTTP/1.1", &twice, &good.body),
        request("GET /webhook?canary=1 HTTP/1.1", &[("authorization", token)], b""),
        request("CANARY /webhook HTTP/1.1", &[("authorization", token)], b""),
        request("POST /canary?access_token=canary HTTP/1.1", &[("authorization", token)], b""),
        request("POST http://canary/webhook HTTP/1.1", &[("authorization", token)], b""),
        request("POST /webhook HTTP/1.1", &[("authorization", token), ("via", "1.1 oncehook")], b""),
        request("POST /webhook HTTP/1.1", &[("authorization", token), ("can ary", "x")], b""),
        request("POST /webhook HTTP/1.1", &[("x-canary", &"canary".repeat(8_000))], b""),
        request("POST /webhook CANARY/1.1", &[("authorization", token)], b""),
        format!("POST /webhook HTTP/1.1\r\nhost: g\r\nauthorization: {token}\r\ntransfer-encoding: chunked\r\n\r\ncanary\r\n").into_bytes(),
        // A head that never ends, and a body that does not come.
        format!("POST /webhook HTTP/1.1\r\nhost: g\r\nauthorization: {token}\r\n").into_bytes(),
        whole[..whole.len() - 5].to_vec(),
        b"\x16\x03\x01\x02\x00canary".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ncanary".to_vec(),
    ];
    for bytes in trouble {
        outputs.add(raw(&gateway, &bytes).await);
    }
    // One that leaves in the middle of its body.
    let mut leaving = TcpStream::connect(gateway.address()).await.unwrap();
    leaving.write_all(&whole[..whole.len() - 5]).await.unwrap();
    drop(leaving);
    until("it is counted", async || metric(&gateway, "oncehook_connections_open").await == 0).await;
    outputs.take(&mut gateway).await;
    let words = ["bad_signature", "expired", "two_tokens", "too-large", "body-slow", "malformed"];
    outputs.assert_clean(&words);
    assert!(backend.requests().is_empty(), "the backend was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_over_tls() {
    let backend = Backend::always(Action::status(200));
    let folder = tempfile::tempdir().unwrap();
    let configuration = |more: &str| {
        format!(
            "tls.self_signed = true\nshutdown.drain_delay = \"0s\"\nkeys.APIleaks = \"{SECRET}\"\nlog.level = \"trace\"\n{more}\n[[route]]\npath = \"/webhook\"\nbackend = \"{}/hook\"\n",
            backend.url()
        )
    };
    let file = folder.path().join("oncehook.toml");
    write(&file, &configuration(""));
    let mut gateway = Gateway::start_from(&file);
    let mut outputs = Outputs::default();
    let sender = Sender::to(&format!("https://{}/webhook", gateway.address()));
    for number in 0..3 {
        let signed = event_of(number);
        outputs.forbid(&signed);
        assert_eq!(sender.post(&signed).await.status, 200, "over HTTP/2");
    }
    for signed in refused(&event_of(4)).into_iter().filter(|signed| signed.token.len() < 8_000) {
        outputs.forbid(&signed);
        assert_eq!(sender.post(&signed).await.status, 401);
    }
    // A sender that forgot TLS, and bytes that are none.
    let signed = event_of(5);
    outputs.forbid(&signed);
    outputs.add(raw(&gateway, &webhook(&signed)).await);
    outputs.add(raw(&gateway, b"\x16\x03\x01\x00\x06canary").await);
    outputs.take(&mut gateway).await;
    outputs.assert_clean(&["no TLS handshake", "\"level\":\"DEBUG\"", "\"result\":\"forwarded\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_relayed() {
    let backend = Backend::in_turn(vec![
        Action::raw("HTTP/1.1 200 OK\r\nset-cookie: canary\r\ncontent-length: 2\r\n\r\nok"),
        Action::raw("canary is no HTTP").then(Then::Close),
        Action::silent(Then::Reset),
    ]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for relay in [backend.url(), format!("http://{closed}")] {
        let mut gateway = traced(&backend.url(), &format!("relay.backend = \"{relay}\""));
        let mut outputs = Outputs::default();
        let signed = event_of(1);
        outputs.forbid(&signed);
        for _ in 0..3 {
            // As browsers hand LiveKit their token.
            let line = format!("GET /rtc?access_token={}&canary=1 HTTP/1.1", signed.token);
            let fields = [("authorization", signed.token.as_str()), ("cookie", "canary")];
            let told = raw(&gateway, &request(&line, &fields, b"canary")).await;
            // What the backend says is the sender's, and no business of the log.
            outputs.texts.extend((!told.starts_with("HTTP/1.1 200")).then_some(told));
        }
        outputs.take(&mut gateway).await;
        outputs.assert_clean(&["HTTP/1.1 502", "oncehook_relay_requests_total"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_and_one_that_repeats_the_password() {
    let backend = Backend::always(Action::status(200));
    let mut redis = RedisServer::start_with(Settings::default().password(REDIS_PASSWORD)).await;
    let url = format!("store.redis.url = \"redis://:{REDIS_PASSWORD}@127.0.0.1:{}\"", redis.port());
    let mut gateway = traced(&backend.url(), &url);
    let mut outputs = Outputs::default();
    let signed = event_of(1);
    outputs.forbid(&signed);
    outputs.add(raw(&gateway, &webhook(&signed)).await);
    redis.kill();
    let signed = event_of(2);
    outputs.forbid(&signed);
    outputs.add(raw(&gateway, &webhook(&signed)).await);
    outputs.take(&mut gateway).await;
    outputs.assert_clean(&["the store did not reply"]);
    drop(gateway);

    // Passes for a Redis until it is asked to log somebody in, and again after the start.
    let server = Scripted::start(|words| {
        let said = words.join(" ");
        Answer::Bytes(format!(
            "-ERR unknown command '{said}', with args beginning with: '{said}' \r\n"
        ))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("oncehook.toml");
    let text = format!(
        "tls.enabled = false\nkeys.APIleaks = \"{SECRET}\"\nupstream.backend = \"http://127.0.0.1:1/\"\nlog.level = \"trace\"\n\
         store.redis.url = \"redis://canary-user:{REDIS_PASSWORD}@127.0.0.1:{}\"\n",
        server.port()
    );
    write(&file, &text);
    let file = file.to_str().unwrap().to_owned();
    let (code, out, told) =
        tokio::task::spawn_blocking(move || process::output(&["run", "--config", &file]))
            .await
            .unwrap();
    assert_eq!(code, 78, "{told}");
    assert!(!format!("{out}{told}").contains(REDIS_PASSWORD), "{out}{told}");
    assert!(told.contains("the store lacks what is needed"), "{told}");
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_right_and_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, text) in [
        ("secret", "canary-secret-of-a-file-0123456789abcdef\n"),
        ("keys.yaml", "APIfile: canary-secret-of-keys-0123456789abcdef\n"),
        ("password", "canary-password\n"),
        ("broken.yaml", "APIfile: [canary-secret\n"),
        ("tls.crt", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n"),
        ("tls.key", "-----BEGIN PRIVATE KEY-----\ncanarycanary\n-----END PRIVATE KEY-----\n"),
    ] {
        write(&path(name), text);
    }
    let file = path("oncehook.toml");
    let good = format!(
        "keys_file = \"keys.yaml\"\ntls.enabled = false\nadmin.address = \"127.0.0.1:0\"\nlisten.address = \"127.0.0.1:0\"\nupstream.backend = \"http://127.0.0.1:1/\"\n\
         [keys]\nAPIleaks = \"{SECRET}\"\nAPIother = {{ secret_file = \"secret\" }}\n\
         [store.redis]\nurl = \"redis://u:canary-of-a-url@127.0.0.1:1/0\"\n"
    );
    write(&file, &good);
    let check = |show: bool| {
        let file = file.to_str().unwrap();
        let arguments: &[&str] = if show {
            &["check", "--show", "--config", file]
        } else {
            &["check", "--config", file]
        };
        let (code, out, talk) = process::output(arguments);
        (code, format!("{out}{talk}"))
    };
    let mut outputs = Outputs::default();
    let (code, shown) = check(true);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("APIother") && shown.matches("<redacted>").count() >= 2, "{shown}");
    outputs.add(shown);

    let broken = [
        good.replace("keys.yaml", "broken.yaml"),
        good.replace("[keys]", "[keys]\nAPIleaks = \"canary-twice\""),
        good.replace("APIother = {", "APIother = { odd = \"canary-unknown-key\","),
        good.replace("redis://u:canary-of-a-url@127.0.0.1:1/0", "redis://u:canary-of-a-url@:x"),
        good.replace("redis://", "canary://"),
        good.replace("[keys]\n", "[keys]\nAPIodd = [\"canary-in-a-list\"]\n"),
        format!("{good}password = \"canary-unended\n"),
        format!("{good}password = \"canary-beside\"\npassword_file = \"password\"\n"),
        format!("{good}[store.redis.sentinel]\naddresses = [\"s:1\"]\npassword = \"canary-sentinel\"\n"),
        good.replace("tls.enabled = false", "tls.certificate = [{ certificate_file = \"tls.crt\", key_file = \"tls.key\", odd = 1 }]"),
    ];
    for text in &broken {
        write(&file, text);
        let (code, told) = check(true);
        assert_ne!(code, 0, "{text}\n{told}");
        outputs.add(told);
    }
    outputs.assert_clean(&["is not valid", "<redacted>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_that_are_rejected() {
    let backend = Backend::always(Action::status(200));
    let mut gateway = traced(&backend.url(), "");
    let good = std::fs::read_to_string(gateway.file()).unwrap();
    let folder = gateway.file().parent().unwrap().to_owned();
    write(
        &folder.join("tls.crt"),
        "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n",
    );
    write(
        &folder.join("ca.crt"),
        "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n",
    );
    write(
        &folder.join("tls.key"),
        "-----BEGIN PRIVATE KEY-----\ncanarycanary\n-----END PRIVATE KEY-----\n",
    );
    let broken = [
        format!("{good}\nodd = \"canary-unknown\"\n"),
        good.replace("upstream.timeout", "keys.APIempty = \"\"\nupstream.timeout"),
        good.replace("keys.APIleaks = \"", "keys.APIleaks = \"canary\" \""),
        good.replace("http://", "https://")
            + "[route.tls]\nca_file = \"ca.crt\"\ncertificate_file = \"tls.crt\"\nkey_file = \"tls.key\"\n",
    ];
    let mut outputs = Outputs::default();
    for (times, text) in (1..).zip(&broken) {
        write(gateway.file(), text);
        gateway.signal("HUP");
        let rejected = "oncehook_config_reloads_total{result=\"rejected\"}";
        until("it is rejected", async || metric(&gateway, rejected).await >= times).await;
    }
    outputs.take(&mut gateway).await;
    outputs.assert_clean(&["configuration"]);
}

#[test]
fn planted_leaks_are_found() {
    let signed = event(oncehook::webhook::event::EventKind::ParticipantJoined, 1, "EV_1");
    let mut outputs = Outputs::default();
    outputs.forbid(&signed);
    outputs.assert_clean(&[]);
    let signature = signed.token.rsplit('.').next().unwrap().to_owned();
    for planted in
        [&signature, &signed.token, API_SECRET, "a canary-metadata b", "sample-turn-password"]
    {
        let texts = vec!["harmless".to_owned(), format!("before {planted} after")];
        let found = Outputs { texts, forbidden: outputs.forbidden.clone() }.leaks();
        assert!(!found.is_empty(), "{planted}");
    }
    assert_eq!(API_KEY, "APItests", "which is no secret, and may be shown");
}
