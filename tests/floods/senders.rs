//! Good senders, which want no more than to be told 200, and how long that took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oncehook::webhook::event::EventKind;
use tokio::task::JoinSet;

use crate::support::sender::{Sender, event};

/// How many there are, each with a connection of its own.
const SENDERS: usize = 4;
/// How long each waits between one webhook's begin and the next one's.
const EVERY: Duration = Duration::from_millis(20);

/// How long their webhooks took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    /// Webhooks that were sent, each of another event.
    pub(crate) requests: u64,
    /// Those that were told something else than 200, or nothing.
    pub(crate) refused: u64,
}

impl Latencies {
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let at = (self.sorted.len() as f64 * quantile) as usize;
        self.sorted.get(at.min(self.sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Sends webhooks to `url`, of events from `first` on, until `over`; each sender sends one at least.
pub(crate) async fn until(url: &str, first: u64, over: impl Future<Output = ()>) -> Latencies {
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(first)));
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        senders.spawn(one(url.to_owned(), Arc::clone(&next), Arc::clone(&stop)));
    }
    over.await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Latencies::default();
    while let Some(one) = senders.join_next().await {
        let one = one.expect("no sender panics");
        all.sorted.extend(one.sorted);
        all.requests += one.requests;
        all.refused += one.refused;
    }
    all.sorted.sort_unstable();
    all
}

async fn one(url: String, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Latencies {
    let sender = Sender::to(&url);
    let mut mine = Latencies::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let signed = event(EventKind::RoomStarted, number, &format!("EV_{number}"));
        let began = Instant::now();
        let told = sender.try_post(&signed).await;
        let took = began.elapsed();
        mine.requests += 1;
        match told {
            Ok(told) if told.status == 200 => mine.sorted.push(took),
            Ok(_) | Err(_) => mine.refused += 1,
        }
        if stop.load(Ordering::Relaxed) {
            return mine;
        }
        tokio::time::sleep(EVERY.saturating_sub(took)).await;
    }
}
