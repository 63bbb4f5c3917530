//! Floods of frames: each makes the next piece of one, and says how many frames it is.

use crate::support::h2::{Frame, HEADERS, PING, RST_STREAM, SETTINGS, field, setting};

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xee;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The field with the number 62: the first of the table that the peer makes (RFC 7541 §2.3.3, §6.1).
const FIRST_OF_TABLE: u8 = 0xbe;

/// How many frames are made at once.
const AT_ONCE: u32 = 200;

/// Where one connection's flood stands.
#[derive(Debug, Default)]
pub(crate) struct Stand {
    pieces: u32,
    streams: u32,
}

/// The next piece, and how many frames it has.
pub(crate) type Flood = fn(&mut Stand) -> (Vec<u8>, u64);

impl Stand {
    fn next_stream(&mut self) -> u32 {
        self.streams += 1;
        // A client's streams have odd numbers; a flood ends long before they do.
        (2 * self.streams - 1) & 0x7fff_ffff
    }
}

/// A request for nothing that is there.
fn block() -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/flood"),
    ];
    fields.into_iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

fn joined(frames: &[Frame]) -> (Vec<u8>, u64) {
    (frames.iter().flat_map(Frame::bytes).collect(), frames.len() as u64)
}

fn repeated(frame: &Frame) -> (Vec<u8>, u64) {
    (frame.bytes().repeat(AT_ONCE as usize), AT_ONCE.into())
}

pub(crate) fn rapid_reset(stand: &mut Stand) -> (Vec<u8>, u64) {
    let mut frames = Vec::new();
    for _ in 0..AT_ONCE / 2 {
        let stream = stand.next_stream();
        frames.push(Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, block()));
        frames.push(Frame::new(RST_STREAM, 0, stream, [0, 0, 0, 8]));
    }
    joined(&frames)
}

pub(crate) fn made_you_reset(stand: &mut Stand) -> (Vec<u8>, u64) {
    let mut frames = Vec::new();
    for _ in 0..AT_ONCE / 2 {
        let stream = stand.next_stream();
        frames.push(Frame::new(HEADERS, END_HEADERS, stream, block()));
        frames.push(Frame::new(WINDOW_UPDATE, 0, stream, [0x7f, 0xff, 0xff, 0xff]));
    }
    joined(&frames)
}

pub(crate) fn continuation(stand: &mut Stand) -> (Vec<u8>, u64) {
    let mut frames = Vec::new();
    if stand.pieces == 0 {
        stand.pieces = 1;
        frames.push(Frame::new(HEADERS, END_STREAM, 1, block()));
    }
    let more = Frame::new(CONTINUATION, 0, 1, field(b"x-more", &[b'a'; 1_000]));
    frames.extend(std::iter::repeat_n(more, AT_ONCE as usize));
    joined(&frames)
}

pub(crate) fn empty_data(stand: &mut Stand) -> (Vec<u8>, u64) {
    if stand.pieces == 0 {
        stand.pieces = 1;
        return joined(&[Frame::new(HEADERS, END_HEADERS, 1, block())]);
    }
    repeated(&Frame::new(DATA, 0, 1, []))
}

pub(crate) fn hpack_bomb(stand: &mut Stand) -> (Vec<u8>, u64) {
    let mut frames = Vec::new();
    if stand.pieces == 0 {
        stand.pieces = 1;
        // Into the table (RFC 7541 §6.2.1).
        let value = vec![b'a'; 4_000];
        let mut bytes = block();
        bytes.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
        bytes.extend(value);
        frames.push(Frame::new(HEADERS, END_HEADERS | END_STREAM, stand.next_stream(), bytes));
    }
    let mut bytes = block();
    // Just below what is answered with the end of the connection: 15 times 4 KB.
    bytes.extend([FIRST_OF_TABLE; 15]);
    for _ in 0..AT_ONCE / 10 {
        let stream = stand.next_stream();
        frames.push(Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, bytes.clone()));
    }
    let stream = stand.next_stream();
    bytes.extend([FIRST_OF_TABLE; 10_000]);
    frames.push(Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, bytes));
    joined(&frames)
}

pub(crate) fn ping(_: &mut Stand) -> (Vec<u8>, u64) {
    repeated(&Frame::new(PING, 0, 0, [7; 8]))
}

pub(crate) fn settings(_: &mut Stand) -> (Vec<u8>, u64) {
    repeated(&Frame::new(SETTINGS, 0, 0, setting(3, 100)))
}

pub(crate) fn priority(stand: &mut Stand) -> (Vec<u8>, u64) {
    let frame = |stream| Frame::new(PRIORITY, 0, stream, [0, 0, 0, 0, 16]);
    joined(&(0..AT_ONCE).map(|_| frame(stand.next_stream())).collect::<Vec<_>>())
}

pub(crate) fn window_update(_: &mut Stand) -> (Vec<u8>, u64) {
    repeated(&Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]))
}

pub(crate) fn unknown(_: &mut Stand) -> (Vec<u8>, u64) {
    repeated(&Frame::new(UNKNOWN, 0, 0, []))
}
