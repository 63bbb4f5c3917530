//! TLS to the backend: whose certificates are believed, which one is shown, and what the errors say.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use oncehook::claim::exchange::Outcome;
use oncehook::upstream::{ClientCertificate, ForwardError, Options, TlsOptions, Upstream};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::{Copy, options, upstream};
use crate::support::backend::{Action, Backend, Reading, Then, eventually};

/// A private CA, and a directory with what it issued.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem())
            .unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, name: &str) -> ClientCertificate {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let issued = ClientCertificate { chain: self.file("cert.pem"), key: self.file("key.pem") };
        fs::write(&issued.chain, certificate.pem()).unwrap();
        fs::write(&issued.key, key.serialize_pem()).unwrap();
        issued
    }

    /// For a backend that is called `name` and, if told so, asks for a certificate of this authority.
    fn server(&self, name: &str, clients: bool) -> Arc<ServerConfig> {
        let issued = self.issue(name);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions();
        let builder = builder.unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(issued.chain).unwrap()];
        Arc::new(
            builder
                .with_single_cert(chain, PrivateKeyDer::from_pem_file(issued.key).unwrap())
                .unwrap(),
        )
    }

    fn options(&self, backend: &Backend) -> Options {
        let mut options = options(&format!("https://{}", backend.address()));
        options.tls = Some(TlsOptions { ca: Some(self.file("ca.pem")), ..TlsOptions::default() });
        options
    }
}

#[tokio::test]
async fn a_backend_of_a_private_ca_is_believed_and_its_connection_used_again() {
    let authority = Authority::new();
    let backend = Backend::start_tls(|_| Action::status(200), authority.server("127.0.0.1", false));
    let upstream = upstream(&authority.options(&backend));
    for _ in 0..3 {
        let forwarded = Copy::new().forward(&upstream).await;
        assert_eq!(forwarded.outcome, Outcome::Delivered(200), "{:?}", forwarded.detail);
        eventually("the connection is at rest", || upstream.busy() == 0).await;
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_backend_that_closes_over_tls_never_makes_a_forward_ambiguous() {
    let authority = Authority::new();
    let closing = |_| Action::status(200).then(Then::Close);
    let backend = Backend::start_tls(closing, authority.server("127.0.0.1", false));
    let upstream = upstream(&authority.options(&backend));
    for _ in 0..100 {
        assert_eq!(Copy::new().forward(&upstream).await.outcome, Outcome::Delivered(200));
    }
}

#[tokio::test]
async fn the_name_to_check_can_be_set() {
    let authority = Authority::new();
    let backend =
        Backend::start_tls(|_| Action::status(200), authority.server("app.internal", false));
    let mut options = authority.options(&backend);
    let wrong = Copy::new().forward(&upstream(&options)).await;
    assert_eq!(wrong.outcome, Outcome::Unreached);
    assert!(matches!(wrong.detail, Some(ForwardError::Handshake { .. })), "{:?}", wrong.detail);
    if let Some(tls) = &mut options.tls {
        tls.server_name = Some("app.internal".to_owned());
    }
    assert_eq!(Copy::new().forward(&upstream(&options)).await.outcome, Outcome::Delivered(200));
}

#[tokio::test]
async fn a_backend_of_another_ca_or_without_tls_is_unreached_and_nothing_is_sent() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let stranger = Backend::start_tls(|_| Action::status(200), theirs.server("127.0.0.1", false));
    let bad_request = Action::raw(
        "HTTP/1.1 400 Bad Request

",
    )
    .then(Then::Close);
    let plain = Backend::always(bad_request.reading(Reading::Nothing));
    for backend in [stranger, plain] {
        let forwarded = Copy::new().forward(&upstream(&ours.options(&backend))).await;
        assert_eq!(forwarded.outcome, Outcome::Unreached, "{:?}", forwarded.detail);
        assert!(backend.requests().is_empty());
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_its_lack_is_never_taken_for_a_delivery() {
    let authority = Authority::new();
    let backend = Backend::start_tls(|_| Action::status(200), authority.server("127.0.0.1", true));
    let mut options = authority.options(&backend);
    let without = Copy::new().forward(&upstream(&options)).await;
    // The alert may be overtaken by the reset that follows it.
    assert!(matches!(without.outcome, Outcome::Unreached | Outcome::Ambiguous), "{without:?}");
    assert!(backend.requests().is_empty());
    if let Some(tls) = &mut options.tls {
        tls.client = Some(authority.issue("gateway.internal"));
    }
    let with = Copy::new().forward(&upstream(&options)).await;
    assert_eq!(with.outcome, Outcome::Delivered(200), "{:?}", with.detail);
}

#[test]
fn a_pem_file_that_cannot_be_used_is_named_with_a_hint() {
    let authority = Authority::new();
    let issued = authority.issue("gateway.internal");
    let other_key = authority.file("other.pem");
    fs::write(&other_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let empty = authority.file("empty.pem");
    fs::write(&empty, "nothing here\n").unwrap();
    let missing = authority.file("missing.pem");
    let client = |chain: &PathBuf, key: &PathBuf| {
        Some(ClientCertificate { chain: chain.clone(), key: key.clone() })
    };
    let cases = [
        (Some(missing.clone()), None, &missing),
        (Some(empty.clone()), None, &empty),
        (Some(authority.file("ca.pem")), client(&empty, &issued.key), &empty),
        (Some(authority.file("ca.pem")), client(&issued.chain, &issued.chain), &issued.chain),
        (Some(authority.file("ca.pem")), client(&issued.chain, &other_key), &other_key),
    ];
    for (ca, client, at_fault) in cases {
        let mut options = options("https://127.0.0.1:1");
        options.tls = Some(TlsOptions { ca, client, ..TlsOptions::default() });
        let message =
            Upstream::new(&options, TaskTracker::new()).err().expect("refused").to_string();
        assert!(
            message.contains(&at_fault.display().to_string()) && message.contains("\nhint: "),
            "{message}"
        );
    }
}

#[test]
fn tls_settings_for_a_plain_backend_are_a_contradiction() {
    let mut options = options("http://127.0.0.1:1");
    options.tls = Some(TlsOptions::default());
    let message = Upstream::new(&options, TaskTracker::new()).err().expect("refused").to_string();
    assert!(message.contains("not https"), "{message}");
}
