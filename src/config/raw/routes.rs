//! `[upstream]`, `[[route]]` and `[relay]`: where requests go.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::webhook::keys::Tenant;

use super::super::backend::{Backend, HostPolicy, RoutePath};
use super::super::problem::{Fault, Place};
use super::super::reader::Sensitivity;
use super::super::section::Section;
use super::super::value::{ServerName, Target, Value};
use super::super::{Certificate, Mode, Upstream, UpstreamTls};
use super::{milliseconds, minutes, seconds};

/// Statuses by which a backend refuses an event for good, unless the operator says otherwise.
const REFUSED: [u16; 8] = [400, 409, 410, 411, 413, 414, 415, 422];

/// `[upstream]`
pub(in crate::config) struct RawUpstream {
    pub(in crate::config) backend: Option<Backend>,
    /// There is one, but it could not be read; that has been told.
    pub(in crate::config) backend_failed: bool,
    pub(in crate::config) terms: Terms,
}

/// How to talk to a backend, whichever it is.
#[derive(Clone)]
pub(in crate::config) struct Terms {
    host: HostPolicy,
    timeout: Duration,
    connect_timeout: Duration,
    idle_timeout: Duration,
    connections_max: usize,
    refused: Vec<u16>,
    tls: UpstreamTls,
}

/// `[[route]]`
pub(in crate::config) struct RawRoute {
    /// As in `route[0]`.
    pub(in crate::config) section: String,
    pub(in crate::config) place: Place,
    pub(in crate::config) path: Option<RoutePath>,
    pub(in crate::config) backend: Option<Backend>,
    /// There is a backend, here or in `[upstream]`, but it could not be read; that has been told.
    pub(in crate::config) backend_failed: bool,
    pub(in crate::config) tenants: Vec<Tenant>,
    pub(in crate::config) mode: Mode,
    pub(in crate::config) terms: Terms,
}

/// `[relay]`
pub(in crate::config) struct RawRelay {
    pub(in crate::config) target: Target,
    pub(in crate::config) terms: Terms,
}

impl Terms {
    /// With a backend to talk to.
    pub(in crate::config) fn with(self, backend: Backend) -> Upstream {
        let Self { host, timeout, connect_timeout, idle_timeout, connections_max, refused, tls } =
            self;
        Upstream {
            backend,
            host,
            timeout,
            connect_timeout,
            idle_timeout,
            connections_max,
            refused,
            tls,
        }
    }
}

pub(super) fn upstream(section: &mut Section<'_, '_>) -> RawUpstream {
    let (backend, backend_failed) = backend(section);
    RawUpstream { backend, backend_failed, terms: terms(section, None) }
}

/// Routes inherit from `[upstream]` what they leave out.
pub(super) fn routes(root: &mut Section<'_, '_>, upstream: &RawUpstream) -> Vec<RawRoute> {
    root.sections("route", |section| {
        let path = section.required("path");
        let (backend, backend_failed) = backend(section);
        RawRoute {
            section: section.own_path().to_owned(),
            place: section.here(),
            path,
            backend,
            backend_failed: backend_failed || upstream.backend_failed,
            tenants: section.list::<Tenant>("tenants", None).unwrap_or_default(),
            mode: section.take("mode", Mode::Sync),
            terms: terms(section, Some(&upstream.terms)),
        }
    })
}

fn backend(section: &mut Section<'_, '_>) -> (Option<Backend>, bool) {
    let errors = section.reader.errors();
    let backend = section.option("backend");
    (backend, section.reader.errors() > errors)
}

pub(super) fn relay(section: &mut Section<'_, '_>, upstream: &RawUpstream) -> RawRelay {
    RawRelay {
        target: section.take("backend", Target::NotFound),
        terms: Terms { host: section.take("host", HostPolicy::Keep), ..upstream.terms.clone() },
    }
}

fn terms(section: &mut Section<'_, '_>, inherited: Option<&Terms>) -> Terms {
    let from = |pick: fn(&Terms) -> Duration| inherited.map(pick);
    Terms {
        host: match inherited {
            None => section.take("host", HostPolicy::Backend),
            Some(inherited) => section.option("host").unwrap_or_else(|| inherited.host.clone()),
        },
        timeout: bounded(
            section,
            "timeout",
            (seconds(8), from(|terms| terms.timeout)),
            milliseconds(100)..=minutes(10),
        ),
        connect_timeout: bounded(
            section,
            "connect_timeout",
            (seconds(2), from(|terms| terms.connect_timeout)),
            milliseconds(10)..=minutes(1),
        ),
        idle_timeout: bounded(
            section,
            "idle_timeout",
            (milliseconds(1500), from(|terms| terms.idle_timeout)),
            Duration::ZERO..=minutes(10),
        ),
        connections_max: bounded(
            section,
            "connections_max",
            (512, inherited.map(|terms| terms.connections_max)),
            1..=100_000,
        ),
        refused: refused(section, inherited),
        tls: section.section("tls", |section| tls(section, inherited.map(|terms| &terms.tls))),
    }
}

/// `values`: the default, and what is inherited instead.
fn bounded<T: Value + PartialOrd>(
    section: &mut Section<'_, '_>,
    name: &str,
    values: (T, Option<T>),
    range: RangeInclusive<T>,
) -> T {
    match values {
        (default, None) => section.within(name, default, range),
        (_, Some(inherited)) => section.option_within(name, &range).unwrap_or(inherited),
    }
}

fn refused(section: &mut Section<'_, '_>, inherited: Option<&Terms>) -> Vec<u16> {
    let default = if inherited.is_none() { Some(REFUSED.as_slice()) } else { None };
    let Some(statuses) = section.list::<u16>("refused", default) else {
        return inherited.map(|terms| terms.refused.clone()).unwrap_or_default();
    };
    let path = section.path("refused");
    for status in &statuses {
        let fault = match status {
            429 => Fault::new(
                "429 asks for a repeat, and cannot mean that the backend refuses for good",
            ),
            400..=499 => continue,
            _ => Fault::new(format!("a refusal is a 4xx status, and {status} is none")),
        };
        let place = section.reader.place(&[&path]);
        section.reader.error(place, fault.of(&section.named("refused")));
    }
    statuses
}

/// How to trust a server over TLS, and what to show it. A section that says anything inherits nothing: half of one
/// certificate and half of another make none.
pub(super) fn tls(section: &mut Section<'_, '_>, inherited: Option<&UpstreamTls>) -> UpstreamTls {
    let own = UpstreamTls {
        ca_file: section.file("ca_file", Sensitivity::Public),
        client: pair(section, "a client certificate"),
        server_name: section.option::<ServerName>("server_name").map(|name| name.0),
    };
    match inherited {
        Some(inherited) if own == UpstreamTls::default() => inherited.clone(),
        Some(_) | None => own,
    }
}

/// A certificate and its key: both, or neither.
pub(super) fn pair(section: &mut Section<'_, '_>, called: &str) -> Option<Certificate> {
    let certificate_file = section.file("certificate_file", Sensitivity::Public);
    let key_file = section.file("key_file", Sensitivity::Key);
    let (has, lacks) = match (section.has("certificate_file"), section.has("key_file")) {
        (true, false) => ("certificate_file", "key_file"),
        (false, true) => ("key_file", "certificate_file"),
        (true, true) | (false, false) => {
            return Some(Certificate { certificate_file: certificate_file?, key_file: key_file? });
        }
    };
    let place = section.reader.place(&[&section.path(has)]);
    let fault = Fault::new(format!("{called} needs `{lacks}` too"));
    section.reader.error(place, fault.of(&section.named(has)));
    None
}
