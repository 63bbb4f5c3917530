//! What goes wrong, and what the client is told of it.

use std::time::Duration;

use oncehook::relay::Options;
use oncehook::upstream;

use super::{GET, Gateway, Protocol};
use crate::support::backend::{Action, Backend, Reading, Then, eventually};

#[tokio::test]
async fn a_protocol_changed_unasked_is_no_answer() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    let backend = Backend::always(Action::raw(switch).then(Then::Hang));
    let gateway = Gateway::start(&backend.url()).await;
    assert!(gateway.ask(GET).await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn what_goes_wrong_is_told_as_a_problem() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refusing = Gateway::start(&format!("http://{closed}")).await;
    let answer = refusing.ask(GET).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway"), "{answer}");
    assert!(
        answer.contains("content-type: application/problem+json")
            && answer.contains("x-request-id: req-1")
    );
    let expected = r#"{"type":"about:blank","title":"Bad Gateway","status":502,"detail":"the backend cannot be reached"}"#;
    assert!(answer.ends_with(expected), "{answer}");
    assert!(!answer.contains(&closed.to_string()), "the backend's address is nobody's business");

    let looped = GET
        .replace("connection: close", "via: 1.1 edge, 1.1 Oncehook (again)\r\nconnection: close");
    assert!(refusing.ask(&looped).await.starts_with("HTTP/1.1 508"));

    for (action, status) in
        [(Action::raw("garbage\r\n\r\n"), 502), (Action::silent(Then::Close), 502)]
    {
        let backend = Backend::always(action.then(Then::Close));
        let answer = Gateway::start(&backend.url()).await.ask(GET).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert_eq!(backend.connections(), 1, "not repeated");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_given_up_but_not_while_the_request_arrives() {
    let hasty = |_: &mut upstream::Options, options: &mut Options| {
        options.head_timeout = Duration::from_millis(200);
    };
    let hanging = Backend::always(Action::silent(Then::Hang));
    let gateway = Gateway::start_with(&hanging.url(), Protocol::Http1, hasty).await;
    let answer = gateway.ask(GET).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");

    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start_with(&backend.url(), Protocol::Http1, hasty).await;
    let mut client = gateway.connect().await;
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(80)).await;
        client.send("x").await;
    }
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_stops_is_cut_off_and_not_ended() {
    let action = Action::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .then(Then::Hang);
    let backend = Backend::always(action);
    let idle = |_: &mut upstream::Options, options: &mut Options| {
        options.idle_timeout = Duration::from_millis(200);
    };
    let gateway = Gateway::start_with(&backend.url(), Protocol::Http1, idle).await;
    let answer = gateway.ask(GET).await;
    assert!(
        answer.ends_with("5\r\nfirst\r\n"),
        "no last chunk, so that the client knows: {answer}"
    );
}

#[tokio::test]
async fn a_client_that_stops_sending_costs_no_connection() {
    let backend = Backend::always(Action::status(200));
    let idle = |_: &mut upstream::Options, options: &mut Options| {
        options.idle_timeout = Duration::from_millis(200);
    };
    let gateway = Gateway::start_with(&backend.url(), Protocol::Http1, idle).await;
    let answer = gateway.ask("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_exchange_with_the_backend() {
    let backend = Backend::always(Action::silent(Then::Hang).reading(Reading::Whole));
    let gateway = Gateway::start(&backend.url()).await;
    let mut client = gateway.connect().await;
    client.send(GET).await;
    eventually("the request arrives", || !backend.requests().is_empty()).await;
    drop(client);
    eventually("the backend's side is closed", || backend.open_connections() == 0).await;
}
