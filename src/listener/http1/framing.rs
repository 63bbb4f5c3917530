//! Where the messages of an HTTP/1.1 connection begin and end, read strictly.
//!
//! Pure. [`super::Gate`] passes on what this has judged, and nothing else.

use super::chunk::{Chunked, at_most};
use super::head::{Body, Head, Limits};
use crate::telemetry::labels::Malformed;

/// What a connection's bytes are, as far as they have come.
#[derive(Debug)]
pub(super) struct Framing {
    limits: Limits,
    due: Due,
    upgrade: bool,
    heads: u64,
}

#[derive(Debug)]
enum Due {
    Head(Head),
    Length(u64),
    Chunks(Chunked),
    /// The answer to a request for another protocol: it decides what comes next.
    Answer,
}

/// What is to be done with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// They are all passed on.
    All,
    /// The rest is a head that is not complete.
    HeadBegun,
    /// The rest waits for an answer.
    AnswerDue,
    /// What follows is no head.
    BadHead(Malformed),
    /// The body breaks off into nonsense.
    BadBody(Malformed),
}

impl Framing {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, due: Due::Head(Head::default()), upgrade: false, heads: 0 }
    }

    /// How many heads have been passed on.
    pub(super) const fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether an answer is due that decides what comes next.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.due, Due::Answer)
    }

    /// Whether a body has not come to its end.
    pub(super) const fn in_body(&self) -> bool {
        matches!(self.due, Due::Length(_) | Due::Chunks(_))
    }

    /// The answer that was due did not change the protocol.
    pub(super) fn go_on(&mut self) {
        self.due = Due::Head(Head::default());
    }

    /// Reads on; says how many of `bytes` may be passed on, and what about the rest. A head that was begun comes again
    /// from its first byte.
    pub(super) fn walk(&mut self, bytes: &[u8]) -> (usize, Walked) {
        let mut passed = 0;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(stepped) => passed += stepped,
                Err(walked) => return (passed, walked),
            }
        }
        (passed, Walked::All)
    }

    /// One head, or what is there of a body.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Walked> {
        match &mut self.due {
            Due::Head(head) => {
                let ended = head.read(bytes, &self.limits).map_err(Walked::BadHead)?;
                let ended = ended.ok_or(Walked::HeadBegun)?;
                self.heads += 1;
                self.upgrade = ended.upgrade;
                self.due = match ended.body {
                    Body::Length(0) => self.after_message(),
                    Body::Length(length) => Due::Length(length),
                    Body::Chunked => Due::Chunks(Chunked::new()),
                };
                Ok(ended.bytes)
            }
            Due::Length(left) => {
                let take = at_most(*left, bytes.len());
                *left -= u64::try_from(take).unwrap_or(*left);
                if *left == 0 {
                    self.due = self.after_message();
                }
                Ok(take)
            }
            Due::Chunks(chunks) => {
                let read = chunks.read(bytes).map_err(Walked::BadBody)?;
                if chunks.is_over() {
                    self.due = self.after_message();
                }
                Ok(read)
            }
            Due::Answer => Err(Walked::AnswerDue),
        }
    }

    fn after_message(&self) -> Due {
        if self.upgrade { Due::Answer } else { Due::Head(Head::default()) }
    }
}
