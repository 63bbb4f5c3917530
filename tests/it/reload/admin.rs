//! The admin listener of a gateway that runs: what it asks for, how commands show it, and that both may change.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{configuration, replace, status};
use crate::gateway::page;
use crate::listener_clients::Authority;
use crate::support::backend::{Action, Backend};
use crate::support::gateway::Gateway;
use crate::support::process::output;
use crate::support::redis::until;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER_TOKEN: &str = "fedcba9876543210fedcba9876543210";

fn write(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_a_token_which_may_change_and_cannot_go_while_other_machines_can_connect() {
    let folder = tempfile::TempDir::new().unwrap();
    let token = write(&folder.path().join("token"), &format!("{TOKEN}\n"));
    let other = write(&folder.path().join("other"), OTHER_TOKEN);
    let backend = Backend::always(Action::status(200));
    let file = folder.path().join("oncehook.toml");
    let guarded = configuration(
        &backend,
        &["admin.address = \"0.0.0.0:0\"", "admin.token_file = \"token\""],
        &["/webhook"],
    );
    fs::write(&file, &guarded).unwrap();
    let gateway = Gateway::start_from(&file);
    let admin = format!("127.0.0.1:{}", gateway.admin().port());
    let show =
        |token: &Path| output(&["status", "--admin", &admin, "--token-file", &text_of(token)]);

    let (code, text, _) = show(&token);
    assert_eq!(code, 0, "{text}");
    let (code, text, talk) = output(&["status", "--admin", &admin]);
    assert_eq!((code, text.as_str()), (77, ""), "{talk}");
    assert!(talk.contains("--token-file"), "{talk}");
    assert_eq!(show(&other).0, 77);
    // Probes need none.
    assert_eq!(output(&["healthcheck", "--address", &admin]).0, 0);

    // Another token holds at once.
    write(&token, OTHER_TOKEN);
    gateway.signal("HUP");
    until("the new token opens", async || show(&other).0 == 0).await;

    // It may not go before the address does.
    let reload = || {
        let (_, json, _) = output(&[
            "status",
            "--admin",
            &admin,
            "--format",
            "json",
            "--token-file",
            &text_of(&other),
        ]);
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["reload"].clone()
    };
    replace(&file, &configuration(&backend, &["admin.address = \"127.0.0.1:0\""], &["/webhook"]));
    gateway.signal("HUP");
    until("the reload is rejected", async || reload()["result"] == "rejected").await;
    assert!(reload()["error"].as_str().unwrap().contains("until a restart"), "{}", reload());
    assert_eq!(output(&["status", "--admin", &admin]).0, 77);
    assert!(!gateway.log().iter().any(|line| line.contains(TOKEN) || line.contains(OTHER_TOKEN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_a_client_certificate_over_tls() {
    let folder = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file_of = |name: &str| folder.path().join(name);
    let ca = write(&file_of("admin.crt"), &made.cert.pem());
    write(&file_of("admin.key"), &made.signing_key.serialize_pem());
    let operators = Authority::new("operators");
    write(&file_of("operators.crt"), &operators.pem);
    let (certificate, key) = operators.sign(1, 2040).pem();
    let certificate = write(&file_of("me.crt"), &certificate);
    let key = write(&file_of("me.key"), &key);
    let backend = Backend::always(Action::status(200));
    let lines = [
        "admin.tls.certificate_file = \"admin.crt\"",
        "admin.tls.key_file = \"admin.key\"",
        "admin.tls.client_ca_file = \"operators.crt\"",
    ];
    let file = file_of("oncehook.toml");
    fs::write(&file, configuration(&backend, &lines, &["/webhook"])).unwrap();
    let gateway = Gateway::start_from(&file);
    let admin = gateway.admin().to_string();
    let (ca, certificate, key) = (text_of(&ca), text_of(&certificate), text_of(&key));
    let trusting = ["--admin", &admin, "--ca-file", &ca];
    let showing = ["--certificate-file", &certificate, "--key-file", &key];

    let (code, text, talk) = output(&[&["status"][..], &trusting, &showing].concat());
    assert_eq!(code, 0, "{text}{talk}");
    let (code, _, talk) = output(&[&["status"][..], &trusting].concat());
    assert_eq!(code, 77, "{talk}");
    assert!(talk.contains("--certificate-file"), "{talk}");
    assert_eq!(output(&["status", "--admin", &admin]).0, 69, "plain HTTP");
    assert_eq!(output(&["healthcheck", "--address", &admin, "--ca-file", &ca]).0, 0);

    // Without TLS again, at once.
    replace(&file, &configuration(&backend, &[], &["/webhook"]));
    gateway.signal("HUP");
    until("plain HTTP is served", async || output(&["status", "--admin", &admin]).0 == 0).await;
    assert_eq!(status(&gateway).await["restart_needed"], serde_json::json!([]));
    assert_eq!(page(&gateway, "/metrics").await.0, 200);
}
