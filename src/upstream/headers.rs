//! The head of a request to the backend, built anew from that of the copy (DESIGN.md §9).
//!
//! Pure. A field that the gateway answers for is written by the gateway and by nobody else; fields that belong to one
//! connection end with it (RFC 9110, §7.6.1); all others pass unchanged and in order.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TE, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT, VIA,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use super::forwarding::{add_forwarding, join, joined};
use super::options::{HostPolicy, Options, PathPolicy};
use super::scribe::Scribe;
use super::{BuildError, Forward, Peer};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ONCEHOOK_ATTEMPT: HeaderName = HeaderName::from_static("oncehook-attempt");
const ONCEHOOK_POSSIBLE_DUPLICATE: HeaderName =
    HeaderName::from_static("oncehook-possible-duplicate");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How a head is built for one backend: what does not change from request to request is made once.
pub(super) struct HeadRules {
    host: Host,
    path: Path,
    via: String,
    /// The gateway's element of `Via`, for each version that a request may have.
    via_elements: [(Version, HeaderValue); 5],
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
        let element = |version, number: &str| {
            let value = HeaderValue::try_from(format!("{number} {via}"));
            value.map(|value| (version, value)).map_err(|_| BuildError::Via { name: via.clone() })
        };
        let via_elements = [
            element(Version::HTTP_11, "1.1")?,
            element(Version::HTTP_2, "2.0")?,
            element(Version::HTTP_10, "1.0")?,
            element(Version::HTTP_09, "0.9")?,
            element(Version::HTTP_3, "3.0")?,
        ];
        Ok(Self { host, path, via: via.clone(), via_elements })
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
        let mut scribe = Scribe::new();
        let mut head = self.carry(forward.head, forward.peer, Purpose::Webhook, &mut scribe);
        scribe.text(X_REQUEST_ID, forward.request_id);
        scribe.hex(IDEMPOTENCY_KEY, forward.key.0);
        scribe.number(ONCEHOOK_ATTEMPT, forward.attempt);
        scribe.number(CONTENT_LENGTH, forward.body.len());
        scribe.finish(&mut head);
        if forward.possible_duplicate {
            head.insert(ONCEHOOK_POSSIBLE_DUPLICATE, HeaderValue::from_static("1"));
        }
        head
    }

    /// The head of a request that is none of the gateway's business.
    pub(super) fn relayed(&self, sender: &Parts, peer: &Peer, request_id: &str) -> HeaderMap {
        let mut scribe = Scribe::new();
        let mut head = self.carry(sender, peer, Purpose::Relay, &mut scribe);
        scribe.text(X_REQUEST_ID, request_id);
        scribe.finish(&mut head);
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

    /// What the sender's head gives, and what is said of the sender. What `scribe` has of it, it writes at its end.
    fn carry(
        &self,
        sender: &Parts,
        peer: &Peer,
        purpose: Purpose,
        scribe: &mut Scribe,
    ) -> HeaderMap {
        // Room for the ten fields that are written at most.
        let mut head = HeaderMap::with_capacity(sender.headers.len() + 10);
        let asked = asked_host(sender);
        let host = match &self.host {
            Host::Fixed(host) => host,
            Host::KeepOr(own) => asked.as_ref().unwrap_or(own),
        };
        head.insert(HOST, host.clone());
        copy(&sender.headers, &mut head, purpose);
        add_forwarding(&mut head, scribe, &sender.headers, peer, asked.as_ref());
        if let Some((_, element)) =
            self.via_elements.iter().find(|(version, _)| *version == sender.version)
        {
            let value = joined(&sender.headers, &VIA, element.as_bytes());
            head.insert(VIA, value.unwrap_or_else(|| element.clone()));
        }
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
    // Names are short: byte by byte is quicker than what searches long texts.
    if !name.bytes().any(|byte| byte == b'_') {
        return false;
    }
    let twin = name.replace('_', "-");
    is_written(&twin, purpose)
        || headers.contains_key(&twin)
        || is_hop_by_hop(&twin)
        || twin == "content-length"
}

/// Copies what passes; the values of one name stand together.
fn copy(from: &HeaderMap, to: &mut HeaderMap, purpose: Purpose) {
    let named = connection_options(from);
    let mut last = None;
    for (name, value) in from {
        let passed = match last {
            Some((before, passed)) if before == name => passed,
            Some(_) | None => passes(name, from, &named, purpose),
        };
        let is_first = last.replace((name, passed)).is_none_or(|(before, _)| before != name);
        if !passed {
            continue;
        }
        if name != COOKIE {
            to.append(name.clone(), value.clone());
        } else if is_first {
            // HTTP/2 may split a cookie over several fields; HTTP/1 may not (RFC 9113, §8.2.3).
            let parts = from.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes);
            to.extend(join(parts, b"; ").map(|whole| (COOKIE, whole)));
        }
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
