//! Reads the heads of HTTP/2 frames as they pass, in both directions (RFC 9113 §4.1): what hyper and h2 do not bound or
//! do not tell is counted here.
//!
//! Coming in: frames that cost work and carry nothing of a request, as many as a flood consists of (PING, SETTINGS,
//! PRIORITY, `RST_STREAM`, unknown kinds, empty DATA, and `WINDOW_UPDATE` beyond what was sent), and header blocks that
//! have begun. Going out: which streams and connections h2 ends because of the peer's errors. Payloads are skipped; what
//! is wrong with a frame is left to h2. What follows is left to `watch`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{self, Sleep};

use crate::telemetry::Metrics;
use crate::telemetry::labels::{Http2Error, Http2Scope};

/// What the peer sends before its first frame (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// Length, kind, flags, stream (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;
/// A GOAWAY's last stream and its code (RFC 9113 §6.8) are the longest payload that is looked into.
const KEPT_BYTES: usize = HEAD_BYTES + 8;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Over what time frames are counted.
const SPAN: Duration = Duration::from_secs(1);
/// A peer gives back the window for what it has read, in pieces as small as this (Go's client: 4 KiB), of the stream and
/// of the connection.
const REFUND_BYTES: u32 = 2048;
const REFUNDS_MIN: u32 = 2;
/// What the peer may owe at most, so that the credit of a long download does not become a flood.
const REFUNDS_MAX: u32 = 100_000;

/// Why a peer is sent away by us, and not by h2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// More frames that carry nothing than a connection may send in a second.
    Flood,
    /// Its first frame is not SETTINGS (RFC 9113 §3.4), which h2 does not mind.
    NoSettings,
}

impl Offence {
    /// A GOAWAY that says so (RFC 9113 §6.8). Nothing is said of the streams that were answered: their sender knows.
    pub(super) const fn goaway(self) -> [u8; KEPT_BYTES] {
        let code = match self {
            Self::Flood => 0xb,
            Self::NoSettings => 0x1,
        };
        [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code]
    }
}

/// What has come in one piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// A header block has begun and is not complete (`Some(true)`), or has come to its end (`Some(false)`).
    pub(super) block_open: Option<bool>,
    /// Frames that carry nothing.
    idle_frames: u32,
    /// The first one was not the one that comes first.
    no_settings: bool,
}

/// One connection's frames.
pub(super) struct Frames {
    incoming: Scanner,
    outgoing: Scanner,
    counted: u32,
    counted_max: u32,
    span: Pin<Box<Sleep>>,
    refunds: u32,
    greeted: bool,
    metrics: Arc<Metrics>,
}

impl Frames {
    /// Of a new connection, which may send `idle_frames_max` a second.
    pub(super) fn new(idle_frames_max: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            incoming: Scanner::after(PREFACE_BYTES),
            outgoing: Scanner::after(0),
            counted: 0,
            counted_max: idle_frames_max,
            span: Box::pin(time::sleep(SPAN)),
            refunds: 0,
            greeted: false,
            metrics,
        }
    }

    /// `bytes` came in.
    pub(super) fn arrived(&mut self, bytes: &[u8]) -> Arrived {
        let mut arrived = Arrived::default();
        let (refunds, greeted) = (&mut self.refunds, &mut self.greeted);
        self.incoming.read(bytes, |frame| match frame.kind {
            SETTINGS if !*greeted && frame.flags & ACK == 0 => *greeted = true,
            _ if !*greeted => arrived.no_settings = true,
            HEADERS | CONTINUATION => {
                arrived.block_open = Some(frame.flags & END_HEADERS == 0);
                let empty = frame.kind == CONTINUATION && frame.length == 0;
                arrived.idle_frames += u32::from(empty);
            }
            // An empty one may end a stream, which only happens once.
            DATA => {
                let empty = frame.length == 0 && frame.flags & END_STREAM == 0;
                arrived.idle_frames += u32::from(empty);
            }
            WINDOW_UPDATE => match refunds.checked_sub(1) {
                Some(fewer) => *refunds = fewer,
                None => arrived.idle_frames += 1,
            },
            _ => arrived.idle_frames += 1,
        });
        arrived
    }

    /// What is wrong with that, beyond what h2 sees to.
    pub(super) fn offence(&mut self, arrived: Arrived, cx: &mut Context<'_>) -> Option<Offence> {
        if arrived.no_settings {
            return Some(Offence::NoSettings);
        }
        if arrived.idle_frames == 0 {
            return None;
        }
        if let Poll::Ready(()) = self.span.as_mut().poll(cx) {
            self.counted = 0;
            self.span.set(time::sleep(SPAN));
        }
        self.counted = self.counted.saturating_add(arrived.idle_frames);
        (self.counted > self.counted_max).then_some(Offence::Flood)
    }

    /// `bytes` went out.
    pub(super) fn left(&mut self, bytes: &[u8]) {
        let (refunds, metrics) = (&mut self.refunds, &self.metrics);
        self.outgoing.read(bytes, |frame| match (frame.kind, frame.code) {
            (DATA, _) if frame.length > 0 => {
                let due = REFUNDS_MIN + frame.length / REFUND_BYTES;
                *refunds = refunds.saturating_add(due).min(REFUNDS_MAX);
            }
            (RST_STREAM, Some(code)) => count(metrics, Http2Scope::Stream, code),
            (GOAWAY, Some(code)) => count(metrics, Http2Scope::Connection, code),
            _ => {}
        });
    }

    /// Whether a frame of ours may be written now: none is under way.
    pub(super) const fn between_frames(&self) -> bool {
        self.outgoing.kept_bytes == 0 && self.outgoing.skip_bytes == 0
    }
}

/// `NO_ERROR` ends what is over, and is nobody's error.
fn count(metrics: &Metrics, scope: Http2Scope, code: u32) {
    if let Some(error) = Http2Error::of(code) {
        metrics.http2_error(scope, error);
    }
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    /// Of `RST_STREAM` and GOAWAY.
    code: Option<u32>,
}

/// Finds the frames in a stream of bytes, however it is cut.
#[derive(Debug)]
struct Scanner {
    kept: [u8; KEPT_BYTES],
    kept_bytes: usize,
    skip_bytes: usize,
}

impl Scanner {
    const fn after(skip_bytes: usize) -> Self {
        Self { kept: [0; KEPT_BYTES], kept_bytes: 0, skip_bytes }
    }

    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip_bytes.min(bytes.len());
            self.skip_bytes -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let kept = self.wanted().saturating_sub(self.kept_bytes).min(bytes.len());
            let (new, rest) = bytes.split_at(kept);
            if let Some(room) = self.kept.get_mut(self.kept_bytes..self.kept_bytes + kept) {
                room.copy_from_slice(new);
            }
            self.kept_bytes += kept;
            bytes = rest;
            // The head may have shown that more is wanted.
            if self.kept_bytes == self.wanted() && self.kept_bytes >= HEAD_BYTES {
                let frame = self.frame();
                let payload = usize::try_from(frame.length).unwrap_or(usize::MAX);
                self.skip_bytes = payload - (self.kept_bytes - HEAD_BYTES);
                self.kept_bytes = 0;
                each(frame);
            }
        }
    }

    /// How many bytes of the frame are looked at.
    fn wanted(&self) -> usize {
        if self.kept_bytes < HEAD_BYTES {
            return HEAD_BYTES;
        }
        let [_, _, _, kind, ..] = self.kept;
        let looked_into: u32 = match kind {
            RST_STREAM => 4,
            GOAWAY => 8,
            _ => 0,
        };
        HEAD_BYTES + usize::try_from(looked_into.min(self.length())).unwrap_or(0)
    }

    const fn length(&self) -> u32 {
        let [a, b, c, ..] = self.kept;
        u32::from_be_bytes([0, a, b, c])
    }

    fn frame(&self) -> Frame {
        let [_, _, _, kind, flags, _, _, _, _, payload @ ..] = self.kept;
        let code = match (kind, self.kept_bytes - HEAD_BYTES) {
            (RST_STREAM, 4) => payload.first_chunk().copied(),
            (GOAWAY, 8) => payload.last_chunk().copied(),
            _ => None,
        };
        Frame { length: self.length(), kind, flags, code: code.map(u32::from_be_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const PING: u8 = 0x6;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    /// What a peer says first, and nothing is wrong with.
    fn hello() -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, b""));
        bytes
    }

    fn seen(scanner: &mut Scanner, pieces: &[&[u8]]) -> Vec<(u8, u32, Option<u32>)> {
        let mut frames = Vec::new();
        for piece in pieces {
            scanner.read(piece, |frame| frames.push((frame.kind, frame.length, frame.code)));
        }
        frames
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let mut stream = frame(DATA, 0, &[7; 300]);
        stream.extend(frame(RST_STREAM, 0, &[0, 0, 0, 8]));
        stream.extend(frame(GOAWAY, 0, &[0, 0, 0, 5, 0, 0, 0, 11, b'w', b'h', b'y']));
        stream.extend(frame(HEADERS, END_HEADERS, b""));
        // Both too short to hold a code: h2's affair.
        stream.extend(frame(RST_STREAM, 0, &[1]));
        stream.extend(frame(GOAWAY, 0, &[0; 7]));
        stream.extend(frame(PING, 0, &[0; 8]));
        let expected = [
            (DATA, 300, None),
            (RST_STREAM, 4, Some(8)),
            (GOAWAY, 11, Some(11)),
            (HEADERS, 0, None),
            (RST_STREAM, 1, None),
            (GOAWAY, 7, None),
            (PING, 8, None),
        ];
        for size in 1..=stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let mut scanner = Scanner::after(0);
            assert_eq!(seen(&mut scanner, &pieces), expected, "in pieces of {size}");
            assert_eq!((scanner.kept_bytes, scanner.skip_bytes), (0, 0));
        }
    }

    #[tokio::test]
    async fn frames_that_carry_nothing_are_counted_and_windows_given_back_are_not() {
        let mut frames = Frames::new(3, Metrics::new());
        let idle = |frames: &mut Frames, bytes: &[u8]| frames.arrived(bytes).idle_frames;
        assert_eq!(idle(&mut frames, &hello()), 0);
        assert_eq!(idle(&mut frames, &frame(PING, 0, &[0; 8])), 1);
        assert_eq!(idle(&mut frames, &frame(DATA, 0, b"")), 1);
        assert_eq!(idle(&mut frames, &frame(DATA, END_STREAM, b"")), 0);
        assert_eq!(idle(&mut frames, &frame(DATA, 0, b"x")), 0);
        assert_eq!(idle(&mut frames, &frame(HEADERS, END_HEADERS, b"x")), 0);
        let update = frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        assert_eq!(idle(&mut frames, &update), 1);
        frames.left(&frame(DATA, 0, b"an answer"));
        assert_eq!([(); 3].map(|()| idle(&mut frames, &update)), [0, 0, 1]);
    }

    #[tokio::test]
    async fn more_than_so_many_a_second_are_a_flood_until_the_second_is_over() {
        let mut frames = Frames::new(3, Metrics::new());
        frames.arrived(&hello());
        let ping = frame(PING, 0, &[0; 8]);
        for number in 0..5 {
            let arrived = frames.arrived(&ping);
            let found = poll_fn(|cx| Poll::Ready(frames.offence(arrived, cx))).await;
            assert_eq!(found, (number >= 3).then_some(Offence::Flood), "frame {number}");
        }
        let calm = poll_fn(|cx| {
            let arrived = frames.arrived(&ping);
            // The timer that ends the second wakes this up.
            frames.offence(arrived, cx).map_or(Poll::Ready(()), |_| Poll::Pending)
        });
        time::timeout(SPAN * 20, calm).await.unwrap();
        assert_eq!(frames.counted, 1);
    }

    #[tokio::test]
    async fn a_header_block_is_open_until_its_last_frame() {
        let mut frames = Frames::new(3, Metrics::new());
        let mut open = |bytes: &[u8]| frames.arrived(bytes).block_open;
        assert_eq!(open(&hello()), None);
        let head = frame(HEADERS, 0, b"some");
        assert_eq!(open(&head[..HEAD_BYTES - 1]), None);
        assert_eq!(open(&head[HEAD_BYTES - 1..]), Some(true));
        assert_eq!(open(&frame(PING, 0, &[0; 8])), None);
        assert_eq!(open(&frame(CONTINUATION, 0, b"more")), Some(true));
        assert_eq!(open(&frame(CONTINUATION, END_HEADERS, b"last")), Some(false));
        assert_eq!(open(&frame(HEADERS, END_HEADERS | END_STREAM, b"all")), Some(false));
    }

    #[tokio::test]
    async fn settings_come_first() {
        for first in [frame(PING, 0, &[0; 8]), frame(SETTINGS, ACK, b""), frame(HEADERS, 4, b"")] {
            let mut frames = Frames::new(3, Metrics::new());
            frames.arrived(&hello()[..PREFACE_BYTES]);
            let arrived = frames.arrived(&first);
            let found = poll_fn(|cx| Poll::Ready(frames.offence(arrived, cx))).await;
            assert_eq!(found, Some(Offence::NoSettings));
        }
    }
}
