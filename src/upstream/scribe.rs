//! The values that the gateway writes into a head, one behind the other: they share one allocation.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::text;

/// More than most heads need, in bytes.
const TEXT: usize = 256;
/// As many as a head has at most.
const FIELDS: usize = 8;

/// Values on their way into a head.
pub(super) struct Scribe {
    text: String,
    fields: Vec<(HeaderName, Range<usize>)>,
}

impl Scribe {
    pub(super) fn new() -> Self {
        Self { text: String::with_capacity(TEXT), fields: Vec::with_capacity(FIELDS) }
    }

    /// Writes what is no value yet, and says where it stands.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut String)) -> Range<usize> {
        let start = self.text.len();
        write(&mut self.text);
        start..self.text.len()
    }

    /// What stands there.
    pub(super) fn bytes(&self, place: &Range<usize>) -> &[u8] {
        self.text.as_bytes().get(place.clone()).unwrap_or_default()
    }

    /// What stands there is the value of `name`.
    pub(super) fn written(&mut self, name: HeaderName, place: Range<usize>) {
        self.fields.push((name, place));
    }

    /// `value` is the value of `name`.
    pub(super) fn text(&mut self, name: HeaderName, value: &str) {
        let place = self.write(|text| text.push_str(value));
        self.written(name, place);
    }

    /// In hexadecimal.
    pub(super) fn hex(&mut self, name: HeaderName, value: [u8; 16]) {
        let place = self.write(|text| text.push_str(text::hex(&value, &mut [0; 32])));
        self.written(name, place);
    }

    /// In decimal.
    pub(super) fn number(&mut self, name: HeaderName, value: impl itoa::Integer) {
        let place = self.write(|text| text.push_str(itoa::Buffer::new().format(value)));
        self.written(name, place);
    }

    /// Sets all of them, in place of what was there.
    pub(super) fn finish(self, head: &mut HeaderMap) {
        let text = Bytes::from(self.text);
        for (name, place) in self.fields {
            // A value that is none, such as a request id with a line break, is left out.
            if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(place)) {
                head.insert(name, value);
            }
        }
    }
}
