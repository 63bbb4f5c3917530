//! What attackers do, in a process of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::arguments::{Order, Pace};
use crate::frames::{self, Flood};
use crate::peers;

/// How many addresses they come from: a source has its own limit.
const SOURCES: u8 = 20;
/// A peer that was sent away comes again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long a short flood may take: every time-out of the gateway, on a slow machine.
const SHORT_MAX: Duration = Duration::from_mins(2);
/// How many connections come in a second: what is asked is what they cost while they are there. How fast handshakes may
/// come is `bad-tls`'s question.
const ARRIVALS: u32 = 500;
/// How many connections a short one has.
const SHORT_CONNECTIONS: usize = 8;

/// A flood.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    connections: usize,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// As many frames as the gateway takes.
    Frames(Flood),
    /// Nothing, after a TLS handshake or before it.
    Silence,
    /// A head, byte by byte.
    Drip,
    /// Requests, whose answers are never read.
    SlowReading,
    /// What is no TLS.
    BadTls,
}

const fn frames(name: &'static str, about: &'static str, flood: Flood) -> Attack {
    Attack { name, about, connections: 16, how: How::Frames(flood) }
}

/// All floods.
pub(crate) const ALL: &[Attack] = &[
    frames("rapid-reset", "streams opened and reset at once (CVE-2023-44487)", frames::rapid_reset),
    frames(
        "made-you-reset",
        "streams that the gateway must reset (CVE-2025-8671)",
        frames::made_you_reset,
    ),
    frames("continuation", "heads that never end (CVE-2024-27316)", frames::continuation),
    frames("empty-data", "DATA of nothing (CVE-2019-9518)", frames::empty_data),
    frames(
        "hpack-bomb",
        "large fields named thousands of times (CVE-2016-6581)",
        frames::hpack_bomb,
    ),
    frames("ping", "PING after PING (CVE-2019-9512)", frames::ping),
    frames("settings", "SETTINGS after SETTINGS (CVE-2019-9515)", frames::settings),
    frames("priority", "PRIORITY after PRIORITY (CVE-2019-9513)", frames::priority),
    frames("window-update", "windows for nothing", frames::window_update),
    frames("unknown", "frames that nobody knows", frames::unknown),
    Attack {
        name: "silent",
        about: "2,000 connections that say nothing, half of them not even hello",
        connections: 2_000,
        how: How::Silence,
    },
    Attack {
        name: "dripping",
        about: "2,000 connections with a byte of a head a second",
        connections: 2_000,
        how: How::Drip,
    },
    Attack {
        name: "slow-reading",
        about: "2,000 connections that never take the answers they asked for",
        connections: 2_000,
        how: How::SlowReading,
    },
    Attack {
        name: "bad-tls",
        about: "500 peers a second that do not speak TLS, or break it off",
        connections: 500,
        how: How::BadTls,
    },
];

/// What it came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// How many were made.
    pub(crate) connections: u64,
    /// How many the gateway closed.
    pub(crate) closed: u64,
    /// How many of these with a GOAWAY that names an error.
    pub(crate) goaways: u64,
    /// Frames that were written; for others, pieces.
    pub(crate) frames: u64,
    pub(crate) milliseconds: u64,
}

impl Done {
    pub(crate) fn to_json(self) -> String {
        let Self { connections, closed, goaways, frames, milliseconds } = self;
        serde_json::json!([connections, closed, goaways, frames, milliseconds]).to_string()
    }

    fn from_json(text: &str) -> Option<Self> {
        let [connections, closed, goaways, frames, milliseconds] =
            serde_json::from_str(text.trim()).ok()?;
        Some(Self { connections, closed, goaways, frames, milliseconds })
    }

    pub(crate) fn frames_a_second(self) -> u64 {
        self.frames * 1_000 / self.milliseconds.max(1)
    }
}

/// What attackers count together.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) connections: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) goaways: AtomicU64,
    pub(crate) frames: AtomicU64,
}

/// Starts the attackers, and waits for their end.
pub(crate) async fn start(attack: &'static Attack, address: SocketAddr, pace: Pace) -> Done {
    let order = Order { attack, address, pace };
    let exe = std::env::current_exe().expect("this is a program");
    // SCHED_IDLE: they run when nobody else wants to, and go at once when somebody does. A low priority alone would let
    // them finish their slice, and 3 ms of it would be told as the gateway's.
    let mut command = std::process::Command::new("chrt");
    command.args(["--idle", "0"]).arg(exe).args(order.words());
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    // They end by themselves when their time is over.
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("chrt is a part of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    Done::from_json(&text).unwrap_or_else(|| panic!("attackers said: {text}"))
}

/// Carries an order out.
pub(crate) async fn run(order: Order) -> Done {
    let began = Instant::now();
    let Order { attack, address, pace } = order;
    let (until, connections) = match pace {
        Pace::Short => (began + SHORT_MAX, attack.connections.min(SHORT_CONNECTIONS)),
        Pace::Timed(time) => (began + time, attack.connections),
    };
    let counted = Arc::new(Counted::default());
    let attackers = Arc::new(peers::Target::new(address));
    let mut all = JoinSet::new();
    for number in 0..connections {
        let (target, counted) = (Arc::clone(&attackers), Arc::clone(&counted));
        all.spawn(async move {
            sleep(Duration::from_secs(1) * number as u32 / ARRIVALS).await;
            let peer = one(attack.how, &target, number, (pace, &counted));
            // Whoever is still there then goes.
            drop(timeout_at(until, peer).await);
        });
    }
    while all.join_next().await.is_some() {}
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Done {
        connections: count(&counted.connections),
        closed: count(&counted.closed),
        goaways: count(&counted.goaways),
        frames: count(&counted.frames),
        milliseconds: began.elapsed().as_millis() as u64,
    }
}

/// One attacker: a connection, and where there is time another one after it.
async fn one(how: How, target: &peers::Target, number: usize, (pace, counted): (Pace, &Counted)) {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + (number % usize::from(SOURCES)) as u8));
    loop {
        let again_after = match how {
            How::Frames(flood) => {
                peers::frames(target, source, (flood, counted)).await;
                AGAIN_AFTER
            }
            How::Silence => {
                peers::silence(target, source, (number, counted)).await;
                AGAIN_AFTER
            }
            How::Drip => {
                peers::drip(target, source, counted).await;
                AGAIN_AFTER
            }
            How::SlowReading => {
                peers::slow_reading(target, source, counted).await;
                AGAIN_AFTER
            }
            How::BadTls => {
                // Each of as many as come in a second comes once a second, however long it was listened to.
                let next = Instant::now() + Duration::from_secs(1);
                let peer = peers::bad_tls(target, source, (number, counted));
                match pace {
                    Pace::Short => peer.await,
                    Pace::Timed(_) => drop(timeout_at(next, peer).await),
                }
                next.saturating_duration_since(Instant::now())
            }
        };
        if pace == Pace::Short {
            return;
        }
        sleep(again_after).await;
    }
}
