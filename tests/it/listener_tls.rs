//! The listener: certificates.

use std::fs;
use std::path::Path;
use std::time::Duration;

use oncehook::listener::Options;
use oncehook::listener::tls::{Files, Terms, Validity, server_config};
use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::TempDir;

use crate::support::dial::{GET, Running, exchange, options, self_signed, shake_hands};

fn write_pair(into: &Path, name: &str, names: &[&str]) -> (Files, String) {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut made = CertificateParams::new(names).unwrap();
    // Two issuers of one name would be told apart by their signatures only.
    made.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = made.self_signed(&key).unwrap().pem();
    let files = Files {
        certificate: into.join(format!("{name}.crt")),
        key: into.join(format!("{name}.key")),
    };
    fs::write(&files.certificate, &pem).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    (files, pem)
}

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_the_certificate_and_the_first_is_for_all_others() {
    let into = TempDir::new().unwrap();
    let (first, first_pem) = write_pair(into.path(), "first", &["hooks.example.com", "127.0.0.1"]);
    let (second, second_pem) =
        write_pair(into.path(), "second", &["other.example.com", "*.wild.example.com"]);
    let tls = server_config(&[first, second], &Terms::default()).unwrap();
    assert_eq!(tls.leaves[0].name, "hooks.example.com");
    assert_eq!(tls.leaves[1].names, ["other.example.com", "*.wild.example.com"]);
    let listener = Running::hello(Options { tls: Some(tls.server), ..options() });

    // The last has no name to ask for.
    for (name, pem) in [
        ("hooks.example.com", &first_pem),
        ("other.example.com", &second_pem),
        ("OTHER.example.com", &second_pem),
        ("a.wild.example.com", &second_pem),
        ("127.0.0.1", &first_pem),
    ] {
        let mut stream = shake_hands(listener.address, pem, name, &[])
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(exchange(&mut stream, GET).await.ends_with("hello"), "{name}");
    }
    for name in ["unknown.example.com", "a.b.wild.example.com"] {
        let error = shake_hands(listener.address, &first_pem, name, &[]).await.expect_err(name);
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
    shake_hands(listener.address, &first_pem, "other.example.com", &[])
        .await
        .expect_err("an unknown certificate");
    listener.counted("oncehook_tls_failures_total{reason=\"untrusted\"}", 3).await;
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name_and_a_hint() {
    let into = TempDir::new().unwrap();
    let (good, _) = write_pair(into.path(), "good", &["localhost"]);
    let (other, _) = write_pair(into.path(), "other", &["localhost"]);
    let write = |name: &str, text: &str| {
        let path = into.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let empty = write("empty", "nothing here\n");
    let garbage =
        write("garbage", "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n");
    let bad_key =
        write("bad", "-----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n");
    let absent = into.path().join("absent");
    let with =
        |certificate: &Path, key: &Path| Files { certificate: certificate.into(), key: key.into() };
    for (files, begins, hint) in [
        (
            with(&absent, &good.key),
            format!("cannot read {}", absent.display()),
            "readable by this process's user",
        ),
        (
            with(&empty, &good.key),
            format!("{} holds no certificate", empty.display()),
            "BEGIN CERTIFICATE",
        ),
        (
            with(&garbage, &good.key),
            format!("{} holds a certificate that cannot", garbage.display()),
            "openssl x509",
        ),
        (
            with(&good.certificate, &empty),
            format!("{} holds no private key", empty.display()),
            "BEGIN PRIVATE KEY",
        ),
        (
            with(&good.certificate, &bad_key),
            format!("{} holds a key that cannot", bad_key.display()),
            "Ed25519",
        ),
        (
            with(&good.certificate, &other.key),
            format!(
                "the key in {} is not that of the first certificate in {}",
                other.key.display(),
                good.certificate.display()
            ),
            "comes first in the chain",
        ),
    ] {
        let said = server_config(&[files], &Terms::default()).expect_err(&begins).to_string();
        let (what, what_to_do) = said.split_once("; hint: ").expect("a hint");
        assert!(what.starts_with(&begins) && what_to_do.contains(hint), "{said}");
    }
    assert!(
        server_config(&[], &Terms::default())
            .expect_err("none")
            .to_string()
            .starts_with("no certificate is configured; hint: ")
    );
}

#[test]
fn a_certificate_tells_when_it_expires() {
    const DAY: Duration = Duration::from_hours(24);
    let into = TempDir::new().unwrap();
    let mut made = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    made.not_before = rcgen::date_time_ymd(1970, 2, 1);
    made.not_after = rcgen::date_time_ymd(1970, 3, 1);
    let key = KeyPair::generate().unwrap();
    let files = Files { certificate: into.path().join("crt"), key: into.path().join("key") };
    fs::write(&files.certificate, made.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    // It is no error: an operator whose clock is wrong should not be left without a gateway.
    let leaf = server_config(&[files], &Terms::default()).unwrap().leaves.remove(0);
    assert_eq!((leaf.not_before, leaf.not_after), (DAY * 31, DAY * 59));
    assert_eq!(leaf.validity(DAY * 30), Validity::NotYet(DAY));
    assert_eq!(leaf.validity(DAY * 31), Validity::Valid(DAY * 28));
    assert_eq!(leaf.validity(DAY * 59), Validity::Valid(Duration::ZERO));
    assert_eq!(leaf.validity(DAY * 60), Validity::Expired(DAY));
}

#[test]
fn a_certificate_for_development_has_the_names_it_was_made_for() {
    let own = self_signed(&["localhost", "127.0.0.1"]);
    assert_eq!(own.tls.leaves[0].names, ["localhost"]);
    assert_eq!(own.tls.leaves[0].name, "localhost");
    assert!(own.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!own.certificate_pem.contains("PRIVATE"));
}
