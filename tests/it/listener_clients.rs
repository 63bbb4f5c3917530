//! The listener: whose TLS it takes: versions, names, client certificates and what has been revoked.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oncehook::listener::Options;
use oncehook::listener::tls::{
    Clients, Demand, Files, Terms, Tls, TlsError, UnknownNames, Version, server_config,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::dial::{GET, Running, client, options, shake_hands_on, trusting};

/// An authority of client certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut made = CertificateParams::default();
        made.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        made.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        made.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = made.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(made, key), pem }
    }

    /// A client certificate with this serial number, valid until `year`.
    pub(crate) fn sign(&self, serial: u64, year: i32) -> Shown {
        let mut made = CertificateParams::default();
        made.distinguished_name.push(DnType::CommonName, format!("client {serial}"));
        made.serial_number = Some(SerialNumber::from(serial));
        made.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = made.signed_by(&key, &self.issuer).unwrap();
        Shown { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }

    /// Its list of revoked certificates, to be renewed in `year`.
    pub(crate) fn revoke(&self, serials: &[u64], year: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// What a client shows.
pub(crate) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Shown {
    /// The certificate and its key.
    pub(crate) fn pem(&self) -> (String, String) {
        let of = |label: &str, der: &[u8]| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        (of("CERTIFICATE", &self.chain[0]), of("PRIVATE KEY", &self.key))
    }

    pub(crate) fn config(&self, server_pem: &str) -> ClientConfig {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        trusting(server_pem).with_client_auth_cert(self.chain.clone(), key).unwrap()
    }
}

/// A listener's files, and what its certificate is trusted by.
struct Machine {
    folder: TempDir,
    files: Files,
    pem: String,
}

impl Machine {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = Files { certificate: path("crt"), key: path("key") };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        Self { files, pem: made.cert.pem(), folder }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn tls(&self, terms: &Terms) -> Result<Tls, TlsError> {
        server_config(std::slice::from_ref(&self.files), terms)
    }

    fn listener(&self, terms: &Terms) -> Running {
        let tls = self.tls(terms).unwrap();
        Running::hello(Options { tls: Some(tls.server), names: tls.names, ..options() })
    }

    fn clients(&self, authority: &Authority, crl: Option<&str>) -> Clients {
        let crl = crl.map(|text| self.write("crl", text));
        Clients { ca: self.write("ca", &authority.pem), crl, demand: Demand::Required }
    }
}

fn with(clients: Clients) -> Terms {
    Terms { clients: Some(clients), ..Terms::default() }
}

/// Whether a client gets an answer. With TLS 1.3 it believes in the handshake before the server has seen its certificate.
async fn is_served(listener: &Running, config: ClientConfig, name: &str) -> Result<(), String> {
    is_answered(listener.address, config, name).await.map(|status| assert_eq!(status, "200"))
}

/// The status that a client gets for a `GET /`.
pub(crate) async fn is_answered(
    address: SocketAddr,
    config: ClientConfig,
    name: &str,
) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream =
        shake_hands_on(stream, config, name).await.map_err(|error| error.to_string())?;
    stream.write_all(GET.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer[9..]).into_owned())
}

fn failures(reason: &str) -> String {
    format!("oncehook_tls_failures_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn only_certificates_of_the_authority_are_served_if_one_is_required() {
    let machine = Machine::new();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let listener = machine.listener(&with(machine.clients(&ours, None)));
    let serve = async |config| is_served(&listener, config, "localhost").await;

    serve(ours.sign(1, 2040).config(&machine.pem)).await.unwrap();
    let none = serve(client(&machine.pem)).await.unwrap_err();
    assert!(none.contains("CertificateRequired"), "{none}");
    let foreign = serve(theirs.sign(1, 2040).config(&machine.pem)).await.unwrap_err();
    assert!(foreign.contains("UnknownCA"), "{foreign}");
    let expired = serve(ours.sign(2, 2021).config(&machine.pem)).await.unwrap_err();
    assert!(expired.contains("CertificateExpired"), "{expired}");
    for reason in ["no_client_certificate", "client_untrusted", "client_expired"] {
        listener.counted(&failures(reason), 1).await;
    }

    // Optional: whoever shows none is served, whoever shows a bad one is not.
    let clients = Clients { demand: Demand::Optional, ..machine.clients(&ours, None) };
    let listener = machine.listener(&with(clients));
    let serve = async |config| is_served(&listener, config, "localhost").await;
    serve(client(&machine.pem)).await.unwrap();
    serve(ours.sign(1, 2040).config(&machine.pem)).await.unwrap();
    serve(theirs.sign(1, 2040).config(&machine.pem)).await.unwrap_err();
}

#[tokio::test]
async fn who_is_revoked_is_refused_and_so_is_everyone_while_nobody_knows() {
    let machine = Machine::new();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (good, bad) = (ours.sign(1, 2040), ours.sign(2, 2040));

    let terms = with(machine.clients(&ours, Some(&ours.revoke(&[2], 2040))));
    let list = machine.tls(&terms).unwrap().lists.remove(0);
    assert_eq!(list.name, "CN=ours");
    let listener = machine.listener(&terms);
    is_served(&listener, good.config(&machine.pem), "localhost").await.unwrap();
    let refused = is_served(&listener, bad.config(&machine.pem), "localhost").await.unwrap_err();
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    listener.counted(&failures("client_revoked"), 1).await;

    for useless in [ours.revoke(&[2], 2021), theirs.revoke(&[], 2040)] {
        let listener = machine.listener(&with(machine.clients(&ours, Some(&useless))));
        is_served(&listener, good.config(&machine.pem), "localhost").await.unwrap_err();
        listener.counted(&failures("revocation_unknown"), 1).await;
    }
}

#[tokio::test]
async fn a_session_is_not_resumed_where_client_certificates_are_checked() {
    let machine = Machine::new();
    let ours = Authority::new("ours");
    for (terms, kinds) in [(Terms::default(), 1), (with(machine.clients(&ours, None)), 0)] {
        let listener = machine.listener(&terms);
        let mut config = ours.sign(1, 2040).config(&machine.pem);
        config.resumption = Resumption::in_memory_sessions(4);
        let mut resumed = 0;
        for _ in 0..2 {
            let stream = TcpStream::connect(listener.address).await.unwrap();
            let mut stream = shake_hands_on(stream, config.clone(), "localhost").await.unwrap();
            // Tickets come behind the handshake.
            stream.write_all(GET.as_bytes()).await.unwrap();
            stream.read_u8().await.unwrap();
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            resumed += usize::from(kind == rustls::HandshakeKind::Resumed);
        }
        assert_eq!(resumed, kinds);
    }
}

#[tokio::test]
async fn with_strict_sni_only_names_of_certificates_may_be_asked_for() {
    let machine = Machine::new();
    let terms = Terms { unknown_names: UnknownNames::Refuse, ..Terms::default() };
    let listener = machine.listener(&terms);
    for name in ["localhost", "LOCALHOST"] {
        is_served(&listener, client(&machine.pem), name).await.unwrap();
    }
    // For an address, a client asks for no name.
    for name in ["other.example", "127.0.0.1"] {
        let refused = is_served(&listener, client(&machine.pem), name).await.unwrap_err();
        assert!(refused.contains("UnrecognisedName"), "{name}: {refused}");
    }
    listener.counted(&failures("unknown_name"), 2).await;
    let mut plain = listener.connect().await;
    plain.write_all(GET.as_bytes()).await.unwrap();
    crate::support::dial::read_to_end(&mut plain).await;
    listener.counted(&failures("not_tls"), 1).await;
}

#[tokio::test]
async fn a_version_that_is_too_old_is_refused() {
    let machine = Machine::new();
    let speaking = |versions: &[&'static SupportedProtocolVersion]| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(machine.pem.as_bytes()).unwrap()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let both = machine.listener(&Terms::default());
    let newest = machine.listener(&Terms { oldest: Version::Tls13, ..Terms::default() });
    is_served(&both, speaking(&[&TLS12]), "localhost").await.unwrap();
    is_served(&newest, speaking(&[&TLS13]), "localhost").await.unwrap();
    let refused = is_served(&newest, speaking(&[&TLS12]), "localhost").await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    newest.counted(&failures("incompatible"), 1).await;
}

#[test]
fn what_is_wrong_with_authorities_and_lists_is_said_with_the_file_and_a_hint() {
    let machine = Machine::new();
    let ours = Authority::new("ours");
    let empty = machine.write("empty", "nothing\n");
    let damaged =
        machine.write("damaged", "-----BEGIN X509 CRL-----\nbm9uZQ==\n-----END X509 CRL-----\n");
    let ca = machine.write("ca", &ours.pem);
    let told = |ca: &Path, crl: Option<&Path>| {
        let crl = crl.map(Path::to_owned);
        let clients = Clients { ca: ca.to_owned(), crl, demand: Demand::Required };
        machine.tls(&with(clients)).expect_err("it is wrong").to_string()
    };
    for (told, file, hint) in [
        (told(&empty, None), &empty, "authorities that sign client certificates"),
        (told(&ca, Some(&empty)), &empty, "BEGIN X509 CRL"),
        (told(&ca, Some(&damaged)), &damaged, "openssl crl"),
    ] {
        let (what, what_to_do) = told.split_once("; hint: ").expect("a hint");
        assert!(what.starts_with(&file.display().to_string()), "{told}");
        assert!(what_to_do.contains(hint), "{told}");
    }
    let tls = machine.tls(&with(machine.clients(&ours, None))).unwrap();
    assert_eq!(tls.authorities[0].name, "CN=ours");
    assert!(tls.authorities[0].not_after > Duration::from_hours(24));
}
