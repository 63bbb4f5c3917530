//! The schema: every key of the configuration, its bounds and its default, in the order of the sections.
//!
//! Each setting is sound by itself here; what does not fit together is left to [`super::checks`], which makes the
//! [`super::Config`]. `config/oncehook.toml` explains the same keys to people; a test holds the two together.

pub(super) mod routes;
pub(super) mod store;
pub(super) mod tenants;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::claim::exchange::OnAmbiguous;
use crate::webhook::event::EventKind;
use crate::webhook::key::Identity;

use super::reader::Sensitivity;
use super::section::Section;
use super::value::Bytes;
use super::{
    Certificate, ClientMode, Dedup, Limits, Listen, Log, LogFormat, LogLevel, Shutdown, TlsVersion,
    Windows,
};

/// Everything as it was written, with defaults.
pub(super) struct Raw {
    pub(super) enabled: bool,
    pub(super) tenants: Vec<tenants::RawTenant>,
    pub(super) listen: Listen,
    pub(super) tls: RawTls,
    pub(super) admin: RawAdmin,
    pub(super) upstream: routes::RawUpstream,
    pub(super) routes: Vec<routes::RawRoute>,
    pub(super) relay: routes::RawRelay,
    pub(super) store: store::RawStore,
    pub(super) dedup: Dedup,
    pub(super) claim: RawClaim,
    pub(super) limits: Limits,
    pub(super) log: Log,
    pub(super) shutdown: Shutdown,
}

/// `[tls]`
pub(super) struct RawTls {
    pub(super) enabled: bool,
    pub(super) self_signed: bool,
    pub(super) min_version: TlsVersion,
    pub(super) strict_sni: bool,
    pub(super) certificates: Vec<Option<Certificate>>,
    pub(super) client: RawTlsClient,
}

/// `[tls.client]`
pub(super) struct RawTlsClient {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) crl_file: Option<PathBuf>,
    pub(super) mode: ClientMode,
}

/// `[admin]`
pub(super) struct RawAdmin {
    pub(super) address: SocketAddr,
    pub(super) token: Option<SecretString>,
    pub(super) certificate: Option<Certificate>,
    pub(super) client_ca_file: Option<PathBuf>,
}

/// `[claim]`
pub(super) struct RawClaim {
    pub(super) lease: Duration,
    pub(super) guard: Duration,
    pub(super) join_wait: Duration,
    pub(super) on_ambiguous: OnAmbiguous,
}

/// Reads all sections.
pub(super) fn config(root: &mut Section<'_, '_>) -> Raw {
    let enabled = root.take("enabled", true);
    let tenants = tenants::tenants(root);
    let listen = root.section("listen", listen);
    let tls = root.section("tls", tls);
    let admin = root.section("admin", admin);
    let upstream = root.section("upstream", routes::upstream);
    let routes = routes::routes(root, &upstream);
    let relay = root.section("relay", |section| routes::relay(section, &upstream));
    let store = root.section("store", store::store);
    let dedup = root.section("dedup", dedup);
    let claim = root.section("claim", claim);
    let limits = root.section("limits", limits);
    let log = root.section("log", |section| Log {
        format: section.take("format", LogFormat::Json),
        level: section.take("level", LogLevel::Info),
    });
    let shutdown = root.section("shutdown", |section| Shutdown {
        drain_delay: section.within("drain_delay", seconds(5), Duration::ZERO..=minutes(10)),
        grace: section.within("grace", seconds(30), Duration::ZERO..=minutes(60)),
    });
    Raw {
        enabled,
        tenants,
        listen,
        tls,
        admin,
        upstream,
        routes,
        relay,
        store,
        dedup,
        claim,
        limits,
        log,
        shutdown,
    }
}

pub(super) const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

pub(super) const fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

pub(super) const fn kib(number: usize) -> Bytes {
    Bytes(number << 10)
}

pub(super) const fn mib(number: usize) -> Bytes {
    Bytes(number << 20)
}

pub(super) const fn gib(number: usize) -> Bytes {
    Bytes(number << 30)
}

fn listen(section: &mut Section<'_, '_>) -> Listen {
    Listen {
        address: section.take("address", ([0, 0, 0, 0], 8443).into()),
        trusted_proxies: section.list("trusted_proxies", Some(&[])).unwrap_or_default(),
        proxy_protocol: section.take("proxy_protocol", false),
    }
}

fn tls(section: &mut Section<'_, '_>) -> RawTls {
    RawTls {
        enabled: section.take("enabled", true),
        self_signed: section.take("self_signed", false),
        min_version: section.take("min_version", TlsVersion::Tls12),
        strict_sni: section.take("strict_sni", false),
        certificates: section.sections("certificate", |section| {
            let certificate_file = section.required_file("certificate_file", Sensitivity::Public);
            let key_file = section.required_file("key_file", Sensitivity::Key);
            Some(Certificate { certificate_file: certificate_file?, key_file: key_file? })
        }),
        client: section.section("client", |section| RawTlsClient {
            ca_file: section.file("ca_file", Sensitivity::Public),
            crl_file: section.file("crl_file", Sensitivity::Public),
            mode: section.take("mode", ClientMode::Require),
        }),
    }
}

fn admin(section: &mut Section<'_, '_>) -> RawAdmin {
    let address = section.take("address", ([127, 0, 0, 1], 9464).into());
    let token = section.secret("token", "token_file").map(|(token, _)| token);
    let (certificate, client_ca_file) = section.section("tls", |section| {
        let certificate = routes::pair(section, "a certificate");
        (certificate, section.file("client_ca_file", Sensitivity::Public))
    });
    RawAdmin { address, token, certificate, client_ca_file }
}

fn dedup(section: &mut Section<'_, '_>) -> Dedup {
    Dedup {
        identity: section.take("identity", Identity::Event),
        shadow: section.take("shadow", false),
        windows: section.section("window", windows),
    }
}

fn windows(section: &mut Section<'_, '_>) -> Windows {
    let range = Windows::FLOOR..=hours(90 * 24);
    let default = section.within("default", hours(1), range.clone());
    let mut by_kind = Vec::new();
    for kind in EventKind::ALL {
        let window = match kind {
            // Few, and their copies come late: after the death of a node, or for as long as a worker repeats itself.
            EventKind::RoomStarted
            | EventKind::RoomFinished
            | EventKind::EgressStarted
            | EventKind::EgressUpdated
            | EventKind::EgressEnded
            | EventKind::IngressStarted
            | EventKind::IngressEnded
            | EventKind::AgentJobStarted
            | EventKind::AgentJobEnded => {
                Some(section.within(kind.name(), hours(24), range.clone()))
            }
            EventKind::ParticipantJoined
            | EventKind::ParticipantLeft
            | EventKind::ParticipantConnectionAborted
            | EventKind::TrackPublished
            | EventKind::TrackUnpublished
            | EventKind::RecordingFinished => section.option_within(kind.name(), &range),
            EventKind::Other => None,
        };
        by_kind.extend(window.map(|window| (kind, window)));
    }
    Windows { default, by_kind }
}

fn claim(section: &mut Section<'_, '_>) -> RawClaim {
    RawClaim {
        lease: section.within("lease", seconds(10), seconds(1)..=minutes(10)),
        guard: section.within("guard", seconds(2), milliseconds(100)..=minutes(5)),
        join_wait: section.within("join_wait", seconds(5), Duration::ZERO..=minutes(1)),
        on_ambiguous: section.take("on_ambiguous", OnAmbiguous::Retry),
    }
}

fn limits(section: &mut Section<'_, '_>) -> Limits {
    let wait = milliseconds(100)..=minutes(5);
    let wait_long = seconds(1)..=minutes(10);
    let many = 1..=1_000_000;
    Limits {
        connections_max: section.within("connections_max", 4096, many.clone()),
        connections_per_source_max: section.within("connections_per_source_max", 256, many.clone()),
        refusals_per_source_per_minute: section.within(
            "refusals_per_source_per_minute",
            600,
            0..=1_000_000,
        ),
        handshake_timeout: section.within("handshake_timeout", seconds(5), wait.clone()),
        head_timeout: section.within("head_timeout", seconds(5), wait.clone()),
        body_timeout: section.within("body_timeout", seconds(5), wait),
        idle_timeout: section.within("idle_timeout", seconds(120), seconds(1)..=hours(1)),
        // hyper cannot read a head through less than 8 KiB.
        head_bytes_max: section.within("head_bytes_max", kib(16), kib(8)..=mib(1)).0,
        head_fields_max: section.within("head_fields_max", 64, 16..=1024),
        uri_bytes_max: section.within("uri_bytes_max", kib(8), kib(1)..=kib(32)).0,
        // What is longer is never decoded.
        token_bytes_max: section.within("token_bytes_max", kib(8), kib(1)..=kib(8)).0,
        body_bytes_max: section.within("body_bytes_max", mib(2), kib(1)..=mib(64)).0,
        body_memory_bytes_max: section
            .within("body_memory_bytes_max", mib(256), mib(1)..=gib(64))
            .0,
        answer_timeout: section.within("answer_timeout", seconds(30), wait_long),
        http2_streams_max: section.within("http2_streams_max", 64, 1..=10_000),
        http2_header_list_bytes_max: section
            .within("http2_header_list_bytes_max", kib(16), kib(4)..=mib(1))
            .0,
        http2_pending_resets_max: section.within("http2_pending_resets_max", 20, 1..=10_000),
        http2_local_resets_max: section.within("http2_local_resets_max", 128, 1..=10_000),
        http2_idle_frames_max: section.within("http2_idle_frames_max", 500, 50..=1_000_000),
        followers_max: section.within("followers_max", 256, many),
    }
}
