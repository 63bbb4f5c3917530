//! Several routes, all other paths, TLS and HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use oncehook::webhook::event::EventKind;

use super::to;
use crate::support::backend::{Action, Backend};
use crate::support::gateway::{API_SECRET, Gateway};
use crate::support::sender::{Sender, Signed, event};

#[tokio::test(flavor = "multi_thread")]
async fn each_route_has_its_own_backend_and_its_own_namespace() {
    let (one, two) = (Backend::always(Action::status(200)), Backend::always(Action::status(201)));
    let more = format!("\n[[route]]\npath = \"/second\"\nbackend = \"{}\"\n", two.url());
    let gateway = Gateway::start(&(to(&one, "") + &more));
    let copy = event(EventKind::RoomStarted, 1, "EV_1");
    assert_eq!(Sender::to(&gateway.url("/webhook")).post(&copy).await.status, 200);
    assert_eq!(Sender::to(&gateway.url("/second")).post(&copy).await.status, 201);
    assert_eq!(one.only().line(), "POST /hook HTTP/1.1");
    assert_eq!(
        two.only().line(),
        "POST /second HTTP/1.1",
        "a backend without a path gets the route's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_takes_its_tenants_events_only() {
    let backend = Backend::always(Action::status(200));
    let secret = "the-secret-of-the-second-tenant-is-long";
    let configuration = format!(
        "tls.enabled = false\n[[tenant]]\nname = \"two\"\nkeys = {{ APItwo = \"{secret}\" }}\n\
         [[route]]\npath = \"/webhook\"\nbackend = \"{0}\"\ntenants = [\"two\"]\n\
         [[route]]\npath = \"/all\"\nbackend = \"{0}\"\n",
        backend.url()
    );
    let gateway = Gateway::start(&configuration);
    let body = event(EventKind::RoomStarted, 1, "EV_1").body;
    let (theirs, ours) = (Signed::by("APItwo", secret, body.clone()), Signed::new(body));
    assert_eq!(Sender::to(&gateway.url("/webhook")).post(&ours).await.status, 401);
    assert_eq!(Sender::to(&gateway.url("/webhook")).post(&theirs).await.status, 200);
    let all = Sender::to(&gateway.url("/all"));
    assert_eq!(all.post(&ours).await.word, "forwarded");
    assert_eq!(
        all.post(&theirs).await.word,
        "forwarded",
        "the same event of another tenant is another event"
    );
    assert_ne!(API_SECRET, secret);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_are_relayed_or_not_found() {
    let (hooks, api) = (Backend::always(Action::status(200)), Backend::always(Action::status(201)));
    let gateway = Gateway::start(&to(&hooks, ""));
    let told = Sender::to(&gateway.url("/api/create-room"))
        .request(Method::POST, HeaderMap::new(), Bytes::from_static(b"{}"))
        .await
        .unwrap();
    assert_eq!((told.status, told.word.as_str()), (404, "no-route"));

    let gateway = Gateway::start(&to(&hooks, &format!("relay.backend = \"{}\"", api.url())));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer anything"));
    let told = Sender::to(&gateway.url("/api/create-room?x=1"))
        .request(Method::POST, headers, Bytes::from_static(b"{\"name\":\"a\"}"))
        .await
        .unwrap();
    assert_eq!(told.status, 201);
    let request = api.only();
    assert_eq!(request.line(), "POST /api/create-room?x=1 HTTP/1.1");
    assert_eq!(request.body, b"{\"name\":\"a\"}");
    assert_eq!(request.one("authorization"), Some("Bearer anything"));
    assert!(hooks.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_switched_off_relays_every_copy_and_says_so() {
    let backend = Backend::always(Action::status(200));
    let mut gateway = Gateway::start(&format!("enabled = false\n{}", to(&backend, "")));
    gateway.wait_for_line("OFF");
    let sender = Sender::to(&gateway.url("/webhook"));
    for copy in 0..3 {
        assert_eq!(
            sender.post(&event(EventKind::RoomStarted, 1, &format!("EV_{copy}"))).await.status,
            200
        );
    }
    let unsigned = Signed { body: Bytes::from_static(b"{}"), token: "none".into() };
    assert_eq!(sender.post(&unsigned).await.status, 200);
    assert_eq!(backend.requests().len(), 4);
    assert_eq!(backend.requests()[0].line(), "POST /hook HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn livekits_http2_over_tls_is_the_main_road() {
    let backend = Backend::always(Action::status(200));
    let configuration = to(&backend, "").replace("tls.enabled = false", "tls.self_signed = true");
    let gateway = Gateway::start(&configuration);
    let sender = Sender::to(&format!("https://{}/webhook", gateway.address()));
    for number in 0..20 {
        let copy = event(EventKind::TrackPublished, number % 10, &format!("EV_{number}"));
        let told = sender.post(&copy).await;
        let word = if number < 10 { "forwarded" } else { "duplicate" };
        assert_eq!((told.status, told.word.as_str()), (200, word), "{number}");
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 10);
    assert_eq!(requests[0].one("x-forwarded-proto"), Some("https"));
    assert_eq!(requests[0].line(), "POST /hook HTTP/1.1");
}
