//! The admin listener: its pages, its limits, and whom it refuses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use oncehook::admin::readiness::{MemoryUse, Stage};
use oncehook::admin::{
    Admin, Guard, Options, Readiness, State, Status, StoreHealth, Token, status,
};
use oncehook::telemetry::Metrics;
use oncehook::telemetry::metrics::Counts;
use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::dial::{exchange, read_answer, read_to_end};

struct Running {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    outage: Arc<Mutex<Option<Duration>>>,
    stop: CancellationToken,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

fn options() -> Options {
    Options {
        address: "127.0.0.1:0".parse().unwrap(),
        head_timeout: Duration::from_secs(20),
        connections_max: 4,
    }
}

fn state() -> (State, Arc<Mutex<Option<Duration>>>) {
    let outage = Arc::new(Mutex::new(None));
    let asked = Arc::clone(&outage);
    let memory = Some(MemoryUse { records: 3, bytes: 300, evicted: 7 });
    let store = Arc::new(move || StoreHealth {
        kind: "redis",
        outage: *asked.lock().unwrap(),
        memory,
        disk: None,
    });
    let (metrics, readiness) = (Metrics::new(), Arc::new(Readiness::new()));
    (State { metrics, readiness, store, status: Arc::new(status) }, outage)
}

fn status() -> Status {
    Status {
        version: "1.2.3",
        ready: true,
        stage: "ready",
        started: "2026-01-01T00:00:00Z".to_owned(),
        uptime_seconds: 7,
        routes: Vec::new(),
        relay: None,
        store: status::Store { kind: "memory", degraded: false, outage_seconds: None },
        in_flight: 0,
        unfinished: 0,
        reload: None,
        restart_needed: Vec::new(),
        certificates: Vec::new(),
        counters: Counts { received: 2, forwarded: 1, duplicates: 1, ..Counts::default() }.into(),
    }
}

fn start(options: Options) -> Running {
    start_guarded(options, Guard::default())
}

fn start_guarded(options: Options, guard: Guard) -> Running {
    let (state, outage) = state();
    let readiness = Arc::clone(&state.readiness);
    let admin = Admin::bind(options, guard, state).unwrap();
    let (address, stop) = (admin.local_address(), CancellationToken::new());
    let until = stop.clone();
    let thread = thread::spawn(move || admin.serve(&until));
    Running { address, readiness, outage, stop, thread }
}

impl Running {
    async fn fetch(&self, request_line: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        exchange(&mut stream, &format!("{request_line} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }

    fn end(self) {
        self.stop.cancel();
        self.thread.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn it_tells_whether_the_gateway_is_ready_and_why_not() {
    let admin = start(options());
    assert!(admin.fetch("GET /livez").await.ends_with("\r\n\r\nalive\n"));

    let starting = admin.fetch("GET /readyz").await;
    assert!(starting.starts_with("HTTP/1.1 503 "), "{starting}");
    assert!(starting.contains("content-type: application/json\r\n"), "{starting}");
    assert!(starting.ends_with(
        "{\"ready\":false,\"stage\":\"starting\",\"reasons\":[\"the gateway is starting\"],\
         \"store\":{\"kind\":\"redis\",\"degraded\":false}}\n"
    ));

    admin.readiness.set(Stage::Ready);
    let ready = admin.fetch("GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("\"ready\":true"), "{ready}");

    *admin.outage.lock().unwrap() = Some(Duration::from_secs(90));
    let degraded = admin.fetch("GET /readyz").await;
    assert!(degraded.starts_with("HTTP/1.1 200 "), "{degraded}");
    assert!(degraded.contains("\"degraded\":true,\"outage_seconds\":90"), "{degraded}");
    assert!(degraded.contains("the redis store has been out for 90 s"), "{degraded}");

    admin.readiness.set(Stage::Draining);
    let draining = admin.fetch("GET /readyz").await;
    assert!(draining.starts_with("HTTP/1.1 503 ") && draining.contains("draining"), "{draining}");

    let unknown = admin.fetch("GET /").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("/readyz"), "{unknown}");
    assert!(admin.fetch("POST /livez").await.starts_with("HTTP/1.1 405 "));
    admin.end();
}

#[tokio::test]
async fn the_metrics_page_is_open_metrics() {
    let admin = start(options());
    *admin.outage.lock().unwrap() = Some(Duration::from_secs(1));
    let page = admin.fetch("GET /metrics").await;
    assert!(
        page.contains(
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        ),
        "{page}"
    );
    assert!(page.ends_with("\n# EOF\n"), "{page}");
    for line in [
        "oncehook_store_degraded 1",
        "oncehook_store_memory_records 3",
        "oncehook_store_memory_bytes 300",
    ] {
        assert!(page.lines().any(|each| each == line), "{line} is missing");
    }
    admin.end();
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_and_others_wait_for_its_place() {
    let admin = start(Options {
        head_timeout: Duration::from_millis(300),
        connections_max: 1,
        ..options()
    });
    let mut silent = TcpStream::connect(admin.address).await.unwrap();
    let mut waiting = TcpStream::connect(admin.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(
        &mut waiting,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await
    .unwrap();
    read_to_end(&mut silent).await;
    assert!(read_answer(&mut waiting).await.ends_with("alive\n"));
    admin.end();
}

#[test]
fn other_machines_are_refused() {
    let everywhere = Options { address: "0.0.0.0:0".parse().unwrap(), ..options() };
    let error =
        Admin::bind(everywhere, Guard::default(), state().0).err().expect("a refusal").to_string();
    assert!(error.starts_with("the admin address 0.0.0.0:0 is no loopback address"), "{error}");
    assert!(error.contains("; hint: set admin.token_file"), "{error}");
    let taken = Admin::bind(options(), Guard::default(), state().0).expect("a free port");
    let again = Options { address: taken.local_address(), ..options() };
    let error = Admin::bind(again, Guard::default(), state().0)
        .err()
        .expect("a port that is taken")
        .to_string();
    assert!(error.starts_with(&format!(
        "cannot listen on the admin address {}; hint: ",
        taken.local_address()
    )));
}

#[tokio::test]
async fn the_status_is_one_json_object() {
    let running = start(options());
    let answer = running.fetch("GET /status").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["counters"]["received"], 2);
    assert_eq!(status["store"]["kind"], "memory");
    assert_eq!(status["reload"], serde_json::Value::Null);
    running.end();
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn with_token() -> Guard {
    Guard { token: Some(Token::new(&SecretString::from(TOKEN))), ..Guard::default() }
}

fn page(path: &str, authorization: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n")
}

#[tokio::test]
async fn with_a_token_only_probes_go_without() {
    let everywhere = Options { address: "0.0.0.0:0".parse().unwrap(), ..options() };
    let admin = start_guarded(everywhere, with_token());
    let address = SocketAddr::from(([127, 0, 0, 1], admin.address.port()));
    let ask = async |request: &str| {
        exchange(&mut TcpStream::connect(address).await.unwrap(), request).await
    };
    for path in ["/status", "/metrics"] {
        let none = ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(none.starts_with("HTTP/1.1 401 "), "{none}");
        assert!(none.contains("www-authenticate: Bearer realm=\"oncehook\"\r\n"), "{none}");
        let wrong = ask(&page(path, &format!("Bearer {}", TOKEN.replace('0', "1")))).await;
        assert!(wrong.starts_with("HTTP/1.1 401 ") && !wrong.contains(TOKEN), "{wrong}");
        let right = ask(&page(path, &format!("Bearer {TOKEN}"))).await;
        assert!(right.starts_with("HTTP/1.1 200 "), "{right}");
    }
    for (path, status) in [("/livez", "200"), ("/readyz", "503")] {
        let open = ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(open.starts_with(&format!("HTTP/1.1 {status} ")), "{open}");
    }
    let metrics = ask(&page("/metrics", &format!("Bearer {TOKEN}"))).await;
    for reason in ["no_token", "wrong_token"] {
        let line = format!("oncehook_admin_refused_total{{reason=\"{reason}\"}} 2");
        assert!(metrics.lines().any(|each| each == line), "{line} is not in {metrics}");
    }
    admin.end();
}
