//! Which slot of a Cluster a key belongs to, and who serves which slot. Pure.

use redis::Value;

use super::link::Address;

/// How many slots there are.
pub(super) const SLOTS: u16 = 16_384;

/// One of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

/// Slots that one node serves, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    first: u16,
    last: u16,
    /// The master.
    pub(super) node: Address,
}

impl Slot {
    /// The slot of a key: of what stands between its first braces, if there is anything.
    pub(super) fn of(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0));
        let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
        Self(crc16(hashed.as_bytes()) % SLOTS)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Range {
    pub(super) fn slots(&self) -> std::ops::RangeInclusive<usize> {
        usize::from(self.first)..=usize::from(self.last)
    }
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// Reads the answer of `asked` to CLUSTER SLOTS; `None` if it is none. A node whose host it does not know is itself.
pub(super) fn read(answer: &Value, asked: &str) -> Option<Vec<Range>> {
    let Value::Array(entries) = answer else { return None };
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(fields) = entry else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = fields.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = host_of(host, asked)?;
        // The node is set to announce a name, and has none.
        if host == "?" {
            continue;
        }
        let node = Address { host: host.to_owned(), port: u16::try_from(*port).ok()? };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        if first > last || last >= SLOTS {
            return None;
        }
        ranges.push(Range { first, last, node });
    }
    Some(ranges)
}

fn host_of<'a>(host: &'a Value, asked: &'a str) -> Option<&'a str> {
    if let Value::BulkString(host) = host {
        let host = std::str::from_utf8(host).ok()?;
        return Some(if host.is_empty() { asked } else { host });
    }
    (*host == Value::Nil).then_some(asked)
}

/// Reads the `host:port` of a redirection by `asked`.
pub(super) fn target(text: &str, asked: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { asked } else { host };
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [("", 0), ("foo", 12182), ("{foo}bar", 12182), ("a{}b", 13694)] {
            assert_eq!(Slot::of(key).0, slot, "{key}");
        }
        assert_eq!(Slot::of("oncehook:{foo}w"), Slot::of("oncehook:{foo}"));
        assert_eq!(Slot::of("{user1000}.a"), Slot::of("{user1000}.b"));
        assert_eq!(Slot::of("foo{bar}{zap}"), Slot::of("bar"));
        assert_ne!(Slot::of("foo{{bar}}zap"), Slot::of("bar"), "the tag is {{bar");
    }

    #[test]
    fn redirections_name_a_host_or_the_one_that_was_asked() {
        let address = |host: &str, port| Some(Address { host: host.to_owned(), port });
        assert_eq!(target("10.0.0.1:6381", "a"), address("10.0.0.1", 6381));
        assert_eq!(target(":6381", "a"), address("a", 6381));
        assert_eq!(target("::1:6381", "a"), address("::1", 6381));
        assert_eq!(target("redis-1.internal:1", "a"), address("redis-1.internal", 1));
        for junk in ["", "x", "x:", "x:99999"] {
            assert_eq!(target(junk, "a"), None, "{junk}");
        }
    }

    #[test]
    fn a_map_of_slots_is_read_or_refused_whole() {
        let node =
            |host| Value::Array(vec![host, Value::Int(7000), Value::SimpleString("id".into())]);
        let entry =
            |first, last, host| Value::Array(vec![Value::Int(first), Value::Int(last), node(host)]);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let map = Value::Array(vec![
            entry(0, 100, text("10.0.0.1")),
            entry(101, 200, Value::Nil),
            entry(201, 300, text("?")),
            entry(301, 16_383, text("")),
        ]);
        let ranges = read(&map, "asked").expect("a map");
        let hosts: Vec<_> =
            ranges.iter().map(|range| (range.first, range.node.host.as_str())).collect();
        assert_eq!(hosts, [(0, "10.0.0.1"), (101, "asked"), (301, "asked")]);
        for (first, last) in [(5, 4), (0, 16_384), (-1, 5)] {
            assert_eq!(read(&Value::Array(vec![entry(first, last, text("a"))]), "a"), None);
        }
        for junk in [Value::Nil, Value::Array(vec![Value::Int(1)]), text("x")] {
            assert_eq!(read(&junk, "a"), None, "{junk:?}");
        }
    }
}
