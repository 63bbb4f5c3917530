//! Numbers and addresses as text, the same as `core::fmt` writes them at a part of its cost: every webhook has several,
//! in its log line and in the head of its forward.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Writes `bytes` in lower-case hexadecimal into `room`, which has twice their length, or what of them has room.
pub fn hex<'a>(bytes: &[u8], room: &'a mut [u8]) -> &'a str {
    let (pairs, _) = room.as_chunks_mut::<2>();
    for ([high, low], byte) in pairs.iter_mut().zip(bytes) {
        (*high, *low) = (digit(byte >> 4), digit(byte & 15));
    }
    str::from_utf8(room).unwrap_or_default()
}

const fn digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' - 10 + value,
    }
}

/// Appends an address.
pub fn push_ip(into: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut separator = "";
            for octet in address.octets() {
                into.push_str(separator);
                into.push_str(itoa::Buffer::new().format(octet));
                separator = ".";
            }
        }
        // Where to shorten it is for the library to know (RFC 5952). Writing to a string does not fail.
        IpAddr::V6(address) => drop(write!(into, "{address}")),
    }
}

/// Appends an address and its port.
pub fn push_socket(into: &mut String, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            push_ip(into, IpAddr::V4(*address.ip()));
            into.push(':');
            into.push_str(itoa::Buffer::new().format(address.port()));
        }
        // With its scope, if it has one.
        SocketAddr::V6(address) => drop(write!(into, "{address}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_library_writes() {
        let ips = ["0.0.0.0", "9.10.99.100", "255.255.255.255", "::", "::1", "2001:db8::a:0:1"];
        for ip in ips {
            let ip: IpAddr = ip.parse().unwrap();
            for port in [0, 9, 443, 65535] {
                let (mut one, mut both) = ("x".to_owned(), "y".to_owned());
                push_ip(&mut one, ip);
                push_socket(&mut both, SocketAddr::new(ip, port));
                assert_eq!(one, format!("x{ip}"));
                assert_eq!(both, format!("y{}", SocketAddr::new(ip, port)));
            }
        }
        let scoped = "[fe80::1%7]:443".parse().unwrap();
        let mut text = String::new();
        push_socket(&mut text, scoped);
        assert_eq!(text, scoped.to_string());
        for number in [0, 1, u128::MAX, u128::MAX / 3, 0x0123_4567_89ab_cdef << 60] {
            assert_eq!(hex(&number.to_be_bytes(), &mut [0; 32]), format!("{number:032x}"));
        }
    }
}
