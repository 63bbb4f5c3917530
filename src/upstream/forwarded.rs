//! Whom a request is from, according to the proxies that are trusted: `X-Forwarded-For`, else `Forwarded` (RFC 7239).
//!
//! Pure. What of these fields is passed on is left to `headers`.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;
use ipnet::IpNet;

use super::forwarding::X_FORWARDED_FOR;

/// The address of the sender: `peer`, unless it is a trusted proxy; then the last address that it names, unless that is
/// one too, and so on. Each proxy adds the address that it was reached from at the end, so whatever stands before the
/// first one that is not trusted may be anybody's invention. So may be everything before an element that is no address:
/// then it is the proxy that wrote it.
///
/// Where there is `X-Forwarded-For`, `Forwarded` is not looked at: most proxies add to the former only, and pass the
/// latter on as it came.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let lines = headers.get_all(X_FORWARDED_FOR);
    if lines.iter().next().is_some() {
        let elements = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
        return walk(peer, elements.map(|element| address(element.trim_ascii())), trusted);
    }
    let lines = headers.get_all(FORWARDED);
    let elements: Vec<_> = lines.iter().flat_map(|line| elements(line.as_bytes(), b',')).collect();
    walk(peer, elements.into_iter().rev().map(forwarded_for), trusted)
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// From the nearest hop to the farthest that can be believed.
fn walk(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for hop in hops {
        let Some(hop) = hop else { break };
        nearest = hop;
        if !is_trusted(hop, trusted) {
            break;
        }
    }
    nearest
}

/// An address as proxies write it: bare, with a port, or IPv6 in brackets with or without one.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|with| with.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// What the element of a `Forwarded` says of the address that the proxy was reached from.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut pairs = elements(element, b';').into_iter().filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        name.trim_ascii().eq_ignore_ascii_case(b"for").then_some(value)
    });
    let (Some(value), None) = (pairs.next(), pairs.next()) else { return None };
    let value = value.strip_prefix(b"=")?.trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    // An address needs no escapes: with one, it is none.
    address(unquoted.unwrap_or(value))
}

/// What stands between `separator`s outside of quoted strings (RFC 9110, §5.6.4).
fn elements(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let is_between = |byte: &u8| {
        match (*byte, quoted) {
            _ if escaped => escaped = false,
            (b'\\', true) => escaped = true,
            (b'"', _) => quoted = !quoted,
            (byte, false) => return byte == separator,
            (_, true) => {}
        }
        false
    };
    text.split(is_between).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1/32"];

    fn seen(peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let trusted: Vec<IpNet> = TRUSTED.iter().map(|network| network.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn nobody_who_is_not_trusted_is_believed() {
        let claim = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
        assert_eq!(seen("203.0.113.9", &claim), "203.0.113.9");
        assert_eq!(seen("::ffff:203.0.113.9", &claim), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_s_is_the_sender_s() {
        for (line, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("1.1.1.1, 192.0.2.1", "192.0.2.1"),
            ("1.1.1.1,192.0.2.1 ,\t10.1.1.1, 10.2.2.2", "192.0.2.1"),
            ("192.0.2.1, ::ffff:10.1.1.1", "192.0.2.1"),
            ("192.0.2.1, 2001:db8:ffff::1", "192.0.2.1"),
            // All are proxies: the farthest of them.
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            // What a proxy wrote that is no address hides what came before.
            ("192.0.2.1, unknown", "10.0.0.1"),
            ("192.0.2.1, unknown, 10.2.2.2", "10.2.2.2"),
            ("192.0.2.1,", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("192.0.2.1.5", "10.0.0.1"),
            ("192.0.2.1:port", "10.0.0.1"),
            ("[192.0.2.1", "10.0.0.1"),
            ("fe80::1%eth0", "10.0.0.1"),
            ("192.0.2.1 192.0.2.2", "10.0.0.1"),
            ("\"192.0.2.1\"", "10.0.0.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", line)]), expected, "{line:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "192.0.2.1, 10.3.3.3"),
            ("x-forwarded-for", "10.2.2.2"),
        ];
        assert_eq!(seen("10.0.0.1", &lines), "192.0.2.1");
        let lines =
            [("forwarded", "for=1.1.1.1, for=192.0.2.1"), ("forwarded", "for=10.2.2.2;proto=http")];
        assert_eq!(seen("10.0.0.1", &lines), "192.0.2.1");
    }

    #[test]
    fn forwarded_is_read_where_there_is_nothing_else() {
        for (line, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=\"192.0.2.1:4711\";proto=https;by=10.0.0.1", "192.0.2.1"),
            ("proto=https; for=\"[2001:db8::1]:4711\" ; host=\"a,b;c\"", "2001:db8::1"),
            ("for=1.1.1.1, for=192.0.2.1;host=\"x\\\", for=9.9.9.9\"", "192.0.2.1"),
            ("for=1.1.1.1, for=192.0.2.1, for=10.2.2.2", "192.0.2.1"),
            ("for=192.0.2.1, for=_hidden", "10.0.0.1"),
            ("for=192.0.2.1, for=unknown, for=10.2.2.2", "10.2.2.2"),
            ("for=192.0.2.1, proto=https", "10.0.0.1"),
            ("for=192.0.2.1;for=192.0.2.2", "10.0.0.1"),
            ("for", "10.0.0.1"),
            ("for=", "10.0.0.1"),
            ("for=\"192.0.2.1", "10.0.0.1"),
            ("for=2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[("forwarded", line)]), expected, "{line:?}");
        }
        let both = [("forwarded", "for=9.9.9.9"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen("10.0.0.1", &both), "192.0.2.1");
    }
}
