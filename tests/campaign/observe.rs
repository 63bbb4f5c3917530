//! What can be seen from outside: a gateway's pages, log, memory and descriptors; and whether
//! this machine has had time for all that.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::history::{Fault, Recorder};
use crate::support::gateway::Gateway;

/// How much of a second one thread may wait for a core. Beyond that the machine is overloaded, and a gateway may have
/// stood still beyond its guard, or Redis answered later than anybody waits: faults that nobody planned.
const WAIT_MAX: Duration = Duration::from_millis(400);

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

/// What an overload is called among the faults.
pub(crate) const OVERLOAD: &str = "this machine is overloaded";

/// Watches this process and those of `pids` until `stop`, for seconds in which one of them waited too long for a core.
pub(crate) fn overload(
    recorder: Arc<Recorder>,
    pids: Arc<Mutex<Vec<u32>>>,
    stop: CancellationToken,
) {
    const TICK: Duration = Duration::from_millis(100);
    const TICKS: usize = 10;
    let mut seconds: VecDeque<(Duration, BTreeMap<String, Duration>)> = VecDeque::new();
    std::thread::spawn(move || {
        while !stop.is_cancelled() {
            std::thread::sleep(TICK);
            let pids = pids.lock().unwrap().clone();
            seconds.push_back((recorder.now(), waits(&pids)));
            let (now, (began, before)) = (&seconds[seconds.len() - 1].1, &seconds[0]);
            let waited =
                now.iter().filter_map(|(task, now)| Some(now.saturating_sub(*before.get(task)?)));
            if waited.max().is_some_and(|waited| waited > WAIT_MAX) {
                // Whoever waits for an answer of the one that waited.
                let began = began.saturating_sub(WAIT_MAX);
                recorder.fault(Fault { costs: 2, ..recorder.over(OVERLOAD, began) });
                seconds.clear();
            } else if seconds.len() > TICKS {
                seconds.pop_front();
            }
        }
    });
}

/// How long each thread of `pids` and of this process has waited for a core so far.
fn waits(pids: &[u32]) -> BTreeMap<String, Duration> {
    let processes = pids.iter().map(ToString::to_string).chain(["self".to_owned()]);
    let tasks = processes.filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
    tasks.flatten().flatten().filter_map(|task| wait(&task.path())).collect()
}

fn wait(task: &Path) -> Option<(String, Duration)> {
    let figures = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let waited = figures.split(' ').nth(1)?.parse().ok()?;
    Some((task.display().to_string(), Duration::from_nanos(waited)))
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

/// Waits until a gateway says so (0: it asks the store, 1: it does without); whether it does in time.
pub(crate) async fn degraded(gateway: &Gateway, says: f64, limit: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if metrics(gateway).await.get("oncehook_store_degraded") == Some(&says) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
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
