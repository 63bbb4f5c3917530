//! Redis' protocol, as far as a proxy between a client and a server has to know it: where a frame ends, and which
//! command of the claim protocol it is.

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Claim,
    Settle,
    Release,
    /// Anything else: log-in, probes, other clients.
    Other,
}

/// The length of the frame that `bytes` begin with; `None` while it is not whole.
///
/// # Panics
/// If it is no RESP: the proxy stands between two programs that speak it.
pub(crate) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let number = || -> i64 { std::str::from_utf8(&bytes[1..line]).unwrap().parse().unwrap() };
    let head = line + 2;
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Some(head),
        b'$' | b'=' | b'!' => match usize::try_from(number()) {
            // A null.
            Err(_) => Some(head),
            Ok(length) => Some(head + length + 2).filter(|end| *end <= bytes.len()),
        },
        b'*' | b'~' | b'>' => elements(bytes, head, usize::try_from(number()).unwrap_or(0)),
        b'%' => elements(bytes, head, 2 * usize::try_from(number()).unwrap_or(0)),
        other => panic!("no RESP: {other:#x}"),
    }
}

fn elements(bytes: &[u8], mut end: usize, count: usize) -> Option<usize> {
    for _ in 0..count {
        end += frame_len(&bytes[end..])?;
    }
    Some(end)
}

/// The words of a command: an array of bulk strings, as clients write it.
pub(crate) fn words(frame: &[u8]) -> Vec<&[u8]> {
    let mut words = Vec::new();
    let mut rest = frame;
    // The array's own line first.
    while let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let (head, after) = (&rest[..line], &rest[line + 2..]);
        rest = after;
        if let Some(length) = head.strip_prefix(b"$") {
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            words.push(&after[..length]);
            rest = &after[length + 2..];
        }
    }
    words
}

/// What these words ask for: `EVALSHA script 1 key owner …`, and EVAL alike, or a SET that gives back what was there. A
/// probe claims as well, but a record that is no event's.
pub(crate) fn asked(words: &[&[u8]]) -> Asked {
    match words {
        [b"SET", _, _, b"NX", b"GET", b"PX", _] => return Asked::Claim,
        [b"SET", _, _, b"PX", _, b"GET"] => return Asked::Settle,
        _ => {}
    }
    let is_script =
        words.first().is_some_and(|word| word.to_ascii_uppercase().starts_with(b"EVAL"));
    if !is_script || words.get(3).is_none_or(|key| key.ends_with(b"{probe}")) {
        return Asked::Other;
    }
    match (words.len(), words.get(5).copied()) {
        (7, _) => Asked::Claim,
        (8, Some(b"failed" | b"ambiguous")) => Asked::Release,
        (8, _) => Asked::Settle,
        _ => Asked::Other,
    }
}

#[test]
fn a_frame_ends_where_it_ends() {
    for whole in ["+OK\r\n", "$-1\r\n", "$3\r\nabc\r\n", "*2\r\n$1\r\na\r\n*1\r\n:7\r\n", "*0\r\n"]
    {
        let more = format!("{whole}+more\r\n");
        assert_eq!(frame_len(more.as_bytes()), Some(whole.len()), "{whole:?}");
        for cut in 0..whole.len() {
            assert_eq!(frame_len(&whole.as_bytes()[..cut]), None, "{whole:?} cut at {cut}");
        }
    }
}

#[test]
fn the_operations_are_told_apart() {
    let claim: [&[u8]; 7] = [b"EVALSHA", b"0a", b"1", b"p:{k}", b"0f", b"1000", b"5000"];
    assert_eq!(asked(&claim), Asked::Claim);
    let settle: [&[u8]; 8] = [b"EVAL", b"..", b"1", b"p:{k}", b"0f", b"D200", b"digest", b"5000"];
    assert_eq!(asked(&settle), Asked::Settle);
    let release: [&[u8]; 8] = [b"evalsha", b"0a", b"1", b"p:{k}", b"0f", b"failed", b"0", b"5000"];
    assert_eq!(asked(&release), Asked::Release);
    let claim: [&[u8]; 7] = [b"SET", b"p:{k}", b"1F0f:1000:5000", b"NX", b"GET", b"PX", b"5000"];
    assert_eq!(asked(&claim), Asked::Claim);
    let settle: [&[u8]; 6] = [b"SET", b"p:{k}", b"D200digest..", b"PX", b"5000", b"GET"];
    assert_eq!(asked(&settle), Asked::Settle);
    assert_eq!(asked(&[b"SET", b"p:{k}w", b"", b"PX", b"1000"]), Asked::Other, "a barrier's");
    assert_eq!(asked(&[b"PING"]), Asked::Other);
    assert_eq!(words(b"*2\r\n$4\r\nPING\r\n$2\r\n\r\n\r\n"), [&b"PING"[..], b"\r\n"]);
}
