//! The head of a request to the backend, built anew from that of the copy (DESIGN.md §9).
//!
//! Pure. A field that the gateway answers for is written by the gateway and by nobody else; fields that belong to one
//! connection end with it (RFC 9110, §7.6.1); all others pass unchanged and in order.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, FORWARDED, HOST, TE,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT, VIA,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::options::{HostPolicy, Options, PathPolicy};
use super::{BuildError, Forward, Peer};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ONCEHOOK_ATTEMPT: HeaderName = HeaderName::from_static("oncehook-attempt");
const ONCEHOOK_POSSIBLE_DUPLICATE: HeaderName =
    HeaderName::from_static("oncehook-possible-duplicate");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How a head is built for one backend: what does not change from request to request is made once.
pub(super) struct HeadRules {
    host: Host,
    path: Path,
    via: String,
}

enum Host {
    Fixed(HeaderValue),
    /// The sender's; this if it named none, as HTTP/1.0 allows.
    KeepOr(HeaderValue),
}

enum Path {
    Fixed(Uri),
    /// The sender's, behind this; empty for none.
    Behind(String),
}

impl HeadRules {
    pub(super) fn new(options: &Options) -> Result<Self, BuildError> {
        let target = &options.target;
        let host = match &options.host {
            HostPolicy::Keep => Host::KeepOr(host_of(target)?),
            HostPolicy::Fixed(value) => Host::Fixed(value.clone()),
            HostPolicy::Backend => Host::Fixed(host_of(target)?),
        };
        let path = match options.path {
            PathPolicy::Target => Path::Fixed(Uri::from(path_and_query(target))),
            PathPolicy::Sender => Path::Behind(target.path().trim_end_matches('/').to_owned()),
        };
        let via = &options.via;
        if via.is_empty()
            || !via.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            return Err(BuildError::Via { name: via.clone() });
        }
        Ok(Self { host, path, via: via.clone() })
    }

    pub(super) fn via(&self) -> &str {
        &self.via
    }

    /// What to ask for; in origin form (RFC 9112, §3.2.1).
    pub(super) fn uri(&self, sender: &Uri) -> Uri {
        match &self.path {
            Path::Fixed(uri) => uri.clone(),
            Path::Behind(base) if base.is_empty() => Uri::from(path_and_query(sender)),
            Path::Behind(base) => {
                let joined = format!("{base}{}", path_and_query(sender));
                // Two valid paths make a valid one, unless it grew too long: then the backend may say so.
                Uri::try_from(joined).unwrap_or_else(|_| Uri::from(path_and_query(sender)))
            }
        }
    }

    /// The head of a forward.
    pub(super) fn webhook(&self, forward: &Forward<'_>) -> HeaderMap {
        let mut head = self.carry(forward.head, forward.peer, Purpose::Webhook);
        put(&mut head, X_REQUEST_ID, forward.request_id);
        put(&mut head, IDEMPOTENCY_KEY, &forward.key.to_string());
        head.insert(ONCEHOOK_ATTEMPT, HeaderValue::from(forward.attempt));
        if forward.possible_duplicate {
            head.insert(ONCEHOOK_POSSIBLE_DUPLICATE, HeaderValue::from_static("1"));
        }
        head.insert(CONTENT_LENGTH, HeaderValue::from(forward.body.len()));
        head
    }

    /// The head of a request that is none of the gateway's business.
    pub(super) fn relayed(&self, sender: &Parts, peer: &Peer, request_id: &str) -> HeaderMap {
        let mut head = self.carry(sender, peer, Purpose::Relay);
        put(&mut head, X_REQUEST_ID, request_id);
        if sender.headers.contains_key(TRANSFER_ENCODING) {
            // It overrides a length, which then must not be passed on (RFC 9112, §6.3).
            head.remove(CONTENT_LENGTH);
        }
        if let Some(protocol) = upgrade_wanted(sender) {
            head.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.insert(UPGRADE, protocol);
        } else if takes_trailers(&sender.headers) {
            head.insert(CONNECTION, HeaderValue::from_static("te"));
            head.insert(TE, HeaderValue::from_static("trailers"));
        }
        head
    }

    fn carry(&self, sender: &Parts, peer: &Peer, purpose: Purpose) -> HeaderMap {
        // Room for the eight fields that are written at most.
        let mut head = HeaderMap::with_capacity(sender.headers.len() + 8);
        let asked = asked_host(sender);
        let host = match &self.host {
            Host::Fixed(host) => host,
            Host::KeepOr(own) => asked.as_ref().unwrap_or(own),
        };
        head.insert(HOST, host.clone());
        let named = connection_options(&sender.headers);
        for name in sender.headers.keys() {
            if passes(name, &sender.headers, &named, purpose) {
                copy(name, &sender.headers, &mut head);
            }
        }
        add_forwarding(&mut head, &sender.headers, peer, asked.as_ref());
        let version = match sender.version {
            Version::HTTP_09 => "0.9",
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2.0",
            Version::HTTP_3 => "3.0",
            _ => "1.1",
        };
        append(&mut head, &VIA, &sender.headers, &format!("{version} {}", self.via));
        head
    }
}

/// What a head is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Webhook,
    Relay,
}

/// Whether `name` has been through a gateway of this name already: a loop (RFC 9110, §7.6.3).
pub fn via_seen(headers: &HeaderMap, name: &str) -> bool {
    let hops = headers
        .get_all(VIA)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','));
    hops.filter_map(|hop| hop.split_ascii_whitespace().nth(1))
        .any(|by| by.eq_ignore_ascii_case(name))
}

/// Whether a webhook has a field that [`is_twin`] of another.
pub fn twin_seen(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_twin(name.as_str(), headers, Purpose::Webhook))
}

/// Takes out of an answer's head what ends with the connection (RFC 9110, §7.6.1).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = connection_options(headers).into_iter().map(str::to_owned).collect();
    if headers.contains_key(TRANSFER_ENCODING) {
        // It overrides a length, which then must not be passed on (RFC 9112, §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    for name in HOP_BY_HOP.iter().copied().chain(named.iter().map(String::as_str)) {
        headers.remove(name);
    }
}

/// The protocol that a request wants to change to, if it really asks (RFC 9110, §7.8).
///
/// One protocol, and no other HTTP: behind a change to `h2c` the backend's own streams would be out of the gateway's
/// sight (RFC 9113 has dropped it). And no body: some backends change the protocol before it, some behind it
/// (CVE-2026-58055). Such a wish is ignored, as any may be.
pub fn upgrade_wanted(sender: &Parts) -> Option<HeaderValue> {
    let asked = connection_options(&sender.headers)
        .iter()
        .any(|option| option.eq_ignore_ascii_case("upgrade"));
    let mut protocols = sender.headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return None };
    let name = protocol.to_str().ok()?.to_ascii_lowercase();
    let takes_over = name.contains(',')
        || ["h2", "http", "tls"].iter().any(|prefix| name.trim_start().starts_with(prefix));
    let has_body = sender.headers.contains_key(TRANSFER_ENCODING)
        || sender.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let wanted = asked && !takes_over && !has_body && sender.version == Version::HTTP_11;
    wanted.then(|| protocol.clone())
}

/// Whether a client can do with trailers (RFC 9110, §10.1.4): the relay passes them on.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn passes(name: &HeaderName, headers: &HeaderMap, named: &[&str], purpose: Purpose) -> bool {
    if is_hop_by_hop(name.as_str())
        || is_written(name.as_str(), purpose)
        || is_twin(name.as_str(), headers, purpose)
    {
        return false;
    }
    // What the backend verifies arrives, whatever `Connection` says of it.
    [AUTHORIZATION, CONTENT_TYPE, USER_AGENT].contains(name) || !is_named(name, named)
}

/// Fields that end with a connection. `Expect` has been answered by the gateway; `Proxy-*` were meant for it.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

fn is_named(name: &HeaderName, named: &[&str]) -> bool {
    named.iter().any(|option| name.as_str().eq_ignore_ascii_case(option))
}

fn connection_options(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|option| !option.is_empty())
        .collect()
}

/// Fields that the gateway writes, or that must not come from anybody else.
///
/// `X-Real-IP` is not written, but is a claim about the peer that nobody has checked; `X-Forwarded-For` says it.
fn is_written(name: &str, purpose: Purpose) -> bool {
    matches!(name, "host" | "via" | "forwarded" | "x-real-ip" | "x-request-id")
        || name.starts_with("x-forwarded-")
        || name.starts_with("oncehook-")
        || (purpose == Purpose::Webhook
            && matches!(name, "content-length" | "idempotency-key" | "trailer"))
}

/// Whether a name is that of another field with `_` for `-`.
///
/// CGI and WSGI servers cannot tell the two apart, so that `x_forwarded_for` would speak for `X-Forwarded-For`. Dropped
/// where the other field is the gateway's, is sent too, or ends with the connection; other names with `_` pass.
fn is_twin(name: &str, headers: &HeaderMap, purpose: Purpose) -> bool {
    if !name.contains('_') {
        return false;
    }
    let twin = name.replace('_', "-");
    is_written(&twin, purpose)
        || headers.contains_key(&twin)
        || is_hop_by_hop(&twin)
        || twin == "content-length"
}

fn copy(name: &HeaderName, from: &HeaderMap, to: &mut HeaderMap) {
    let values = from.get_all(name);
    if name == COOKIE {
        // HTTP/2 may split a cookie over several fields; HTTP/1 may not (RFC 9113, §8.2.3).
        return join(to, name.clone(), values.iter().map(HeaderValue::as_bytes), b"; ");
    }
    for value in values {
        to.append(name.clone(), value.clone());
    }
}

/// `X-Forwarded-For`, `-Proto`, `-Host`, and `Forwarded` (RFC 7239).
fn add_forwarding(
    head: &mut HeaderMap,
    sender: &HeaderMap,
    peer: &Peer,
    host: Option<&HeaderValue>,
) {
    let nobody = HeaderMap::new();
    let believed = if peer.trusted { sender } else { &nobody };
    let address = peer.address.ip().to_canonical();
    let scheme = if peer.tls { "https" } else { "http" };
    append(head, &X_FORWARDED_FOR, believed, &address.to_string());
    match believed.get(X_FORWARDED_PROTO) {
        Some(first) => head.insert(X_FORWARDED_PROTO, first.clone()),
        None => head.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme)),
    };
    if let Some(host) = believed.get(X_FORWARDED_HOST).or(host) {
        head.insert(X_FORWARDED_HOST, host.clone());
    }
    for (name, value) in believed.iter().filter(|(name, _)| is_other_forwarding(name.as_str())) {
        head.append(name.clone(), value.clone());
    }
    let mut element =
        if address.is_ipv6() { format!("for=\"[{address}]\"") } else { format!("for={address}") };
    if let Some(host) =
        host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']))
    {
        // Quoted, as a port's colon may not stand in a token.
        element.push_str(";host=\"");
        element.push_str(host);
        element.push('"');
    }
    element.push_str(";proto=");
    element.push_str(scheme);
    append(head, &FORWARDED, believed, &element);
}

/// What else a trusted proxy says of its peer: `X-Forwarded-Port`, `-Prefix`, `-Server`, `X-Real-IP` …
fn is_other_forwarding(name: &str) -> bool {
    name == "x-real-ip"
        || (name.starts_with("x-forwarded-")
            && !matches!(name, "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host"))
}

/// Writes what `believed` has of a list field, and one element more.
fn append(head: &mut HeaderMap, name: &HeaderName, believed: &HeaderMap, element: &str) {
    let before = believed
        .get_all(name)
        .into_iter()
        .map(HeaderValue::as_bytes)
        .filter(|value| !value.is_empty());
    join(head, name.clone(), before.chain([element.as_bytes()]), b", ");
}

fn join<'a>(
    head: &mut HeaderMap,
    name: HeaderName,
    parts: impl Iterator<Item = &'a [u8]>,
    separator: &[u8],
) {
    let mut joined = Vec::new();
    for part in parts {
        if !joined.is_empty() {
            joined.extend_from_slice(separator);
        }
        joined.extend_from_slice(part);
    }
    // Valid values and a separator make a valid value.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        head.insert(name, value);
    }
}

/// The host that the sender asked for: `:authority` over HTTP/2 and in absolute form, else `Host`
/// (RFC 9113, §8.3.1; RFC 9112, §3.2.2).
fn asked_host(sender: &Parts) -> Option<HeaderValue> {
    match sender.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => sender.headers.get(HOST).cloned(),
    }
}

fn host_of(target: &Uri) -> Result<HeaderValue, BuildError> {
    let fault = || BuildError::Target { target: target.to_string(), problem: "has no host" };
    let authority = target.authority().ok_or_else(fault)?;
    let own = matches!(
        (target.scheme_str(), authority.port_u16()),
        (Some("http"), Some(80)) | (Some("https"), Some(443))
    );
    let host = if own { authority.host() } else { authority.as_str() };
    HeaderValue::from_str(host).map_err(|_| fault())
}

fn path_and_query(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn put(head: &mut HeaderMap, name: HeaderName, value: &str) {
    // A value that cannot stand in a head is left out rather than altered.
    if let Ok(value) = HeaderValue::from_str(value) {
        head.insert(name, value);
    }
}
