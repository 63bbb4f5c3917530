//! Takes the password out of a URL before anything parses it that would keep copies of it which nobody wipes.

use std::str::Utf8Error;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The URL without its password, and the password as it is meant: percent-decoded (RFC 3986 §2.1). An empty one is none.
///
/// # Errors
/// The password is no text.
pub(super) fn taken(url: &str) -> Result<(Zeroizing<String>, Option<SecretString>), Utf8Error> {
    let Some((before, password, after)) = split(url) else {
        return Ok((Zeroizing::new(url.to_owned()), None));
    };
    let decoded = percent_decode_str(password).decode_utf8().map(|text| match text {
        std::borrow::Cow::Borrowed(text) => Zeroizing::new(text.to_owned()),
        std::borrow::Cow::Owned(text) => Zeroizing::new(text),
    })?;
    let rest = Zeroizing::new(format!("{before}{after}"));
    Ok((rest, (!decoded.is_empty()).then(|| SecretString::from(decoded.as_str()))))
}

/// What stands before the password with its colon, the password, and what follows from the `@` on. The authority ends as
/// RFC 3986 §3.2 says; within it, the last `@` counts, and the first colon before that.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let authority = url.find("://")? + "://".len();
    let length = url.get(authority..)?.find(['/', '?', '#']);
    let end = length.map_or(url.len(), |length| authority + length);
    let at = authority + url.get(authority..end)?.rfind('@')?;
    let colon = authority + url.get(authority..at)?.find(':')?;
    Some((url.get(..colon)?, url.get(colon + 1..at)?, url.get(at..)?))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::taken;

    #[test]
    fn a_password_is_taken_out_as_it_is_meant() {
        let cases = [
            ("redis://host:1/0", "redis://host:1/0", None),
            ("redis://user@host", "redis://user@host", None),
            ("redis://user:@host", "redis://user@host", None),
            ("redis://:pass@host:1/2", "redis://@host:1/2", Some("pass")),
            ("redis://user:p:a%40ss@host", "redis://user@host", Some("p:a@ss")),
            ("redis://user:p@ss@[::1]:2/0", "redis://user@[::1]:2/0", Some("p@ss")),
            ("redis://host/a:b@c", "redis://host/a:b@c", None),
            ("host:pass@", "host:pass@", None),
        ];
        for (url, rest, password) in cases {
            let (left, found) = taken(url).unwrap();
            assert_eq!(left.as_str(), rest, "{url}");
            assert_eq!(found.as_ref().map(ExposeSecret::expose_secret), password, "{url}");
        }
        assert!(taken("redis://:%ff@host").is_err());
    }
}
