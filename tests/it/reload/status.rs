//! `oncehook status`, asked of gateways in every state.

use std::sync::Arc;

use oncehook::webhook::event::EventKind;

use super::{configuration, held, reloaded, replace};
use crate::gateway::page;
use crate::support::backend::{Backend, Gate};
use crate::support::gateway::Gateway;
use crate::support::process::{Process, oncehook, output};
use crate::support::redis::until;
use crate::support::sender::{Sender, event};

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_whether_a_gateway_is_ready_and_how_it_fares() {
    let gate = Arc::new(Gate::default());
    let backend = Backend::always(held(&gate));
    let mut gateway = Gateway::start(&configuration(&backend, &[], &["/webhook"]));
    let admin = gateway.admin().to_string();
    let sender = Sender::to(&gateway.url("/webhook"));
    let waiting =
        tokio::spawn(async move { sender.post(&event(EventKind::EgressEnded, 1, "EV_1")).await });
    until("the backend has the event", async || backend.requests().len() == 1).await;

    let (code, text, talk) = output(&["status", "--admin", &admin]);
    assert_eq!((code, talk.as_str()), (0, ""), "{text}");
    for part in [
        "   ready   up ",
        &format!("webhooks  /webhook -> {}/hook\n", backend.url()),
        "the rest  404\n",
        "store     memory\n",
        "now       1 in flight, 0 unfinished\n",
        "reload    none since the start\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    replace(gateway.file(), "claim.lease = 1\n");
    gateway.signal("HUP");
    reloaded(&gateway, "rejected", 1).await;
    let (code, text, _) = output(&["status", "--admin", &admin]);
    assert_eq!(code, 0, "it still serves");
    assert!(text.contains("reload    REJECTED at 20"), "{text}");
    assert!(text.contains("claim.lease"), "{text}");

    let (code, json, _) = output(&["status", "--admin", &admin, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["in_flight"].as_u64()), (0, Some(1)));
    assert_eq!(json["reload"]["result"], "rejected");

    gateway.signal("TERM");
    until("it drains", async || page(&gateway, "/readyz").await.0 == 503).await;
    let (code, text, _) = output(&["status", "--admin", &admin]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("   draining   up "), "{text}");
    gate.open();
    assert_eq!(waiting.await.unwrap().word, "forwarded");
    assert!(gateway.wait().success());
    let (code, text, talk) = output(&["status", "--admin", &admin]);
    assert_eq!((code, text.as_str()), (69, ""), "{talk}");
    assert!(talk.contains("hint: is the gateway running"), "{talk}");
}

#[test]
fn a_trial_ends_on_hangup_as_its_terminal_does() {
    let backend = "http://127.0.0.1:1/";
    let mut command = oncehook(&["run", "--dev", "--listen", "127.0.0.1:0", "--backend", backend]);
    command.env("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0");
    let mut trial = Process::start(command);
    trial.said("http://");
    trial.signal("HUP");
    assert!(trial.wait().success());
}
