//! What only a restart changes is named; everything else takes effect.

use std::net::TcpStream;

use oncehook::webhook::event::EventKind;

use super::{by_other, configuration, other_key, reloaded, replace, status};
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::sender::{Sender, event};

#[tokio::test(flavor = "multi_thread")]
async fn another_address_or_store_waits_for_a_restart_and_the_rest_does_not() {
    let backend = Backend::always(Action::status(200));
    let free = |ip: &str| format!("listen.address = \"{ip}:0\"");
    let before = configuration(&backend, &[&free("127.0.0.1")], &["/webhook"]);
    let gateway = Gateway::start(&before);
    let lines = [
        &*other_key(),
        &free("127.0.0.2"),
        "store.kind = \"redis\"",
        "store.redis.url = \"redis://user:a-password@127.0.0.1:1\"",
    ];
    let text = configuration(&backend, &lines, &["/webhook"])
        .replace("tls.enabled = false", "tls.self_signed = true");
    replace(gateway.file(), &text);
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 1).await;

    let sender = Sender::to(&gateway.url("/webhook"));
    assert_eq!(sender.post(&by_other(1)).await.word, "forwarded", "the key holds");
    let told = status(&gateway).await;
    let waiting =
        ["listen.address", "store.kind", "store.redis.url", "tls.enabled", "tls.self_signed"];
    assert_eq!(told["restart_needed"], serde_json::json!(waiting));
    assert_eq!(told["reload"]["result"], "applied");
    assert_eq!(told["store"]["kind"], "memory");
    let log = gateway.log();
    let warning = log.iter().find(|line| line.contains("these changes need a restart")).unwrap();
    assert!(warning.contains("\"WARN\"") && warning.contains(&waiting.join(", ")), "{warning}");
    assert!(!log.iter().any(|line| line.contains("a-password")));

    // Taken back, nothing waits any more.
    replace(gateway.file(), &before);
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 2).await;
    assert_eq!(status(&gateway).await["restart_needed"], serde_json::json!([]));
    assert_eq!(sender.post(&by_other(1)).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_that_do_not_fit_the_store_of_this_process_are_rejected() {
    let backend = Backend::always(Action::status(200));
    // Nobody listens there: the gateway decides alone.
    let store = "store.redis.url = \"redis://127.0.0.1:1\"";
    let lines = |operation: &str, guard: &str| {
        let timeout = format!("store.redis.operation_timeout = \"{operation}\"");
        let claim = format!("claim.guard = \"{guard}\"");
        configuration(&backend, &[store, &timeout, &claim], &["/webhook"])
    };
    let gateway = Gateway::start(&lines("800ms", "2s"));
    // Right in itself; but the operations of this process would still take 800 ms.
    replace(gateway.file(), &lines("250ms", "500ms"));
    gateway.signal("HUP");
    reloaded(&gateway, "rejected", 1).await;
    let told = status(&gateway).await;
    let error = told["reload"]["error"].as_str().unwrap();
    assert!(error.contains("`claim.guard` (500 ms) must be more than"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_connections_are_allowed_from_then_on_and_none_is_closed() {
    let backend = Backend::always(Action::status(200));
    let gateway = Gateway::start(&configuration(&backend, &[], &["/webhook"]));
    let sender = Sender::to(&gateway.url("/webhook"));
    assert_eq!(sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await.word, "forwarded");
    let _another = TcpStream::connect(gateway.address()).unwrap();
    let limits = ["limits.connections_max = 1", "limits.connections_per_source_max = 1"];
    replace(gateway.file(), &configuration(&backend, &limits, &["/webhook"]));
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 1).await;
    let third = Sender::to(&gateway.url("/webhook"));
    assert!(third.try_post(&event(EventKind::EgressEnded, 2, "EV_1")).await.is_err());
    let told = sender.post(&event(EventKind::EgressEnded, 2, "EV_1")).await;
    assert_eq!(told.word, "forwarded", "the connection from before lives");
}
