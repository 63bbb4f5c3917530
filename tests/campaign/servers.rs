//! Redis as a scenario wants it: alone behind proxies, alone in a network of its own, a master that sentinels watch, or a
//! cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::namespaces::Network;
use crate::support::cluster::RedisCluster;
use crate::support::redis::{RedisServer, Settings};
use crate::support::sentinel::SentinelFleet;

/// What a scenario asks for.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// With these lines in its configuration.
    Alone(Settings),
    /// At the other end of this network, which each gateway reaches it by a link of its own through.
    Apart(Arc<Network>),
    /// A master and two replicas, and three sentinels.
    Sentinels,
    /// Three masters with a replica each.
    Cluster,
}

/// What it got.
pub(crate) enum Servers {
    Alone(RedisServer),
    Apart(RedisServer, Arc<Network>),
    Sentinels(SentinelFleet),
    Cluster(RedisCluster),
}

impl Servers {
    pub(crate) async fn start(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Alone(settings) => Self::Alone(RedisServer::start_with(settings).await),
            Wanted::Apart(network) => {
                let elsewhere = Some(network.there());
                let settings = Settings { elsewhere, ..Settings::default() };
                Self::Apart(RedisServer::start_with(settings).await, network)
            }
            Wanted::Sentinels => Self::Sentinels(SentinelFleet::start().await),
            Wanted::Cluster => {
                // However short a replica has been connected: the fail-over is what is tested.
                let lines = ["cluster-replica-validity-factor 0"];
                Self::Cluster(RedisCluster::start_with(1, &lines).await)
            }
        }
    }

    /// Where a proxy leads, if one is to stand in between: sentinels and clusters name their servers themselves.
    pub(crate) fn behind_proxy(&self) -> Option<SocketAddr> {
        match self {
            Self::Alone(redis) => Some(redis.address()),
            Self::Apart(..) | Self::Sentinels(_) | Self::Cluster(_) => None,
        }
    }

    /// Whether another server may have taken the place of the one that acknowledged a record.
    pub(crate) const fn fail_over(&self) -> bool {
        match self {
            Self::Alone(_) | Self::Apart(..) => false,
            Self::Sentinels(_) | Self::Cluster(_) => true,
        }
    }

    /// Lines of the configuration of one gateway, where there is no proxy to name.
    pub(crate) fn configuration(&self, gateway: usize) -> String {
        let alone = |url: String| format!("store.kind = \"redis\"\nstore.redis.url = {url:?}\n");
        match self {
            Self::Alone(redis) => alone(redis.url()),
            Self::Apart(redis, network) => {
                alone(format!("redis://{}:{}", network.address_for(gateway), redis.port()))
            }
            Self::Sentinels(fleet) => fleet.configuration(),
            Self::Cluster(cluster) => {
                let seeds = [2, 4].map(|node| format!("127.0.0.1:{}", cluster.nodes[node].port()));
                format!("store.kind = \"redis\"\nstore.redis.cluster.addresses = {seeds:?}\n")
            }
        }
    }

    fn all(&self) -> &[RedisServer] {
        match self {
            Self::Alone(redis) | Self::Apart(redis, _) => std::slice::from_ref(redis),
            Self::Sentinels(fleet) => &fleet.servers,
            Self::Cluster(cluster) => &cluster.nodes,
        }
    }

    /// Waits until no record of an event is leased, and returns those that are at the end of `limit`. Where the store has
    /// `forgotten`, it may have been the end of a lease: then it is enough that the lease has lapsed.
    pub(crate) async fn leases(&self, limit: Duration, forgotten: bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let mut left = Vec::new();
            for server in self.all() {
                left.extend(leased(server, forgotten).await);
            }
            if left.is_empty() || began.elapsed() > limit {
                return left;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The leased records of one server; none if it is dead or a replica. Page by page: no server should stand still for it.
async fn leased(server: &RedisServer, forgotten: bool) -> Vec<String> {
    // A first lease says how long it is and how long the key's expiry was; a later one when it lapses.
    const PAGE: &str = "local left, now = {}, redis.call('TIME')[1] * 1000 \
        local function runs(key, record) \
          local lease, expiry = string.match(record, '^1F%x+:(%d+):(%d+)$') \
          if lease then return redis.call('PTTL', key) - expiry + lease > 0 end \
          return tonumber(string.match(record, '%d+$')) > now end \
        local page = redis.call('SCAN', ARGV[1], 'MATCH', 'oncehook:*', 'COUNT', 1000) \
        for _, key in ipairs(page[2]) do local record = redis.call('GET', key) \
        local form = record and string.sub(record, 1, 2) \
        if (form == '1L' or form == '1F') and not string.find(key, '{probe', 1, true) \
        and (ARGV[2] == 'all' or runs(key, record)) \
        then table.insert(left, key .. ' ' .. record) end end return {page[1], left}";
    if TcpStream::connect(server.address()).await.is_err() || server.info("role").await != "master"
    {
        return Vec::new();
    }
    let which = if forgotten { "running" } else { "all" };
    let (mut cursor, mut left) = ("0".to_owned(), Vec::new());
    loop {
        let (next, found): (String, Vec<String>) =
            server.command(&["EVAL", PAGE, "0", &cursor, which]).await;
        left.extend(found);
        if next == "0" {
            return left;
        }
        cursor = next;
    }
}
