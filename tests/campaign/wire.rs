//! As much of HTTP/1.1 and of LiveKit's JSON as the backend and the fronts have to understand of what passes: where a
//! message ends, and which event it is about.

/// The length of a whole request or answer at the beginning of `bytes`; `None` until all of it is there.
pub(crate) fn message_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    let end = head + length.expect("whoever sends a body says how long it is");
    (end <= bytes.len()).then_some(end)
}

/// Which event a body is about, as `senders` and `nodes` number them; `None` for one that was forged. protojson puts a
/// space after a colon, or none: that changes from build to build.
pub(crate) fn event_in(message: &str) -> Option<u64> {
    message.split("\"id\":").skip(1).find_map(|after| {
        let id = after.trim_start().strip_prefix("\"EV_")?;
        id.split('_').next()?.parse().ok()
    })
}
