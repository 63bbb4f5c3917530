//! What an answer of the backend means to the claim protocol (DESIGN.md §5, "Outcome of a forward").
//!
//! Pure. What the absence of an answer means is left to [`ForwardError::outcome`](super::ForwardError::outcome).

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::claim::exchange::Outcome;

use super::BuildError;

/// The 4xx statuses by which a backend refuses an event for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedStatuses(Vec<u16>);

impl RefusedStatuses {
    /// Checks that each is a 4xx and none is 429, which always means "later".
    pub(super) fn new(statuses: &[u16]) -> Result<Self, BuildError> {
        match statuses.iter().find(|&&status| !(400..500).contains(&status) || status == 429) {
            Some(&status) => Err(BuildError::RefusedStatus { status }),
            None => Ok(Self(statuses.to_vec())),
        }
    }

    fn contains(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

/// What the head of an answer means.
///
/// A 4xx that is neither on the list nor known to mean a wrong set-up (402, 406, 418, 451 …) counts as one all the
/// same. `LiveKit` takes every 4xx but 429 for success, so that "refused for good" loses the event, and "misconfigured"
/// (502) only makes the sender try again; an operator who wants the loss can put the status on the list. A status
/// outside 200–599 is no answer that HTTP knows (RFC 9110, §15).
pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    refused: &RefusedStatuses,
) -> Outcome {
    match status.as_u16() {
        code @ 200..=299 => Outcome::Delivered(code),
        code @ (429 | 503) => {
            Outcome::Overloaded { status: code, retry_after: retry_after(headers) }
        }
        code @ 400..=499 if refused.contains(code) => Outcome::Refused(code),
        code @ 400..=499 => Outcome::Misconfigured(code),
        code @ (300..=399 | 500..=599) => Outcome::Failed(Some(code)),
        _ => Outcome::Failed(None),
    }
}

/// The pause that an answer asks for: `Retry-After`, as seconds or as a date (RFC 9110, §10.2.3).
///
/// A date is measured against the answer's own `Date`, so that the backend's clock need not agree with this one's; a
/// date without a `Date`, and anything that cannot be read, asks for nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit is a wish for very long; the gateway clamps it.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = headers.get(DATE).map(HeaderValue::to_str)?.ok()?;
    let sent = httpdate::parse_http_date(sent.trim()).ok()?;
    Some(until.duration_since(sent).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: [u16; 8] = [400, 409, 410, 411, 413, 414, 415, 422];

    fn outcome(status: u16) -> Outcome {
        let refused = RefusedStatuses::new(&DEFAULT).unwrap();
        classify(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &refused)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn every_status_means_what_the_table_says() {
        for status in 100..=999 {
            let expected = match status {
                200..=299 => Outcome::Delivered(status),
                429 | 503 => Outcome::Overloaded { status, retry_after: None },
                _ if DEFAULT.contains(&status) => Outcome::Refused(status),
                400..=499 => Outcome::Misconfigured(status),
                300..=399 | 500..=599 => Outcome::Failed(Some(status)),
                _ => Outcome::Failed(None),
            };
            assert_eq!(outcome(status), expected, "{status}");
        }
    }

    #[test]
    fn the_operators_list_decides_which_4xx_is_final() {
        let refused = RefusedStatuses::new(&[401, 451]).unwrap();
        let outcome =
            |code| classify(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), &refused);
        assert_eq!(outcome(401), Outcome::Refused(401));
        assert_eq!(outcome(451), Outcome::Refused(451));
        assert_eq!(outcome(400), Outcome::Misconfigured(400));
    }

    #[test]
    fn a_list_with_429_or_another_class_is_refused() {
        for status in [429, 200, 301, 500, 399] {
            assert!(RefusedStatuses::new(&[400, status]).is_err(), "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds() {
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers(&[("retry-after", " 0 ")])), Some(Duration::ZERO));
        let endless = headers(&[("retry-after", "99999999999999999999999")]);
        assert_eq!(retry_after(&endless), Some(Duration::from_secs(u64::from(u32::MAX))));
    }

    #[test]
    fn retry_after_is_read_as_a_date_by_the_backends_own_clock() {
        let later = [
            ("date", "Fri, 06 Nov 2026 10:00:00 GMT"),
            ("retry-after", "Fri, 06 Nov 2026 10:00:04 GMT"),
        ];
        assert_eq!(retry_after(&headers(&later)), Some(Duration::from_secs(4)));
        let past = [
            ("date", "Fri, 06 Nov 2026 10:00:00 GMT"),
            ("retry-after", "Fri, 06 Nov 2026 09:00:00 GMT"),
        ];
        assert_eq!(retry_after(&headers(&past)), Some(Duration::ZERO));
    }

    #[test]
    fn a_retry_after_that_cannot_be_read_asks_for_nothing() {
        for garbage in ["", "-1", "+1", "1.5", "soon", "1, 2", "Fri, 06 Nov 2026 10:00:04 GMT"] {
            assert_eq!(retry_after(&headers(&[("retry-after", garbage)])), None, "{garbage}");
        }
    }
}
