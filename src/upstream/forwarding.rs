//! What the backend is told of the other end of the inbound connection: `Forwarded` and `X-Forwarded-*`, rebuilt unless
//! a trusted proxy wrote them.

use std::ops::Range;

use bytes::Bytes;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Peer;
use super::scribe::Scribe;
use crate::text;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// `X-Forwarded-For`, `-Proto`, `-Host`, and `Forwarded` (RFC 7239).
pub(super) fn add_forwarding(
    head: &mut HeaderMap,
    scribe: &mut Scribe,
    sender: &HeaderMap,
    peer: &Peer,
    host: Option<&HeaderValue>,
) {
    let believed = peer.trusted.then_some(sender);
    let scheme = if peer.tls { "https" } else { "http" };
    let spoken = |name| believed.and_then(|believed| believed.get(name));
    let proto = spoken(X_FORWARDED_PROTO).cloned();
    head.insert(X_FORWARDED_PROTO, proto.unwrap_or_else(|| HeaderValue::from_static(scheme)));
    if let Some(host) = spoken(X_FORWARDED_HOST).or(host) {
        head.insert(X_FORWARDED_HOST, host.clone());
    }
    let (element, address) = forwarded_element(scribe, peer, host, scheme);
    let Some(believed) = believed else {
        scribe.written(FORWARDED, element);
        return scribe.written(X_FORWARDED_FOR, address);
    };
    for (name, value) in believed.iter().filter(|(name, _)| is_other_forwarding(name.as_str())) {
        head.append(name.clone(), value.clone());
    }
    for (name, written) in [(FORWARDED, element), (X_FORWARDED_FOR, address)] {
        match joined(believed, &name, scribe.bytes(&written)) {
            Some(value) => drop(head.insert(name, value)),
            None => scribe.written(name, written),
        }
    }
}

/// Where this gateway's element of `Forwarded` stands, and the address within it.
fn forwarded_element(
    scribe: &mut Scribe,
    peer: &Peer,
    host: Option<&HeaderValue>,
    scheme: &str,
) -> (Range<usize>, Range<usize>) {
    let address = peer.address.ip().to_canonical();
    let mut place = 0..0;
    let element = scribe.write(|text| {
        text.push_str(if address.is_ipv6() { "for=\"[" } else { "for=" });
        place.start = text.len();
        text::push_ip(text, address);
        place.end = text.len();
        text.push_str(if address.is_ipv6() { "]\"" } else { "" });
        let host = host.and_then(|host| host.to_str().ok());
        if let Some(host) = host.filter(|host| !host.contains(['"', '\\'])) {
            // Quoted, as a port's colon may not stand in a token.
            text.push_str(";host=\"");
            text.push_str(host);
            text.push('"');
        }
        text.push_str(";proto=");
        text.push_str(scheme);
    });
    (element, place)
}

/// What else a trusted proxy says of its peer: `X-Forwarded-Port`, `-Prefix`, `-Server`, `X-Real-IP` …
fn is_other_forwarding(name: &str) -> bool {
    name == "x-real-ip"
        || (name.starts_with("x-forwarded-")
            && !matches!(name, "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host"))
}

/// What `before` has of a list field, and one element more; `None` if it has nothing.
pub(super) fn joined(before: &HeaderMap, name: &HeaderName, element: &[u8]) -> Option<HeaderValue> {
    let values = before.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let mut values = values.filter(|value| !value.is_empty()).peekable();
    values.peek()?;
    join(values.chain([element]), b", ")
}

/// Values and a separator, as one value.
pub(super) fn join<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    separator: &[u8],
) -> Option<HeaderValue> {
    let mut joined = Vec::new();
    for part in parts {
        if !joined.is_empty() {
            joined.extend_from_slice(separator);
        }
        joined.extend_from_slice(part);
    }
    // Valid values and a separator make a valid value.
    HeaderValue::from_maybe_shared(Bytes::from(joined)).ok()
}
