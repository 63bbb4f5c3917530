//! A master, two replicas, and three sentinels that watch them: real processes, fast to fail over.

use std::process::{Child, Command, Stdio};

use oncehook::store::redis::{Address, Endpoint, Sentinel};
use redis::FromRedisValue;
use tempfile::TempDir;

use super::redis::{LIMIT, RedisServer, Settings, connect, free_port, until};

/// What the sentinels call the master.
pub(crate) const MASTER: &str = "mymaster";

/// The whole.
pub(crate) struct SentinelFleet {
    /// The first one is the master at the start.
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<SentinelProcess>,
}

/// One sentinel.
pub(crate) struct SentinelProcess {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl SentinelFleet {
    pub(crate) async fn start() -> Self {
        let fast = || Settings::default().line("repl-diskless-sync-delay 0").line("repl-timeout 5");
        let master = RedisServer::start_with(fast()).await;
        let follow = format!("replicaof 127.0.0.1 {}", master.port());
        let mut servers = vec![master];
        for _ in 0..2 {
            servers.push(RedisServer::start_with(fast().line(&follow)).await);
        }
        for replica in &servers[1..] {
            until("the replica follows", async || replica.info("master_link_status").await == "up")
                .await;
        }
        let watch = [format!("sentinel monitor {MASTER} 127.0.0.1 {} 2", servers[0].port())];
        let sentinels: Vec<_> = (0..3).map(|_| SentinelProcess::start(&watch)).collect();
        for sentinel in &sentinels {
            sentinel.knows(2, 2).await;
        }
        Self { servers, sentinels }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let ports: Vec<u16> = self.sentinels.iter().map(SentinelProcess::port).collect();
        by_sentinels(&ports)
    }

    /// The settings of a gateway that asks these sentinels.
    pub(crate) fn configuration(&self) -> String {
        let addresses = self.sentinels.iter().map(|one| format!("\"127.0.0.1:{}\"", one.port));
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        format!("store.kind = \"redis\"\nstore.redis.sentinel.addresses = [{addresses}]\n")
    }

    /// The server that the sentinels name, by its place in `servers`.
    pub(crate) async fn master(&self) -> usize {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let (_, port): (String, u16) = self.sentinels[1].command(&question).await;
        self.servers.iter().position(|server| server.port() == port).unwrap()
    }

    /// Has the sentinels make another server the master, though nothing is wrong.
    pub(crate) async fn fail_over(&self) {
        let _: String = self.sentinels[0].command(&["SENTINEL", "FAILOVER", MASTER]).await;
    }
}

/// A store's endpoint behind sentinels on these ports.
pub(crate) fn by_sentinels(ports: &[u16]) -> Endpoint {
    let address = |port: &u16| Address { host: "127.0.0.1".to_owned(), port: *port };
    Endpoint::Sentinel(Sentinel {
        master: MASTER.to_owned(),
        addresses: ports.iter().map(address).collect(),
        credentials: None,
    })
}

impl SentinelProcess {
    /// Starts one with `lines`, the first of which says what to watch.
    pub(crate) fn start(lines: &[String]) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = directory.path().join("sentinel.conf");
        let more = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", directory.path().display()),
        ];
        // A line about a master must stand behind the one that introduces it.
        let patience = [
            format!("sentinel down-after-milliseconds {MASTER} 500"),
            format!("sentinel failover-timeout {MASTER} 3000"),
            format!("sentinel parallel-syncs {MASTER} 2"),
        ];
        let text = [&more, lines, &patience].concat().join("\n");
        std::fs::write(&file, text + "\n").unwrap();
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing; install it: apt-get install -y redis-server");
        Self { child, port, _directory: directory }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it has found so many replicas and other sentinels.
    pub(crate) async fn knows(&self, replicas: u64, others: u64) {
        until("the sentinel knows the others", async || {
            let state = self.try_command::<Vec<String>>(&["SENTINEL", "MASTER", MASTER]).await;
            let Ok(state) = state else { return false };
            let field = |name: &str| {
                let at = state.iter().position(|word| word == name);
                at.and_then(|at| state[at + 1].parse::<u64>().ok())
            };
            field("num-slaves") == Some(replicas) && field("num-other-sentinels") == Some(others)
        })
        .await;
    }

    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).await.unwrap()
    }

    async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = connect(&format!("redis://127.0.0.1:{}", self.port), LIMIT).await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }
}

impl Drop for SentinelProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
