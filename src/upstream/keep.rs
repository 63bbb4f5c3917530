//! How long a connection may be kept after an answer, by what the answer says.
//!
//! Pure. Whether the backend keeps its word is left to `pool`.

use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, Response, Version};

/// How much earlier than the backend's `Keep-Alive: timeout` a connection is dropped.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How long the backend lets a connection be kept, by what it says: not at all after `Connection: close`, which an
/// HTTP/1.0 answer means without saying it (RFC 9112, §9.3).
pub(super) fn time_to_keep<B>(response: &Response<B>) -> Duration {
    let persistent = response.version() == Version::HTTP_11;
    let options =
        response.headers().get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut options = options.flat_map(|value| value.split(',')).map(str::trim);
    let kept = if persistent {
        !options.any(|option| option.eq_ignore_ascii_case("close"))
    } else {
        options.any(|option| option.eq_ignore_ascii_case("keep-alive"))
    };
    match keep_alive_timeout(response.headers()) {
        _ if !kept => Duration::ZERO,
        Some(promise) => promise.saturating_sub(KEEP_ALIVE_MARGIN),
        None => Duration::MAX,
    }
}

/// The `timeout` of a `Keep-Alive` field, in seconds (RFC 2068, §19.7.1.1; Node, gunicorn and Apache send it).
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(&KEEP_ALIVE)?.to_str().ok()?;
    value.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keep_alive_timeout_is_read_as_node_gunicorn_and_apache_write_it() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", http::HeaderValue::from_static(value));
            keep_alive_timeout(&headers)
        };
        assert_eq!(read("timeout=5"), Some(Duration::from_secs(5)));
        assert_eq!(read("timeout=5, max=100"), Some(Duration::from_secs(5)));
        assert_eq!(read("max=100, Timeout = 2"), Some(Duration::from_secs(2)));
        for garbage in ["", "300", "timeout", "timeout=", "timeout=-1", "timeout=soon"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_connection_is_kept_for_as_long_as_the_answer_lets_it() {
        let kept = |version: Version, fields: &[(&str, &str)]| {
            let response = Response::builder().version(version);
            let response = fields
                .iter()
                .fold(response, |response, (name, value)| response.header(*name, *value));
            time_to_keep(&response.body(()).unwrap())
        };
        assert_eq!(kept(Version::HTTP_11, &[]), Duration::MAX);
        assert_eq!(
            kept(Version::HTTP_11, &[("connection", "x, Close"), ("keep-alive", "timeout=5")]),
            Duration::ZERO
        );
        assert_eq!(kept(Version::HTTP_11, &[("keep-alive", "timeout=5")]), Duration::from_secs(4));
        assert_eq!(kept(Version::HTTP_11, &[("keep-alive", "timeout=1")]), Duration::ZERO);
        assert_eq!(kept(Version::HTTP_10, &[]), Duration::ZERO);
        assert_eq!(kept(Version::HTTP_10, &[("connection", "keep-alive")]), Duration::MAX);
    }
}
