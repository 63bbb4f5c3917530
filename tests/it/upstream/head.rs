//! What the backend gets to read: the head field by field, the body byte for byte (DESIGN.md §9).

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Version};
use oncehook::claim::exchange::Outcome;
use oncehook::upstream::{HostPolicy, Options, PathPolicy};

use super::{Copy, arrived, head, options, upstream};
use crate::support::backend::{Action, Backend, Recorded};

async fn read_by_backend(copy: &Copy, change: impl FnOnce(&mut Options)) -> Recorded {
    let backend = Backend::always(Action::status(200));
    let mut options = options(&backend.url());
    change(&mut options);
    let forwarded = copy.forward(&upstream(&options)).await;
    assert_eq!(forwarded.outcome, Outcome::Delivered(200));
    backend.only()
}

#[tokio::test]
async fn the_head_is_this_byte_for_byte() {
    let backend = Backend::always(Action::status(200));
    Copy::new().forward(&upstream(&options(&backend.url()))).await;
    let expected = format!(
        "POST /livekit/webhook HTTP/1.1\r\n\
         host: {}\r\n\
         authorization: eyJhbGciOiJIUzI1NiJ9.e30.c2ln\r\n\
         content-type: application/webhook+json\r\n\
         user-agent: Go-http-client/1.1\r\n\
         x-forwarded-proto: https\r\n\
         x-forwarded-host: gateway.example\r\n\
         via: 1.1 oncehook\r\n\
         forwarded: for=192.0.2.60;host=\"gateway.example\";proto=https\r\n\
         x-forwarded-for: 192.0.2.60\r\n\
         x-request-id: req-1\r\n\
         idempotency-key: abababababababababababababababab\r\n\
         oncehook-attempt: 1\r\n\
         content-length: 36\r\n\r\n",
        backend.address()
    );
    assert_eq!(backend.only().head, expected);
}

#[tokio::test]
async fn a_binary_body_of_256_kib_arrives_byte_for_byte() {
    let mut copy = Copy::new();
    let bytes: Vec<u8> =
        (0..256 * 1024_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    copy.body = Bytes::from(bytes.clone());
    let recorded = read_by_backend(&copy, |_| {}).await;
    assert_eq!(recorded.one("content-length"), Some("262144"));
    assert!(recorded.body == bytes, "{} bytes", recorded.body.len());
}

#[tokio::test]
async fn a_possible_duplicate_is_marked_and_numbered() {
    let mut copy = Copy::new();
    copy.attempt = 3;
    copy.possible_duplicate = true;
    let recorded = read_by_backend(&copy, |_| {}).await;
    assert_eq!(recorded.one("oncehook-attempt"), Some("3"));
    assert_eq!(recorded.one("oncehook-possible-duplicate"), Some("1"));
}

#[tokio::test]
async fn what_belongs_to_the_connection_or_to_the_gateway_does_not_pass() {
    let mut copy = Copy::new();
    let dropped = [
        ("connection", "keep-alive, X-Hop, Authorization"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("x-real-ip", "203.0.113.9"),
        ("x-forwarded-port", "8443"),
        ("oncehook-possible-duplicate", "1"),
        ("oncehook-anything", "1"),
        ("x_forwarded_for", "203.0.113.9"),
        ("oncehook_attempt", "9"),
        ("idempotency_key", "mine"),
        ("content_length", "7"),
        ("user_agent", "twin"),
        ("x_traceparent_twin", "kept, for it is nobody's twin"),
    ];
    let mut request = arrived();
    for (name, value) in dropped {
        request = request.header(name, value);
    }
    copy.head = head(request);
    let recorded = read_by_backend(&copy, |_| {}).await;
    for (name, _) in &dropped[..20] {
        assert!(
            recorded.one(name).is_none() || *name == "oncehook-attempt",
            "{name} passed: {}",
            recorded.head
        );
    }
    assert_eq!(recorded.one("x_traceparent_twin"), Some("kept, for it is nobody's twin"));
    assert_eq!(
        recorded.one("authorization"),
        Some("eyJhbGciOiJIUzI1NiJ9.e30.c2ln"),
        "named, and needed"
    );
}

#[tokio::test]
async fn claims_of_an_untrusted_peer_are_replaced() {
    let mut copy = Copy::new();
    copy.head = head(
        arrived()
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-proto", "gopher")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "for=203.0.113.9")
            .header("x-request-id", "theirs")
            .header("idempotency-key", "theirs")
            .header("oncehook-attempt", "9"),
    );
    copy.peer.address = "[::ffff:192.0.2.60]:4711".parse().unwrap();
    copy.peer.tls = false;
    let recorded = read_by_backend(&copy, |_| {}).await;
    assert_eq!(recorded.one("x-forwarded-for"), Some("192.0.2.60"));
    assert_eq!(recorded.one("x-forwarded-proto"), Some("http"));
    assert_eq!(recorded.one("x-forwarded-host"), Some("gateway.example"));
    assert_eq!(
        recorded.one("forwarded"),
        Some("for=192.0.2.60;host=\"gateway.example\";proto=http")
    );
    assert_eq!(recorded.one("x-request-id"), Some("req-1"));
    assert_eq!(recorded.one("idempotency-key"), Some("abababababababababababababababab"));
    assert_eq!(recorded.one("oncehook-attempt"), Some("1"));
}

#[tokio::test]
async fn claims_of_a_trusted_proxy_are_added_to() {
    let mut copy = Copy::new();
    copy.head = head(
        arrived()
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-for", "203.0.113.10")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "public.example")
            .header("x-forwarded-port", "8443")
            .header("x-real-ip", "203.0.113.9")
            .header("forwarded", "for=203.0.113.9")
            .header("via", "2.0 edge"),
    );
    copy.peer.address = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4711));
    copy.peer.tls = false;
    copy.peer.trusted = true;
    let recorded = read_by_backend(&copy, |_| {}).await;
    assert_eq!(recorded.one("x-forwarded-for"), Some("203.0.113.9, 203.0.113.10, 2001:db8::1"));
    assert_eq!(recorded.one("x-forwarded-proto"), Some("https"));
    assert_eq!(recorded.one("x-forwarded-host"), Some("public.example"));
    assert_eq!(recorded.one("x-forwarded-port"), Some("8443"));
    assert_eq!(recorded.one("x-real-ip"), Some("203.0.113.9"));
    let element = "for=\"[2001:db8::1]\";host=\"gateway.example\";proto=http";
    assert_eq!(recorded.one("forwarded"), Some(format!("for=203.0.113.9, {element}").as_str()));
    assert_eq!(recorded.one("via"), Some("2.0 edge, 1.1 oncehook"));
}

#[tokio::test]
async fn other_fields_pass_unchanged_and_in_order() {
    let mut copy = Copy::new();
    let opaque = HeaderValue::from_bytes(b"caf\xe9").unwrap();
    copy.head = head(
        arrived()
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .header("x-many", "1")
            .header("x-many", "2")
            .header("accept-encoding", "gzip")
            .header("x-opaque", opaque),
    );
    let recorded = read_by_backend(&copy, |_| {}).await;
    assert_eq!(
        recorded.one("traceparent"),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    );
    assert_eq!(recorded.all("x-many"), ["1", "2"]);
    assert_eq!(recorded.one("accept-encoding"), Some("gzip"));
    assert_eq!(recorded.one("x-opaque"), Some("caf\u{fffd}"));
}

#[tokio::test]
async fn a_copy_that_came_over_http2_names_its_authority_and_version() {
    let mut copy = Copy::new();
    let mut request = head(arrived());
    request.headers.remove("host");
    request.version = Version::HTTP_2;
    request.uri = "https://authority.example/livekit/webhook?a=b".parse().unwrap();
    copy.head = request;
    let recorded = read_by_backend(&copy, |options| options.host = HostPolicy::Keep).await;
    assert_eq!(recorded.line(), "POST /livekit/webhook?a=b HTTP/1.1");
    assert_eq!(recorded.one("host"), Some("authority.example"));
    assert_eq!(recorded.one("x-forwarded-host"), Some("authority.example"));
    assert_eq!(recorded.one("via"), Some("2.0 oncehook"));
}

#[tokio::test]
async fn host_and_path_are_what_the_configuration_says() {
    let copy = Copy::new();
    let kept = read_by_backend(&copy, |options| options.host = HostPolicy::Keep).await;
    assert_eq!(kept.one("host"), Some("gateway.example"));
    let fixed = HostPolicy::Fixed(HeaderValue::from_static("app.internal"));
    assert_eq!(
        read_by_backend(&copy, |options| options.host = fixed).await.one("host"),
        Some("app.internal")
    );

    let to = |path: &'static str, policy| {
        move |options: &mut Options| {
            options.target = format!("{}{path}", options.target.to_string().trim_end_matches('/'))
                .parse()
                .unwrap();
            options.path = policy;
        }
    };
    let line = |recorded: Recorded| recorded.line().to_owned();
    let target = read_by_backend(&copy, to("/hooks/livekit?x=1", PathPolicy::Target)).await;
    assert_eq!(line(target), "POST /hooks/livekit?x=1 HTTP/1.1");
    let behind = read_by_backend(&copy, to("/base/", PathPolicy::Sender)).await;
    assert_eq!(line(behind), "POST /base/livekit/webhook HTTP/1.1");
    let root = read_by_backend(&copy, to("/", PathPolicy::Target)).await;
    assert_eq!(line(root), "POST / HTTP/1.1");
}
