//! A captured request, as `oncehook verify` is given one: a JSON line or a raw HTTP/1.1 dump.

use anyhow::Context;
use serde::Deserialize;

/// What was captured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Capture {
    /// The value of `Authorization`.
    pub(super) authorization: String,
    /// The body, byte for byte.
    #[serde(deserialize_with = "bytes")]
    pub(super) body: Vec<u8>,
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

impl Capture {
    /// Reads a capture: the `line`-th JSON object (from 1) if it begins with a brace, else an HTTP request.
    pub(super) fn parse(bytes: &[u8], line: usize) -> anyhow::Result<Self> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            let lines = bytes.split(|byte| *byte == b'\n');
            let mut lines = lines.filter(|line| !line.trim_ascii().is_empty());
            let json = line.checked_sub(1).and_then(|before| lines.nth(before));
            let json = json.with_context(|| format!("there is no line {line}"))?;
            return serde_json::from_slice(json)
                .with_context(|| format!("line {line} is no captured request"));
        }
        Self::http(bytes).context("neither a JSON line nor an HTTP request")
    }

    fn http(bytes: &[u8]) -> anyhow::Result<Self> {
        let (head, body) = split_head(bytes).context("there is no empty line after the header")?;
        let head = str::from_utf8(head).context("the header is not UTF-8")?;
        let field = |wanted: &str| {
            let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            fields
                .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim())
        };
        anyhow::ensure!(
            field("transfer-encoding").is_none(),
            "the body is chunked; hint: save it without the chunk sizes, and use --authorization and --body"
        );
        let body = match field("content-length") {
            Some(length) => {
                let length: usize = length.parse().context("Content-Length is no number")?;
                body.get(..length).with_context(|| {
                    format!("the body has {} of the {length} bytes of Content-Length", body.len())
                })?
            }
            None => body,
        };
        let authorization = field("authorization").unwrap_or_default().to_owned();
        Ok(Self { authorization, body: body.to_vec() })
    }
}

fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = [b"\r\n\r\n".as_slice(), b"\n\n"];
    let found = ends.iter().filter_map(|end| {
        let at = bytes.windows(end.len()).position(|window| window == *end)?;
        let (head, rest) = bytes.split_at(at);
        Some((head, rest.get(end.len()..)?))
    });
    found.min_by_key(|(head, _)| head.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_file_is_a_capture() {
        let lines = b"{\"authorization\":\"a.b.c\",\"body\":\"{\\n}\",\"user_agent\":\"x\"}\n\n{\"authorization\":\"d\",\"body\":\"\"}\n";
        let first = Capture::parse(lines, 1).unwrap();
        assert_eq!((first.authorization.as_str(), first.body.as_slice()), ("a.b.c", &b"{\n}"[..]));
        assert_eq!(Capture::parse(lines, 2).unwrap().authorization, "d");
        assert_eq!(Capture::parse(lines, 3).unwrap_err().to_string(), "there is no line 3");
        assert_eq!(Capture::parse(lines, 0).unwrap_err().to_string(), "there is no line 0");
    }

    #[test]
    fn a_dump_is_a_capture_and_what_follows_its_length_is_not_its_body() {
        let dump =
            b"POST / HTTP/1.1\r\nauthorization: a.b.c\r\nContent-Length: 4\r\n\r\n{\n\n}trailing";
        let capture = Capture::parse(dump, 1).unwrap();
        assert_eq!(
            (capture.authorization.as_str(), capture.body.as_slice()),
            ("a.b.c", &b"{\n\n}"[..])
        );
        let bare = Capture::parse(b"POST / HTTP/1.1\nAuthorization: x\n\nbody\n", 1).unwrap();
        assert_eq!(bare.body, b"body\n");
        let short = Capture::parse(b"POST / HTTP/1.1\nContent-Length: 9\n\nbody", 1).unwrap_err();
        assert_eq!(
            format!("{short:#}"),
            "neither a JSON line nor an HTTP request: the body has 4 of the 9 bytes of Content-Length"
        );
    }
}
