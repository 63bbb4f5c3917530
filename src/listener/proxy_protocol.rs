//! The PROXY protocol, versions 1 and 2: what a balancer writes before the bytes of the peer that it speaks for
//! (`proxy-protocol.txt` of the haproxy project, §2).
//!
//! Pure: bytes in, a header out. Who may send one, and how long it may take, is left to `handshake`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest header of either version that is taken: what nginx takes, far more than the 536 bytes that §2.2 asks for
/// and room for the TLVs of cloud balancers.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The longest header of version 1, its end included (§2.1).
const V1_BYTES_MAX: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";
/// Version 2 begins with what no other protocol begins with (§2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of the rest.
const V2_HEAD_BYTES: usize = 16;

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has, at most [`HEADER_BYTES_MAX`]: the peer's own begin behind them.
    pub length: usize,
    /// Whom the balancer speaks for; `None` if for itself (`LOCAL`: a health check) or for nobody who has an IP address
    /// (`UNKNOWN`, `AF_UNSPEC`, `AF_UNIX`): then the connection's own address counts.
    pub source: Option<SocketAddr>,
}

/// Why bytes begin with no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither version begins so.
    #[error("no PROXY header")]
    Signature,
    /// The line of version 1 has no end within its 107 bytes, or other fields than it should.
    #[error("a PROXY line that is malformed")]
    Line,
    /// Its version or command is unknown.
    #[error("a version or command of PROXY v2 that is unknown")]
    Command,
    /// Its address family or transport is unknown.
    #[error("an address family or transport of PROXY v2 that is unknown")]
    Family,
    /// It is too short for its addresses, or longer than [`HEADER_BYTES_MAX`].
    #[error("a PROXY v2 header that is too short for its addresses, or too long")]
    Length,
}

/// Reads the header that `bytes` begin with; `None` if it is not complete yet, which is so for less than
/// [`HEADER_BYTES_MAX`] bytes only.
///
/// # Errors
/// [`Malformed`], as soon as it is certain.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins_like(bytes, V2_SIGNATURE) {
        return v2(bytes);
    }
    if begins_like(bytes, V1_BEGIN) { v1(bytes) } else { Err(Malformed::Signature) }
}

/// Whether `bytes` begin with `with`, or could once more have come.
fn begins_like(bytes: &[u8], with: &[u8]) -> bool {
    bytes.starts_with(with) || with.starts_with(bytes)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let within = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < V1_BYTES_MAX { Ok(None) } else { Err(Malformed::Line) };
    };
    let (line, rest) = within.split_at(end);
    match rest {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if bytes.len() < V1_BYTES_MAX => return Ok(None),
        _ => return Err(Malformed::Line),
    }
    let line = str::from_utf8(line).map_err(|_| Malformed::Line)?;
    Ok(Some(Header { length: end + 2, source: v1_source(line)? }))
}

/// What a line says.
fn v1_source(line: &str) -> Result<Option<SocketAddr>, Malformed> {
    match line.strip_prefix("PROXY ").and_then(|rest| rest.split_once(' ')) {
        // Whatever follows UNKNOWN is to be ignored.
        None if line == "PROXY UNKNOWN" => Ok(None),
        Some(("UNKNOWN", _)) => Ok(None),
        Some(("TCP4", rest)) => v1_addresses::<Ipv4Addr>(rest).map(Some).ok_or(Malformed::Line),
        Some(("TCP6", rest)) => v1_addresses::<Ipv6Addr>(rest).map(Some).ok_or(Malformed::Line),
        None | Some(_) => Err(Malformed::Line),
    }
}

/// Source, destination, and their ports: all four must be there, and the first of each counts.
fn v1_addresses<A: FromStr + Into<IpAddr>>(text: &str) -> Option<SocketAddr> {
    let mut fields = text.split(' ');
    let source: A = fields.next()?.parse().ok()?;
    let _destination: A = fields.next()?.parse().ok()?;
    let port = v1_port(fields.next()?)?;
    let _destination_port = v1_port(fields.next()?)?;
    if fields.next().is_some() { None } else { Some(SocketAddr::new(source.into(), port)) }
}

/// Decimal, without signs and leading zeros.
fn v1_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && !leading_zero { text.parse().ok() } else { None }
}

fn v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD_BYTES>() else { return Ok(None) };
    let [.., version_and_command, family, high, low] = *head;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Command),
    };
    let announced = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_HEAD_BYTES + announced;
    if length > HEADER_BYTES_MAX {
        return Err(Malformed::Length);
    }
    // 0 unspecified, 1 IPv4, 2 IPv6, 3 Unix, each with 1 for a stream and 2 for datagrams.
    let addresses_bytes = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        // With LOCAL, the receiver must not look at it.
        _ if is_local => 0,
        _ => return Err(Malformed::Family),
    };
    if announced < addresses_bytes && !is_local {
        return Err(Malformed::Length);
    }
    let Some(block) = rest.get(..announced) else { return Ok(None) };
    // What follows the addresses are TLVs, which say nothing that is asked here.
    let source = if is_local { None } else { v2_source(family, block) };
    Ok(Some(Header { length, source }))
}

/// Both addresses, then both ports; the source is the first of each.
fn v2_source(family: u8, block: &[u8]) -> Option<SocketAddr> {
    let port = |at: &[u8]| at.first_chunk().copied().map(u16::from_be_bytes);
    match family {
        0x11 | 0x12 => {
            let (source, rest) = block.split_first_chunk::<4>()?;
            Some(SocketAddr::new(IpAddr::from(*source), port(rest.get(4..)?)?))
        }
        0x21 | 0x22 => {
            let (source, rest) = block.split_first_chunk::<16>()?;
            Some(SocketAddr::new(IpAddr::from(*source), port(rest.get(16..)?)?))
        }
        _ => None,
    }
}
