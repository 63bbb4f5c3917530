//! Whether a request's form leaves two readers the choice what it means, on any path and in any version of HTTP.
//!
//! Pure. What can only be seen in the bytes of HTTP/1.1 (ends of lines, lengths beside codings) has been judged by
//! `listener`; this judges what is left of it in a parsed head: method, target, `Host`, expectations.

use http::header::{EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use crate::telemetry::labels::Malformed;

/// How often a path is decoded: some backends decode what a proxy before them has decoded.
const DECODINGS_MAX: usize = 3;
/// Where `_` and `-` are one, these would be lengths and codings (CGI, WSGI).
static TWINS: [HeaderName; 2] =
    [HeaderName::from_static("content_length"), HeaderName::from_static("transfer_encoding")];

/// What the connection says about the requests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Plain,
    /// TLS.
    Tls,
}

/// Checks what every request must be.
pub fn check(head: &Parts, transport: Transport, target_bytes_max: usize) -> Result<(), Malformed> {
    method(&head.method)?;
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > target_bytes_max) {
        return Err(Malformed::TargetTooLong);
    }
    // HTTP/2 has pseudo-headers instead, see `http2`.
    if head.version != Version::HTTP_2 {
        target(&head.uri, transport)?;
        host(head)?;
    }
    let headers = &head.headers;
    if TWINS.iter().any(|twin| headers.contains_key(twin)) {
        return Err(Malformed::UnderscoreTwin);
    }
    expectation(headers, head.version)
}

fn method(method: &Method) -> Result<(), Malformed> {
    if *method == Method::POST || *method == Method::GET {
        return Ok(());
    }
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Malformed::MethodUnserved);
    }
    let small = method.as_str().bytes().any(|byte| byte.is_ascii_lowercase());
    if small { Err(Malformed::Method) } else { Ok(()) }
}

fn target(uri: &Uri, transport: Transport) -> Result<(), Malformed> {
    let path_and_query = uri.path_and_query().ok_or(Malformed::TargetForm)?;
    if !path_and_query.as_str().starts_with('/') {
        return Err(Malformed::TargetForm);
    }
    match (uri.scheme_str(), transport) {
        // "https" without TLS: whoever ended TLS in front of us may say so.
        (None | Some("https"), _) | (Some("http"), Transport::Plain) => Ok(()),
        (Some(_), _) => Err(Malformed::Scheme),
    }
}

fn host(head: &Parts) -> Result<(), Malformed> {
    let mut fields = head.headers.get_all(HOST).iter();
    let asked = head.uri.authority().map(http::uri::Authority::as_str);
    let host = match (fields.next(), fields.next()) {
        (Some(_), Some(_)) => return Err(Malformed::HostRepeated),
        (Some(host), None) => Some(valid_host(host)?),
        (None, _) if head.version == Version::HTTP_11 => return Err(Malformed::HostMissing),
        (None, _) => None,
    };
    let Some(asked) = asked else { return Ok(()) };
    if !is_host_and_port(asked) {
        return Err(Malformed::HostInvalid);
    }
    match host {
        Some(host) if !same(asked, host, head.uri.scheme_str()) => {
            Err(Malformed::AuthorityMismatch)
        }
        Some(_) | None => Ok(()),
    }
}

fn valid_host(host: &HeaderValue) -> Result<&str, Malformed> {
    let host = host.to_str().map_err(|_| Malformed::HostInvalid)?;
    if is_host_and_port(host) { Ok(host) } else { Err(Malformed::HostInvalid) }
}

/// One host, and maybe a port (RFC 9110, §7.2). Of the signs that a registered name could have by the letter of RFC 3986
/// only those are taken that names have: a comma would make a list.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let port_is_one =
        port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with(['+', '-']));
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_one = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        }
    };
    port_is_one && host_is_one
}

/// Whether two authorities are one; the scheme's own port may be left out.
pub(super) fn same(one: &str, other: &str, scheme: Option<&str>) -> bool {
    let own = match scheme {
        Some("http") => ":80",
        Some(_) | None => ":443",
    };
    let short = |text: &str| text.strip_suffix(own).unwrap_or(text).to_ascii_lowercase();
    one.eq_ignore_ascii_case(other) || short(one) == short(other)
}

/// Nothing but 100-continue, once; HTTP/1.0 has none (RFC 9110, §10.1.1).
fn expectation(headers: &HeaderMap, version: Version) -> Result<(), Malformed> {
    let mut fields = headers.get_all(EXPECT).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(()),
        (Some(_), _) if version == Version::HTTP_10 => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        (Some(_), _) => Err(Malformed::Expectation),
    }
}

/// What `path` becomes where somebody decodes it, merges slashes, resolves dots and drops parameters; `None` if there is
/// nothing to do. Without a slash at its end.
pub fn plain_path(path: &str) -> Option<String> {
    let dressed = path.contains(['%', '\\', ';']) || path.contains("//") || path.contains("/.");
    if !dressed {
        return None;
    }
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODINGS_MAX {
        if !bytes.contains(&b'%') {
            break;
        }
        bytes = decoded(&bytes);
    }
    // What is written in C ends at a NUL, and lines end at their ends.
    let end = bytes.iter().position(u8::is_ascii_control).unwrap_or(bytes.len());
    bytes.truncate(end);
    let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let text = text.split_once(['?', '#']).map_or(text.as_str(), |(path, _)| path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split_once(';').map_or(segment, |(name, _)| name) {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = if byte == b'%' { digit(at + 1).zip(digit(at + 2)) } else { None };
        let meant = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        decoded.push(meant.unwrap_or(byte));
        at += if meant.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn judged(request: http::request::Builder) -> Result<(), Malformed> {
        check(&request.body(()).unwrap().into_parts().0, Transport::Plain, 100)
    }

    #[test]
    fn a_host_is_one_name_or_address_with_or_without_a_port() {
        for host in ["gateway", "a.b-c", "10.0.0.1:80", "[::1]", "[2001:db8::1]:8443", "GW:65535"] {
            assert!(is_host_and_port(host), "{host}");
        }
        let none = [
            "", ":80", "a,b", "a b", "user@a", "a/b", "a:b", "a:", "a:65536", "a:+1", "::1",
            "[::1", "[a]", "a:80:80", "a\\b", "a?b", "a#b", "\u{e9}",
        ];
        for host in none {
            assert!(!is_host_and_port(host), "{host}");
        }
    }

    #[test]
    fn an_absolute_target_names_the_host_that_host_names() {
        let asked = |target, host| judged(Request::get(target).header("host", host));
        assert_eq!(asked("http://a/webhook", "a"), Ok(()));
        assert_eq!(asked("http://A:80/webhook", "a"), Ok(()));
        assert_eq!(asked("https://a/webhook", "a:443"), Ok(()));
        assert_eq!(asked("http://a/webhook", "b"), Err(Malformed::AuthorityMismatch));
        assert_eq!(asked("http://a:81/webhook", "a"), Err(Malformed::AuthorityMismatch));
        assert_eq!(asked("http://a@b/webhook", "b"), Err(Malformed::HostInvalid));
        assert_eq!(asked("ftp://a/webhook", "a"), Err(Malformed::Scheme));
        let request =
            Request::get("http://a/").header("host", "a").body(()).unwrap().into_parts().0;
        assert_eq!(check(&request, Transport::Tls, 100), Err(Malformed::Scheme));
    }

    #[test]
    fn a_path_in_disguise_is_undressed() {
        let dressed = [
            "//webhook",
            "/./webhook",
            "/a/../webhook",
            "/a/%2e%2E/webhook",
            "/%77ebhook",
            "/%2577ebhook",
            "/webhook;a=b",
            "/webhook%00.png",
            "/webhook%2f",
            "/\\webhook",
            "/a\\..\\webhook",
            "/webhook%3fa",
            "/webhook/.",
            "/..;/webhook",
            "/webhook%0d%0aa",
        ];
        for path in dressed {
            assert_eq!(plain_path(path).as_deref(), Some("/webhook"), "{path}");
        }
        for path in ["/webhook", "/api/rooms", "/webhook/", "/a.b"] {
            assert_eq!(plain_path(path), None, "{path}");
        }
        assert_eq!(plain_path("/%zz%4").as_deref(), Some("/%zz%4"));
    }
}
