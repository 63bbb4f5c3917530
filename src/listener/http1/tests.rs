//! However a stream is cut, it is judged in the same way. What is judged how: `tests/data/http1`.

use proptest::prelude::*;

use super::framing::{Framing, Walked};
use super::head::Limits;

const LIMITS: Limits = Limits { head_bytes: 200, fields: 5, target_bytes: 50 };

/// What heads and bodies, good and bad, are made of.
const PARTS: [&str; 22] = [
    "POST /webhook HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "GET /\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 03\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: websocket\r\n",
    "X: y\n",
    "X : y\r\n",
    " folded\r\n",
    "\r\n",
    "\n",
    "abc",
    "3\r\nabc\r\n",
    "3;x=\"y\"\r\nabc\r\n",
    "3\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "ffffffffffffffff0\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\0",
];

/// As the gate does it: a head that was begun comes again, with more behind it.
fn judged(pieces: &[&[u8]]) -> (Vec<u8>, Walked) {
    let mut framing = Framing::new(LIMITS);
    let (mut held, mut passed, mut last) = (Vec::new(), Vec::new(), Walked::All);
    for piece in pieces {
        held.extend_from_slice(piece);
        let (some, walked) = framing.walk(&held);
        passed.extend(held.drain(..some));
        last = walked;
        if matches!(walked, Walked::BadHead(_) | Walked::BadBody(_)) {
            break;
        }
    }
    (passed, last)
}

fn streams() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(&PARTS[..]), 1..12)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn it_does_not_matter_where_a_stream_is_cut(stream in streams(), size in 1_usize..40) {
        let whole = judged(&[stream.as_bytes()]);
        let pieces: Vec<_> = stream.as_bytes().chunks(size).collect();
        let cut = judged(&pieces);
        if let (Walked::BadBody(one), Walked::BadBody(other)) = (whole.1, cut.1) {
            // In one piece the chunks before the bad one are not passed on: the service never sees the body's end.
            prop_assert_eq!(one, other);
        } else {
            prop_assert_eq!(whole, cut);
        }
    }

    #[test]
    fn nothing_is_passed_on_that_did_not_come(stream in streams()) {
        let (passed, walked) = judged(&[stream.as_bytes()]);
        prop_assert!(stream.as_bytes().starts_with(&passed));
        if walked == Walked::All {
            prop_assert_eq!(passed.len(), stream.len());
        }
    }
}

#[test]
fn the_samples_reach_every_end() {
    let ends = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "All"),
        ("GET / HTTP/1.1\r\nHost: a\r\n", "HeadBegun"),
        ("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\nabc", "AnswerDue"),
        ("GET / HTTP/1.1\r\nX : y\r\n\r\n", "BadHead"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\n", "BadBody"),
    ];
    for (stream, end) in ends {
        let told = format!("{:?}", judged(&[stream.as_bytes()]).1);
        assert!(told.starts_with(end), "{stream:?}: {told}");
    }
}
