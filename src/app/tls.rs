//! Translates what the configuration says of TLS, and of who may see the admin listener's pages.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::admin;
use crate::config::{self, Config};
use crate::listener::tls;

use super::StartError;

/// TLS of the listener; `None` for plain HTTP.
pub(super) fn listener(config: &Config) -> Result<Option<tls::Tls>, StartError> {
    let terms = handshake(&config.handshake);
    match &config.tls {
        config::Tls::Off => Ok(None),
        config::Tls::SelfSigned => {
            let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
            Ok(Some(tls::self_signed(&names, &terms)?.tls))
        }
        config::Tls::Certificates(certificates) => {
            let pairs: Vec<_> = certificates.iter().map(pair).collect();
            Ok(Some(tls::server_config(&pairs, &terms)?))
        }
    }
}

/// TLS of the admin listener; `None` for plain HTTP.
pub(super) fn admin(section: &config::Admin) -> Result<Option<tls::Tls>, StartError> {
    let Some(section) = &section.tls else { return Ok(None) };
    // Who shows no certificate may still see the pages of probes.
    let clients = section.client_ca_file.as_ref().map(|ca| tls::Clients {
        ca: ca.clone(),
        crl: None,
        demand: tls::Demand::Optional,
    });
    let terms = tls::Terms { clients, ..tls::Terms::default() };
    Ok(Some(tls::server_config(&[pair(&section.certificate)], &terms)?))
}

/// What the admin listener asks for, having set up `tls`.
pub(super) fn guard(section: &config::Admin, tls: Option<&tls::Tls>) -> admin::Guard {
    let speaks_http1 = |tls: &tls::Tls| {
        let mut server = ServerConfig::clone(&tls.server);
        server.alpn_protocols = vec![tls::ALPN_HTTP1.to_vec()];
        Arc::new(server)
    };
    let asks_for_certificate = section.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    admin::Guard {
        token: section.token.as_ref().map(admin::Token::new),
        tls: tls.map(speaks_http1),
        client_certificate: if asks_for_certificate {
            admin::guard::Demand::Required
        } else {
            admin::guard::Demand::None
        },
    }
}

fn pair(section: &config::Certificate) -> tls::Files {
    tls::Files { certificate: section.certificate_file.clone(), key: section.key_file.clone() }
}

fn handshake(section: &config::Handshake) -> tls::Terms {
    tls::Terms {
        oldest: match section.min_version {
            config::TlsVersion::Tls12 => tls::Version::Tls12,
            config::TlsVersion::Tls13 => tls::Version::Tls13,
        },
        unknown_names: if section.strict_sni {
            tls::UnknownNames::Refuse
        } else {
            tls::UnknownNames::Default
        },
        clients: section.clients.as_ref().map(|clients| tls::Clients {
            ca: clients.ca_file.clone(),
            crl: clients.crl_file.clone(),
            demand: match clients.mode {
                config::ClientMode::Require => tls::Demand::Required,
                config::ClientMode::Optional => tls::Demand::Optional,
            },
        }),
    }
}
