//! What an HTTP/2 request's head must be besides what h2 makes sure of (RFC 9113 §8.2, §8.3): one authority, the scheme
//! of the connection, a path, plain lengths.
//!
//! h2 resets what it finds malformed: names in upper case, connection-specific fields, `te` other than `trailers`,
//! missing, repeated or late pseudo-headers, extended CONNECT, a length that is not the body's. hyper passes on the
//! rest. HTTP/1.1 has checks of its own.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use http_body::Body;
use http_body_util::BodyExt as _;

use super::form;
use crate::telemetry::labels::Malformed;

/// How long the rest of a refused body may take …
const OUTLASTED_FOR: Duration = Duration::from_millis(50);
/// … and how long it may be: what a stream's window lets through at once is more than any refusal is worth.
const OUTLASTED_BYTES_MAX: usize = 64 * 1024;

/// Looks at a request's head before anybody serves it, webhook or not. `tls` says how the connection is protected,
/// `fields_max` how many fields a head may have. HTTP/1.1 passes.
///
/// A `:scheme` without an `:authority` beside it is dropped by h2, and is not seen here; nothing depends on it.
pub fn check(head: &Parts, tls: bool, fields_max: usize) -> Result<(), Malformed> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Malformed::MethodUnserved);
    }
    if head.headers.len() > fields_max {
        return Err(Malformed::TooManyFields);
    }
    scheme(head, tls)?;
    authority(&head.uri, &head.headers)?;
    // h2 drops a fragment, and lets pass what no slash begins.
    let path = head.uri.path();
    let is_of_the_server = path == "*" && head.method == Method::OPTIONS;
    if !is_of_the_server && !path.starts_with('/') {
        return Err(Malformed::TargetForm);
    }
    content_length(&head.headers)?;
    if head.headers.values().any(padded) { Err(Malformed::FieldValue) } else { Ok(()) }
}

/// Lets what is already on its way of a refused request's body arrive, and throws it away: an answer that overtakes it
/// is followed by a reset, and hides what may still be wrong with it (RFC 9113 §8.1). Other versions' bodies are hyper's
/// affair.
pub async fn outlast<B>(version: Version, body: &mut B)
where
    B: Body<Data = Bytes> + Unpin,
{
    if version != Version::HTTP_2 || body.is_end_stream() {
        return;
    }
    let arriving = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > OUTLASTED_BYTES_MAX {
                return;
            }
        }
    };
    // Whether or not it came to its end, the answer is the same.
    if tokio::time::timeout(OUTLASTED_FOR, arriving).await.is_err() {
        tracing::trace!("a refused request's body is still on its way");
    }
}

fn scheme(head: &Parts, tls: bool) -> Result<(), Malformed> {
    let expected = if tls { "https" } else { "http" };
    match head.uri.scheme_str() {
        Some(scheme) if !scheme.eq_ignore_ascii_case(expected) => Err(Malformed::Scheme),
        Some(_) | None => Ok(()),
    }
}

/// One of the two must be there; of both, they must be the same (RFC 9113 §8.3.1).
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<(), Malformed> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, None) = (hosts.next(), hosts.next()) else { return Err(Malformed::HostRepeated) };
    let host = host.map(|host| host.to_str().map_err(|_| Malformed::HostInvalid)).transpose()?;
    let asked = uri.authority().map(Authority::as_str);
    if !asked.into_iter().chain(host).all(form::is_host_and_port) {
        return Err(Malformed::HostInvalid);
    }
    match (asked, host) {
        (None, None) => Err(Malformed::HostMissing),
        (Some(asked), Some(host)) if !form::same(asked, host, uri.scheme_str()) => {
            Err(Malformed::AuthorityMismatch)
        }
        (Some(_), _) | (None, Some(_)) => Ok(()),
    }
}

/// h2 compares them with the body; that they are numbers, once and without zeros in front, is what HTTP/1.1 backends
/// agree about (RFC 9110 §8.6).
fn content_length(headers: &HeaderMap) -> Result<(), Malformed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next(), lengths.next());
    let plain = first.is_none_or(|length| {
        let digits = length.as_bytes();
        digits.iter().all(u8::is_ascii_digit)
            && !digits.is_empty()
            && (digits.len() == 1 || digits.first() != Some(&b'0'))
    });
    if plain && second.is_none() { Ok(()) } else { Err(Malformed::ContentLength) }
}

/// RFC 9113 §8.2.1: a value neither starts nor ends with white space. Over HTTP/1.1 it would be gone.
fn padded(value: &HeaderValue) -> bool {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    space(value.as_bytes().first()) || space(value.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const TLS: bool = true;

    fn head(uri: &str, fields: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::post(uri).version(Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn found(uri: &str, fields: &[(&'static str, &str)]) -> Result<(), Malformed> {
        check(&head(uri, fields), TLS, 64)
    }

    #[test]
    fn what_senders_send_passes() {
        assert_eq!(found("https://gateway/webhook", &[("content-length", "5")]), Ok(()));
        assert_eq!(found("https://gateway:8443/webhook?a=b", &[("content-length", "0")]), Ok(()));
        assert_eq!(found("https://Gateway/webhook", &[("host", "gateway")]), Ok(()));
        assert_eq!(found("https://gateway/webhook", &[("host", "gateway:443")]), Ok(()));
        assert_eq!(found("https://[::1]:8443/", &[("host", "[::1]:8443")]), Ok(()));
        assert_eq!(found("/webhook", &[("host", "gateway")]), Ok(()));
    }

    #[test]
    fn there_is_one_authority() {
        assert_eq!(found("/webhook", &[]), Err(Malformed::HostMissing));
        for (fields, reason) in [
            (&[("host", "other")][..], Malformed::AuthorityMismatch),
            (&[("host", "gateway:8443")], Malformed::AuthorityMismatch),
            (&[("host", "")], Malformed::HostInvalid),
            (&[("host", "gateway, other")], Malformed::HostInvalid),
            (&[("host", "gateway"), ("host", "gateway")], Malformed::HostRepeated),
        ] {
            let refused = found("https://gateway/webhook", fields);
            assert_eq!(refused, Err(reason), "{fields:?}");
        }
        assert_eq!(found("https://eve@gateway/webhook", &[]), Err(Malformed::HostInvalid));
        assert_eq!(found("/webhook", &[("host", "eve@gateway")]), Err(Malformed::HostInvalid));
    }

    #[test]
    fn the_scheme_is_the_connections() {
        assert_eq!(found("http://gateway/webhook", &[]), Err(Malformed::Scheme));
        assert_eq!(found("ftp://gateway/webhook", &[]), Err(Malformed::Scheme));
        assert_eq!(check(&head("http://gateway/", &[]), false, 64), Ok(()));
    }

    #[test]
    fn lengths_are_one_plain_number() {
        for fields in [
            &[("content-length", "0002")][..],
            &[("content-length", "+2")],
            &[("content-length", "")],
            &[("content-length", "2"), ("content-length", "2")],
        ] {
            let refused = found("https://gateway/webhook", fields);
            assert_eq!(refused, Err(Malformed::ContentLength), "{fields:?}");
        }
    }

    #[test]
    fn values_are_not_padded_and_fields_are_bounded() {
        for value in [" x", "x ", "\tx", " "] {
            let refused = found("https://gateway/webhook", &[("x-a", value)]);
            assert_eq!(refused, Err(Malformed::FieldValue), "{value:?}");
        }
        let many = [("x-a", "1"); 65];
        assert_eq!(found("https://gateway/webhook", &many), Err(Malformed::TooManyFields));
        assert_eq!(found("https://gateway/webhook", &many[..64]), Ok(()));
    }

    #[test]
    fn connect_and_trace_are_refused_and_other_versions_pass() {
        for method in [Method::CONNECT, Method::TRACE] {
            let mut unserved = head("https://gateway/webhook", &[]);
            unserved.method = method;
            assert_eq!(check(&unserved, TLS, 64), Err(Malformed::MethodUnserved));
        }
        let mut older = head("/webhook", &[]);
        older.version = Version::HTTP_11;
        assert_eq!(check(&older, TLS, 64), Ok(()));
    }
}
