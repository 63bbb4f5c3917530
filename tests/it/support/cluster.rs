//! A Redis Cluster of three masters, with or without a replica for each: real processes, put together by commands.

use std::collections::{HashMap, HashSet};

use oncehook::store::redis::{Address, Endpoint};

use super::redis::{RedisServer, Settings, until};

/// How many masters.
const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// The nodes: first the masters, in the order of their slots, then the replica of each.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
    ids: Vec<String>,
}

impl RedisCluster {
    /// Three masters.
    pub(crate) async fn start() -> Self {
        Self::start_with(0, &[]).await
    }

    /// Three masters with `replicas` each, and lines of configuration.
    pub(crate) async fn start_with(replicas: usize, lines: &[&str]) -> Self {
        let settings = lines.iter().fold(Settings::default(), |settings, line| settings.line(line));
        Self::start_of(replicas, &settings).await
    }

    /// Three masters that speak TLS among themselves, and a port for it.
    pub(crate) async fn start_with_tls() -> Self {
        Self::start_of(0, &Settings::default().tls().line("tls-cluster yes")).await
    }

    async fn start_of(replicas: usize, settings: &Settings) -> Self {
        let count = MASTERS * (1 + replicas);
        let mut nodes = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..count {
            let settings = settings
                .clone()
                .line("cluster-enabled yes")
                .line("cluster-node-timeout 1000")
                .line("repl-diskless-sync-delay 0");
            let node = RedisServer::start_with(settings).await;
            ports.push(node.bus_port());
            nodes.push(node);
        }
        let mut cluster = Self { nodes, ids: Vec::new() };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            let _: String = node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            cluster.ids.push(node.command(&["CLUSTER", "MYID"]).await);
        }
        cluster.meet(&ports, settings.authority.is_some()).await;
        cluster.share_out().await;
        for replica in MASTERS..count {
            cluster.follow(replica, replica % MASTERS).await;
        }
        for node in &cluster.nodes {
            until("the cluster is complete", async || is_complete(node, count).await).await;
        }
        cluster
    }

    async fn meet(&self, buses: &[u16], is_tls: bool) {
        for (node, bus) in self.nodes.iter().zip(buses).skip(1) {
            let port = if is_tls { node.tls_port() } else { node.port() };
            let (port, bus) = (port.to_string(), bus.to_string());
            let _: String =
                self.nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        for node in &self.nodes {
            until("the nodes know each other", async || {
                let nodes: String = node.command(&["CLUSTER", "NODES"]).await;
                let known = nodes.lines().filter(|line| !line.contains("handshake")).count();
                known == self.nodes.len()
            })
            .await;
        }
    }

    async fn share_out(&self) {
        for (number, node) in self.nodes.iter().enumerate().take(MASTERS) {
            let first = number * SLOTS / MASTERS;
            let last = (number + 1) * SLOTS / MASTERS - 1;
            let (first, last) = (first.to_string(), last.to_string());
            let _: String = node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        }
    }

    async fn follow(&self, replica: usize, master: usize) {
        let replica = &self.nodes[replica];
        let _: String = replica.command(&["CLUSTER", "REPLICATE", &self.ids[master]]).await;
        until("the replica follows", async || replica.info("master_link_status").await == "up")
            .await;
    }

    /// The endpoint, by one node: the others have to be found.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let seed = Address { host: "127.0.0.1".to_owned(), port: self.nodes[1].port() };
        Endpoint::Cluster(vec![seed])
    }

    /// The slot of a key.
    pub(crate) async fn slot(&self, name: &str) -> u16 {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", name]).await
    }

    /// Which node serves a slot, as the second one sees it.
    pub(crate) async fn serving(&self, slot: u16) -> usize {
        let map: Vec<Vec<redis::Value>> = self.nodes[1].command(&["CLUSTER", "SLOTS"]).await;
        for range in map {
            let number = |at: usize| redis::from_redis_value::<u16>(range[at].clone()).unwrap();
            if (number(0)..=number(1)).contains(&slot) {
                let master: Vec<redis::Value> = redis::from_redis_value(range[2].clone()).unwrap();
                let port: u16 = redis::from_redis_value(master[1].clone()).unwrap();
                return self.nodes.iter().position(|node| node.port() == port).unwrap();
            }
        }
        panic!("nobody serves slot {slot}")
    }

    /// Begins to move a slot.
    ///
    /// Every node has to have heard of the last move: else the new owner may take an epoch that another has, too, and
    /// while they settle that, the slot can be left to nobody, as redis-cli's `--cluster fix` knows.
    pub(crate) async fn open(&self, slot: u16, from: usize, to: usize) {
        until("the nodes agree about the epoch", async || {
            let mut current = HashSet::new();
            let mut own = HashSet::new();
            for node in self.nodes.iter().take(MASTERS) {
                let info: String = node.command(&["CLUSTER", "INFO"]).await;
                current.insert(field(&info, "cluster_current_epoch"));
                own.insert(field(&info, "cluster_my_epoch"));
            }
            current.len() == 1 && own.len() == MASTERS
        })
        .await;
        let slot = slot.to_string();
        let set = async |node: usize, state: &str, other: usize| {
            let words = ["CLUSTER", "SETSLOT", &slot, state, &self.ids[other]];
            let _: String = self.nodes[node].command(&words).await;
        };
        set(to, "IMPORTING", from).await;
        set(from, "MIGRATING", to).await;
    }

    /// Moves what the slot holds, and ends the move.
    pub(crate) async fn close(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port().to_string());
        loop {
            let keys: Vec<String> =
                self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let _: String = self.nodes[from].command(&words).await;
        }
        for node in [to, from] {
            let words = ["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]];
            let _: String = self.nodes[node].command(&words).await;
        }
    }

    /// How many records each node holds.
    pub(crate) async fn records(&self) -> HashMap<usize, u64> {
        let mut records = HashMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            records.insert(number, node.command(&["DBSIZE"]).await);
        }
        records
    }
}

async fn is_complete(node: &RedisServer, count: usize) -> bool {
    let info: String = node.command(&["CLUSTER", "INFO"]).await;
    info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
}

/// A field of CLUSTER INFO.
fn field(info: &str, name: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("every version has it").trim().to_owned()
}
