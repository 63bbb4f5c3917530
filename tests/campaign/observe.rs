//! What can be seen from outside: a gateway's pages, log, memory and descriptors, what is left in Redis, and whether
//! this machine itself stood still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::history::Recorder;
use crate::support::gateway::Gateway;
use crate::support::redis::RedisServer;

/// A pause of this process that nobody asked for: the gateways may have stood still as well, beyond their guard.
const STALL: Duration = Duration::from_millis(400);

/// What a process takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    pub(crate) descriptors: usize,
    /// Bytes in memory.
    pub(crate) memory: u64,
}

impl Footprint {
    pub(crate) fn of(pid: u32) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        Self { descriptors, memory: pages * 4096 }
    }
}

/// Watches for pauses of the whole machine, which are faults that nobody planned.
pub(crate) fn stalls(recorder: Arc<Recorder>, stop: CancellationToken) {
    const TICK: Duration = Duration::from_millis(20);
    std::thread::spawn(move || {
        while !stop.is_cancelled() {
            let began = recorder.now();
            std::thread::sleep(TICK);
            if recorder.now() > began + TICK + STALL {
                recorder.fault(recorder.over("this machine stood still", began));
            }
        }
    });
}

/// The sums of a gateway's families, labels aside.
pub(crate) async fn metrics(gateway: &Gateway) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in page(gateway, "/metrics").await.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let family = series.split('{').next().unwrap_or(series).to_owned();
        *sums.entry(family).or_insert(0.0) += value.parse::<f64>().unwrap_or(0.0);
    }
    sums
}

async fn page(gateway: &Gateway, path: &str) -> String {
    let mut text = String::new();
    let reading = async {
        let mut socket = TcpStream::connect(gateway.admin()).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        socket.read_to_string(&mut text).await
    };
    // Whatever does not come is missed by whoever asked.
    drop(timeout(Duration::from_secs(5), reading).await);
    text
}

/// Waits until nothing is in flight, the store is asked, and no more than `descriptors` are open.
pub(crate) async fn rest(
    gateway: &Gateway,
    descriptors: usize,
    limit: Duration,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let figures = metrics(gateway).await;
        let of = |family: &str| figures.get(family).copied();
        let open = Footprint::of(gateway.pid()).descriptors;
        let (flying, out) = (of("oncehook_in_flight"), of("oncehook_store_degraded"));
        if flying == Some(0.0) && out == Some(0.0) && open <= descriptors {
            return Ok(());
        }
        if began.elapsed() > limit {
            return Err(format!(
                "in flight {flying:?}, store degraded {out:?}, {open} descriptors (at most {descriptors})"
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until no record of an event is leased, and returns those that are at the end.
pub(crate) async fn leases(redis: &RedisServer, limit: Duration) -> Vec<String> {
    let began = Instant::now();
    loop {
        let leased = leased(redis).await;
        if leased.is_empty() || began.elapsed() > limit {
            return leased;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn leased(redis: &RedisServer) -> Vec<String> {
    let script = "local left, cursor = {}, '0' repeat local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000) \
                  for _, key in ipairs(page[2]) do local record = redis.call('GET', key) \
                  if record and string.sub(record, 1, 2) == '1L' and not string.find(key, '{probe}', 1, true) \
                  then table.insert(left, key .. ' ' .. record) end end cursor = page[1] until cursor == '0' return left";
    redis.command(&["EVAL", script, "0", "oncehook:*"]).await
}

/// Reads a gateway's log: no panic, and nothing said to be delivered that the backend did not accept.
pub(crate) fn log(lines: &[String], number: usize, recorder: &Recorder) {
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    for arrival in recorder.write().arrivals.iter().filter(|arrival| arrival.accepted.is_some()) {
        *accepted.entry(arrival.key.clone()).or_default() += 1;
    }
    let mut delivered: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        if line.contains("panicked") {
            recorder.complain(format!("gateway {number} panicked: {line}"));
        }
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let ok = line["status"].as_u64().is_some_and(|status| (200..300).contains(&status));
        if let (Some("forwarded"), true, Some(key)) =
            (line["result"].as_str(), ok, line["key"].as_str())
        {
            *delivered.entry(key.to_owned()).or_default() += 1;
        }
    }
    for (key, times) in delivered {
        if accepted.get(&key).is_none_or(|accepted| *accepted < times) {
            recorder.complain(format!(
                "gateway {number} says that it delivered {key} {times} times, and the backend disagrees"
            ));
        }
    }
}
