//! The PROXY protocol: what is decided of some bytes stays so whatever follows, nothing is decided before the header is
//! there, and the source is the one that another reader finds.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use oncehook::listener::proxy_protocol::{HEADER_BYTES_MAX, Header, parse};
use ppp::{HeaderResult, v1, v2};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    for length in 0..bytes.len() {
        match (parse(&bytes[..length]), whole) {
            (Ok(None), _) => {}
            (before, now) => assert_eq!(before, now, "changed its mind after {length} bytes"),
        }
        if let Ok(Some(header)) = whole {
            let complete = parse(&bytes[..length]) == whole;
            assert_eq!(complete, length >= header.length, "decided at {length} bytes");
        }
        if length > HEADER_BYTES_MAX {
            break;
        }
    }
    match whole {
        Ok(Some(header)) => {
            assert!(header.length <= HEADER_BYTES_MAX.min(bytes.len()));
            check(header, &bytes[..header.length]);
        }
        Ok(None) => assert!(bytes.len() < HEADER_BYTES_MAX, "waits for ever"),
        Err(_) => {}
    }
});

/// Whom another reader takes for the source.
fn check(header: Header, bytes: &[u8]) {
    let theirs = match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Unknown => None,
            v1::Addresses::Tcp4(ip) => Some((IpAddr::V4(ip.source_address), ip.source_port)),
            v1::Addresses::Tcp6(ip) => Some((IpAddr::V6(ip.source_address), ip.source_port)),
        },
        HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
            (v2::Command::Local, _) => None,
            (_, v2::Addresses::IPv4(ip)) => Some((IpAddr::V4(ip.source_address), ip.source_port)),
            (_, v2::Addresses::IPv6(ip)) => Some((IpAddr::V6(ip.source_address), ip.source_port)),
            (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        },
        // It is the stricter one where nobody is named: UNKNOWN and LOCAL with something behind them.
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => {
            assert_eq!(header.source, None, "the other reader finds no header");
            return;
        }
    };
    assert_eq!(header.source, theirs.map(|(ip, port)| SocketAddr::new(ip, port)));
}
