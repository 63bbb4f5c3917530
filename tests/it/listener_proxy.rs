//! The listener behind a balancer: the PROXY protocol, its bytes and its rules.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use oncehook::listener::Options;
use oncehook::listener::proxy_protocol::{HEADER_BYTES_MAX, Header, Malformed, parse};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof};
use proptest::proptest;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::dial::{
    GET, Running, client, exchange, options, read_to_end, self_signed, shake_hands_on,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn block_of(source: SocketAddr) -> (u8, Vec<u8>) {
    let port = source.port().to_be_bytes();
    match source.ip() {
        IpAddr::V4(ip) => (0x11, [&ip.octets()[..], &[10, 0, 0, 1], &port, &[1, 187]].concat()),
        IpAddr::V6(ip) => (0x21, [&ip.octets()[..], &[0; 16], &port, &[1, 187]].concat()),
    }
}

fn v1(source: SocketAddr) -> Vec<u8> {
    let (family, own) = if source.is_ipv4() { ("TCP4", "10.0.0.1") } else { ("TCP6", "::1") };
    format!("PROXY {family} {} {own} {} 443\r\n", source.ip(), source.port()).into_bytes()
}

fn of(length: usize, source: Option<&str>) -> Header {
    Header { length, source: source.map(|source| source.parse().unwrap()) }
}

#[test]
fn lines_of_version_1_say_who_it_is() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", Some("192.0.2.7:56324")),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some("255.255.255.255:65535"),
        ),
        ("PROXY TCP6 2001:db8::7 ::1 0 443\r\n", Some("[2001:db8::7]:0")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 whatever else 65535 65535\r\n", None),
    ] {
        assert_eq!(parse(line.as_bytes()), Ok(Some(of(line.len(), source))), "{line}");
        let followed = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(parse(followed.as_bytes()), Ok(Some(of(line.len(), source))), "{followed}");
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    assert_eq!(longest.len(), 107);
    assert_eq!(parse(longest.as_bytes()), Ok(Some(of(107, None))));
    assert_eq!(parse(&longest.as_bytes()[..106]), Ok(None));
}

#[test]
fn lines_that_are_none_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 56324 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +80 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 080 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 80 443\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 80 443\rG",
        "PROXY tcp4 192.0.2.7 198.51.100.1 80 443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 80 443\r\n",
        "PROXY UNKNOWN1\r\n",
        "PROXY \r\n",
        "PROXY\r\n",
        "proxy UNKNOWN\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02\x00",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(endless.as_bytes()), Err(Malformed::Line));
    assert_eq!(parse(b"PROXY TCP4 \xff"), Ok(None));
    assert_eq!(parse(b"PROXY TCP4 \xff\r\n"), Err(Malformed::Line));
}

#[test]
fn headers_of_version_2_say_who_it_is() {
    let (four, six) = (
        block_of("192.0.2.7:4711".parse().unwrap()).1,
        block_of("[2001:db8::7]:1".parse().unwrap()).1,
    );
    let tlvs = [&four[..], &[0x03, 0, 4, 1, 2, 3, 4, 0xea, 0, 1, b'x']].concat();
    let large = [&four[..], &[0; HEADER_BYTES_MAX - 16 - 12]].concat();
    for (header, source) in [
        (v2(0x21, 0x11, &four), Some("192.0.2.7:4711")),
        (v2(0x21, 0x12, &four), Some("192.0.2.7:4711")),
        (v2(0x21, 0x21, &six), Some("[2001:db8::7]:1")),
        (v2(0x21, 0x11, &tlvs), Some("192.0.2.7:4711")),
        (v2(0x21, 0x11, &large), Some("192.0.2.7:4711")),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, b"tlvs"), None),
        // A balancer's own check, whatever it says besides.
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &four), None),
        (v2(0x20, 0x77, b"whatever"), None),
    ] {
        assert_eq!(parse(&header), Ok(Some(of(header.len(), source))), "{header:?}");
        assert_eq!(parse(&header[..header.len() - 1]), Ok(None), "{header:?}");
    }
    for (header, error) in [
        (v2(0x11, 0x11, &four), Malformed::Command),
        (v2(0x22, 0x11, &four), Malformed::Command),
        (v2(0x21, 0x13, &four), Malformed::Family),
        (v2(0x21, 0x41, &four), Malformed::Family),
        (v2(0x21, 0x01, &four), Malformed::Family),
        (v2(0x21, 0x11, &four[..11]), Malformed::Length),
        (v2(0x21, 0x21, &six[..35]), Malformed::Length),
        (v2(0x21, 0x31, &[0; 215]), Malformed::Length),
        (v2(0x21, 0x11, &[0; HEADER_BYTES_MAX - 15]), Malformed::Length),
        (v2(0x20, 0x11, &[0; HEADER_BYTES_MAX - 15]), Malformed::Length),
    ] {
        assert_eq!(parse(&header), Err(error), "{header:?}");
    }
}

fn any_source() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ]
}

fn any_header() -> impl Strategy<Value = (Vec<u8>, SocketAddr)> {
    let two =
        (any_source(), prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(source, tlvs)| {
            let (family, block) = block_of(source);
            (v2(0x21, family, &[block, tlvs].concat()), source)
        });
    prop_oneof![any_source().prop_map(|source| (v1(source), source)), two]
}

proptest! {
    #[test]
    fn every_header_is_read_whole_or_not_yet((header, source) in any_header(), rest: Vec<u8>) {
        let whole = Ok(Some(Header { length: header.len(), source: Some(source) }));
        prop_assert_eq!(parse(&[&header[..], &rest].concat()), whole);
        for end in 0..header.len() {
            prop_assert_eq!(parse(&header[..end]), Ok(None));
        }
    }

    #[test]
    fn whatever_comes_is_judged_within_the_bound(
        (header, _) in any_header(),
        change in any::<(prop::sample::Index, u8)>(),
        more in prop::collection::vec(any::<u8>(), 0..8192),
    ) {
        let mut bytes = [header, more].concat();
        let at = change.0.index(bytes.len());
        bytes[at] = change.1;
        match parse(&bytes) {
            Ok(Some(found)) => prop_assert!(found.length <= bytes.len().min(HEADER_BYTES_MAX)),
            Ok(None) => prop_assert!(bytes.len() < HEADER_BYTES_MAX),
            Err(_) => {}
        }
    }

    #[test]
    fn once_refused_is_refused_whatever_follows(bytes: Vec<u8>, more: Vec<u8>) {
        if parse(&bytes).is_err() {
            prop_assert!(parse(&[bytes, more].concat()).is_err());
        }
    }
}

fn behind(networks: &[&str]) -> Options {
    let trusted = networks.iter().map(|network| network.parse().unwrap()).collect();
    Options { proxy_protocol: Some(trusted), ..options() }
}

/// Answers with the address that a connection is from.
fn telling(options: Options) -> Running {
    Running::start(options, |_request, peer| async move {
        Response::new(Full::new(peer.address.to_string().into()))
    })
}

fn rejected(reason: &str) -> String {
    format!("oncehook_connections_rejected_total{{reason=\"{reason}\"}}")
}

async fn told(listener: &Running, header: &[u8]) -> String {
    let mut stream = listener.connect().await;
    stream.write_all(header).await.unwrap();
    let answer = exchange(&mut stream, GET).await;
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_sender_is_whom_a_trusted_balancer_names() {
    let listener = telling(behind(&["127.0.0.0/8"]));
    let source = "192.0.2.7:4711".parse().unwrap();
    let (family, block) = block_of(source);
    let tlvs = [block, vec![0x04; 500]].concat();
    assert_eq!(told(&listener, &v1(source)).await, "192.0.2.7:4711");
    assert_eq!(told(&listener, &v2(0x21, family, &tlvs)).await, "192.0.2.7:4711");
    let six = "[2001:db8::7]:1".parse().unwrap();
    assert_eq!(told(&listener, &v1(six)).await, "[2001:db8::7]:1");
    for own in [v2(0x20, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec()] {
        assert!(told(&listener, &own).await.starts_with("127.0.0.1:"));
    }
    // In one piece with the request, and byte by byte.
    let mut stream = listener.connect().await;
    let both = format!("{}{GET}", String::from_utf8(v1(source)).unwrap());
    assert!(exchange(&mut stream, &both).await.ends_with("\r\n192.0.2.7:4711"));
    assert!(exchange(&mut stream, GET).await.ends_with("\r\n192.0.2.7:4711"));
    let mut stream = listener.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in v2(0x21, 0x11, &tlvs) {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert!(exchange(&mut stream, GET).await.ends_with("\r\n192.0.2.7:4711"));
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let own = self_signed(&["localhost"]);
    let listener = telling(Options { tls: Some(own.tls.server), ..behind(&["127.0.0.1/32"]) });
    let mut stream = TcpStream::connect(listener.address).await.unwrap();
    stream.write_all(&v1("192.0.2.7:4711".parse().unwrap())).await.unwrap();
    let config = client(&own.certificate_pem);
    let mut stream = shake_hands_on(stream, config, "localhost").await.unwrap();
    assert!(exchange(&mut stream, GET).await.ends_with("\r\n192.0.2.7:4711"));
}

#[tokio::test]
async fn connections_from_elsewhere_or_without_a_header_are_closed_and_counted() {
    let listener = telling(behind(&["192.0.2.0/24", "2001:db8::/32"]));
    let mut stream = listener.connect().await;
    let _may_be_closed_already =
        stream.write_all(&v1("192.0.2.7:4711".parse().unwrap())).await.is_ok();
    assert!(read_to_end(&mut stream).await.is_empty());
    listener.counted(&rejected("untrusted_proxy"), 1).await;

    let short = Duration::from_millis(300);
    let listener = telling(Options { handshake_timeout: short, ..behind(&["127.0.0.1/32"]) });
    for garbage in [GET.as_bytes(), b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 nobody\r\n"] {
        let mut stream = listener.connect().await;
        stream.write_all(garbage).await.unwrap();
        assert!(read_to_end(&mut stream).await.is_empty());
    }
    listener.counted(&rejected("proxy_header"), 3).await;
    // Silence, and a header that drips.
    assert!(read_to_end(&mut listener.connect().await).await.is_empty());
    let (mut from, mut to) = listener.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        for byte in SIGNATURE {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(short / 5).await;
        }
        to
    });
    assert!(read_to_end(&mut from).await.is_empty());
    drop(dripping.await.unwrap());
    listener.counted(&rejected("proxy_timeout"), 2).await;
    drop(listener.connect().await);
    listener.counted(&rejected("proxy_closed"), 1).await;
    listener.counted("oncehook_connections_open", 0).await;
}

#[tokio::test]
async fn connections_are_counted_for_whom_the_balancer_names() {
    let listener = telling(Options { connections_per_source_max: 1, ..behind(&["127.0.0.1/32"]) });
    let connect = async |source: &str| {
        let mut stream = listener.connect().await;
        stream.write_all(&v1(source.parse().unwrap())).await.unwrap();
        stream
    };
    let mut first = connect("192.0.2.7:1").await;
    assert!(exchange(&mut first, GET).await.ends_with("192.0.2.7:1"));
    let mut other = connect("192.0.2.8:1").await;
    assert!(exchange(&mut other, GET).await.ends_with("192.0.2.8:1"));
    assert!(read_to_end(&mut connect("192.0.2.7:2").await).await.is_empty());
    listener.counted(&rejected("source"), 1).await;
    drop(first);
    listener.counted("oncehook_connections_open", 1).await;
    let mut again = connect("192.0.2.7:3").await;
    assert!(exchange(&mut again, GET).await.ends_with("192.0.2.7:3"));
}
