//! HTTP as a reader without any leniency sees it, to compare with what the gateway makes of it: what was asked, and what
//! was answered. Nothing of the gateway's own code is used.

/// A complete request of HTTP/1.1.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Where what follows it begins.
    pub end: usize,
    /// It asks for another protocol: one `Upgrade`, named by `Connection`, in HTTP/1.1 (RFC 9110, §7.8) and without a body
    /// (CVE-2026-58055).
    pub upgrade: bool,
}

/// The requests at the begin of `bytes`, up to the first that two readers could read in two ways (RFC 9112: a bare LF or
/// CR, folded lines, white space before a colon, a length twice or beside a coding …) or that is not complete.
pub fn asked(bytes: &[u8]) -> Vec<Asked> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some((length, upgrade)) = request(&bytes[at..]) {
        at += length;
        all.push(Asked { end: at, upgrade });
    }
    all
}

/// How long the first request is, and whether it would change the protocol.
fn request(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let first = line(bytes, &mut at)?;
    let mut parts = first.splitn(3, |byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_plain = is_token(method) && target.iter().all(u8::is_ascii_graphic);
    if !is_plain || target.is_empty() || ![&b"HTTP/1.0"[..], b"HTTP/1.1"].contains(&version) {
        return None;
    }
    let (mut length, mut chunked, mut upgrades, mut is_named) = (None, false, 0, false);
    loop {
        let field = line(bytes, &mut at)?;
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|byte| *byte == b':')?;
        let (name, value) = (field[..colon].to_ascii_lowercase(), field[colon + 1..].trim_ascii());
        if !is_token(&name) || field.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
            return None;
        }
        match name.as_slice() {
            b"content-length" if length.is_some() => return None,
            b"content-length" => length = Some(decimal(value)?),
            b"transfer-encoding" if chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                return None;
            }
            b"transfer-encoding" => chunked = true,
            b"upgrade" => upgrades += 1,
            b"connection" => {
                let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                is_named |= options.any(|option| option.eq_ignore_ascii_case(b"upgrade"));
            }
            _ => {}
        }
    }
    let upgrade =
        upgrades == 1 && is_named && version == b"HTTP/1.1" && !chunked && length.unwrap_or(0) == 0;
    match (length, chunked) {
        (Some(_), true) => return None,
        (_, true) if version == b"HTTP/1.0" => return None,
        (_, true) => chunks(bytes, &mut at)?,
        (length, false) => {
            at = at.checked_add(length.unwrap_or(0)).filter(|end| *end <= bytes.len())?;
        }
    }
    Some((at, upgrade))
}

/// A line that ends with CRLF and has neither sign elsewhere.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let line = rest[..rest.iter().position(|byte| *byte == b'\n')?].strip_suffix(b"\r")?;
    *at += line.len() + 2;
    (!line.contains(&b'\r')).then_some(line)
}

fn chunks(bytes: &[u8], at: &mut usize) -> Option<()> {
    loop {
        let head = line(bytes, at)?;
        let digits = head.split(|byte| b"; \t".contains(byte)).next()?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            while !line(bytes, at)?.is_empty() {}
            return Some(());
        }
        *at = at.checked_add(size)?;
        if !bytes.get(*at..)?.starts_with(b"\r\n") {
            return None;
        }
        *at += 2;
    }
}

fn decimal(value: &[u8]) -> Option<usize> {
    let plain =
        value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || !value.starts_with(b"0"));
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}

fn is_token(name: &[u8]) -> bool {
    let is_sign = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_sign)
}

/// What came back over HTTP/1.1.
#[derive(Debug, Default)]
pub struct Answered {
    /// The final statuses, in order.
    pub statuses: Vec<u16>,
    /// Where a tunnel begins: behind the head of a 101.
    pub tunnel: Option<usize>,
}

/// The answers of HTTP/1.1. No body and no field of an answer has a status line in it, so all are found by theirs.
pub fn answered(bytes: &[u8]) -> Answered {
    let mut found = Answered::default();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 13) {
        let status = rest.strip_prefix(b"HTTP/1.1 ").or_else(|| rest.strip_prefix(b"HTTP/1.0 "));
        let status = status.filter(|rest| rest[3] == b' ').and_then(|rest| decimal(&rest[..3]));
        at += 1;
        match status.and_then(|status| u16::try_from(status).ok()) {
            None | Some(100) => {}
            Some(101) => {
                let end = rest.windows(4).position(|part| part == b"\r\n\r\n");
                found.tunnel = end.map(|end| at - 1 + end + 4);
                break;
            }
            Some(status) => found.statuses.push(status),
        }
    }
    found
}

/// How many streams could have been opened by what was sent over HTTP/2: one for each HEADERS frame.
pub fn streams(bytes: &[u8]) -> usize {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    bytes
        .strip_prefix(preface)
        .map_or(0, |bytes| frames(bytes).filter(|frame| frame.0 == 1).count())
}

/// How many answers of HTTP/2 have the status 200, and how many 206: both stand in the static table (RFC 7541, appendix
/// A), at the begin of a head.
pub fn successes(bytes: &[u8]) -> (usize, usize) {
    let first = |payload: &[u8]| {
        let mut rest = payload;
        // A change of the table's size comes before all fields.
        while let Some((0x20..=0x3f, after)) = rest.split_first().map(|(byte, rest)| (*byte, rest))
        {
            let more = after.iter().take_while(|byte| **byte >= 0x80).count() + 1;
            rest = if rest[0] == 0x3f { after.get(more..).unwrap_or_default() } else { after };
        }
        rest.first().copied()
    };
    let heads: Vec<_> = frames(bytes).filter(|frame| frame.0 == 1).map(|f| first(f.1)).collect();
    let count = |status| heads.iter().filter(|first| **first == Some(status)).count();
    (count(0x88), count(0x8a))
}

/// Types and payloads of frames (RFC 9113, §4.1).
fn frames(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<9>()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, after) = after.split_at_checked(length)?;
        rest = after;
        Some((head[3], payload))
    })
}
