//! Certificates that are renewed while connections are open.

use std::path::Path;

use oncehook::listener::tls::ALPN_HTTP1;

use super::{by_other, configuration, other_key, reloaded, replace, status};
use crate::gateway::page;
use crate::listener_clients::{Authority, Shown, is_answered};
use crate::support::backend::{Action, Backend};
use crate::support::dial::{exchange, shake_hands};
use crate::support::gateway::Gateway;
use crate::support::sender::Sender;

const GET: &str = "GET /other HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A certificate for `name` and for localhost, and its key, as PEM.
fn certificate(name: &str) -> (String, String) {
    let names = vec![name.to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn write(folder: &Path, certificate: &str, key: &str) {
    std::fs::write(folder.join("tls.crt"), certificate).unwrap();
    std::fs::write(folder.join("tls.key"), key).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_handshakes_get_the_new_certificate_and_old_connections_go_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let ((old, old_key), (new, new_key)) = (certificate("old.example"), certificate("new.example"));
    write(folder.path(), &old, &old_key);
    let backend = Backend::always(Action::status(200));
    let text = |lines: &[&str]| {
        let mut text = configuration(&backend, lines, &["/webhook"]);
        text += "[[tls.certificate]]\ncertificate_file = \"tls.crt\"\nkey_file = \"tls.key\"\n";
        text.replace("tls.enabled = false\n", "")
    };
    let file = folder.path().join("oncehook.toml");
    std::fs::write(&file, text(&[])).unwrap();
    let gateway = Gateway::start_from(&file);
    let address = gateway.address();
    let shake = async |pem: &str| shake_hands(address, pem, "localhost", &[ALPN_HTTP1]).await;
    let mut before = shake(&old).await.unwrap();
    assert!(exchange(&mut before, GET).await.starts_with("HTTP/1.1 404"));
    assert!(shake(&new).await.is_err());

    // A certificate whose key is another: nothing of that configuration holds, its new API key neither.
    let sender = Sender::to(&format!("https://{address}/webhook"));
    replace(&file, &text(&[&other_key()]));
    std::fs::write(folder.path().join("tls.crt"), &new).unwrap();
    gateway.signal("HUP");
    reloaded(&gateway, "rejected", 1).await;
    let error = status(&gateway).await["reload"]["error"].to_string();
    assert!(error.contains("is not that of the first certificate"), "{error}");
    shake(&old).await.unwrap();
    assert_eq!(sender.post(&by_other(1)).await.status, 401);

    write(folder.path(), &new, &new_key);
    reloaded(&gateway, "applied", 1).await;
    assert_eq!(sender.post(&by_other(1)).await.word, "forwarded");
    let mut after = shake(&new).await.unwrap();
    assert!(exchange(&mut after, GET).await.starts_with("HTTP/1.1 404"));
    assert!(shake(&old).await.is_err());
    assert!(exchange(&mut before, GET).await.starts_with("HTTP/1.1 404"), "it lives");

    let told = status(&gateway).await;
    assert_eq!(told["certificates"][0]["name"], "new.example");
    let changed = told["reload"]["changed"].to_string();
    assert!(changed.contains("tls.certificate[0].key_file (its file)"), "{changed}");
    let metrics = page(&gateway, "/metrics").await.1;
    assert!(metrics.contains("not_after_seconds{name=\"new.example\"}"));
    assert!(!metrics.contains("old.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_revoked_without_a_restart_and_a_damaged_authority_changes_nothing()
{
    let folder = tempfile::TempDir::new().unwrap();
    let (server, server_key) = certificate("gateway.example");
    write(folder.path(), &server, &server_key);
    let ours = Authority::new("clients of the test");
    let (good, soon_bad) = (ours.sign(1, 2040), ours.sign(2, 2040));
    let file_of = |name: &str| folder.path().join(name);
    std::fs::write(file_of("ca.crt"), &ours.pem).unwrap();
    std::fs::write(file_of("clients.crl"), ours.revoke(&[], 2040)).unwrap();
    let backend = Backend::always(Action::status(200));
    let mut text = configuration(&backend, &[], &["/webhook"]);
    text += "[[tls.certificate]]\ncertificate_file = \"tls.crt\"\nkey_file = \"tls.key\"\n";
    text += "[tls.client]\nca_file = \"ca.crt\"\ncrl_file = \"clients.crl\"\n";
    let file = file_of("oncehook.toml");
    std::fs::write(&file, text.replace("tls.enabled = false\n", "")).unwrap();
    let gateway = Gateway::start_from(&file);
    let ask = async |shown: &Shown| {
        is_answered(gateway.address(), shown.config(&server), "localhost").await
    };
    assert_eq!(ask(&good).await.unwrap(), "404");
    assert_eq!(ask(&soon_bad).await.unwrap(), "404");

    std::fs::write(file_of("clients.crl"), ours.revoke(&[2], 2040)).unwrap();
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 1).await;
    assert_eq!(ask(&good).await.unwrap(), "404");
    assert!(ask(&soon_bad).await.unwrap_err().contains("CertificateRevoked"));

    std::fs::write(file_of("ca.crt"), "damaged").unwrap();
    gateway.signal("HUP");
    reloaded(&gateway, "rejected", 1).await;
    assert_eq!(ask(&good).await.unwrap(), "404");
    assert!(ask(&soon_bad).await.unwrap_err().contains("CertificateRevoked"));

    // A list whose time is over is told, for nobody can come in.
    std::fs::write(file_of("ca.crt"), &ours.pem).unwrap();
    std::fs::write(file_of("clients.crl"), ours.revoke(&[2], 2021)).unwrap();
    gateway.signal("HUP");
    reloaded(&gateway, "applied", 2).await;
    assert!(ask(&good).await.is_err());
    let log = gateway.log().join("\n");
    assert!(log.contains("this list of revoked client certificates has expired"), "{log}");
    let metrics = page(&gateway, "/metrics").await.1;
    for family in ["client_ca_not_after", "client_crl_next_update"] {
        let sample = format!("oncehook_tls_{family}_seconds{{name=\"CN=clients of the test\"}} ");
        assert!(metrics.contains(&sample), "{sample} is not in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_within_two_weeks_is_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let soon = oncehook::clock::unix().seconds() + 10 * 86_400;
    let date =
        oncehook::clock::UnixTime::from_epoch(std::time::Duration::from_secs(soon)).rfc3339();
    let part = |range: std::ops::Range<usize>| date[range].parse::<u16>().unwrap();
    let mut made = rcgen::CertificateParams::new(vec!["soon.example".to_owned()]).unwrap();
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    made.not_after = rcgen::date_time_ymd(year.into(), month as u8, day as u8);
    let key = rcgen::KeyPair::generate().unwrap();
    write(folder.path(), &made.self_signed(&key).unwrap().pem(), &key.serialize_pem());
    let backend = Backend::always(Action::status(200));
    let mut text = configuration(&backend, &[], &["/webhook"]);
    text += "[[tls.certificate]]\ncertificate_file = \"tls.crt\"\nkey_file = \"tls.key\"\n";
    let file = folder.path().join("oncehook.toml");
    std::fs::write(&file, text.replace("tls.enabled = false\n", "")).unwrap();
    let mut gateway = Gateway::start_from(&file);
    let line = gateway.wait_for_line("this certificate expires soon");
    assert!(line.contains("\"certificate\":\"soon.example\",\"days_left\":9"), "{line}");
}
