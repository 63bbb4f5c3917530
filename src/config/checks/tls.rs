//! Whether the settings of the listener's TLS go together.

use super::super::problem::Fault;
use super::super::raw::{RawTls, RawTlsClient};
use super::super::reader::Reader;
use super::super::{Handshake, Tls, TlsClients};

/// What is shown, and what handshakes are held to.
pub(super) fn tls(reader: &mut Reader<'_>, mut raw: RawTls) -> (Tls, Handshake) {
    let clients = clients(reader, raw.enabled, &mut raw.client);
    let handshake = Handshake { min_version: raw.min_version, strict_sni: raw.strict_sni, clients };
    (certificates(reader, raw), handshake)
}

fn clients(reader: &mut Reader<'_>, enabled: bool, raw: &mut RawTlsClient) -> Option<TlsClients> {
    let Some(ca_file) = raw.ca_file.take() else {
        for name in ["tls.client.crl_file", "tls.client.mode"] {
            if reader.is_set(name) {
                let fault =
                    Fault::new("no client certificate is asked for without tls.client.ca_file");
                reader.contradiction(
                    &[name, "tls.client.ca_file"],
                    fault
                        .hint("add ca_file to [tls.client]: the authorities that sign them, as PEM")
                        .of(name),
                );
            }
        }
        return None;
    };
    if !enabled {
        // Whoever asked for them relies on it: this is no mistake to pass over.
        let fault = Fault::new("TLS is off, and client certificates are part of it")
            .hint("set enabled = true in [tls], or remove [tls.client]");
        reader
            .contradiction(&["tls.client.ca_file", "tls.enabled"], fault.of("tls.client.ca_file"));
    }
    Some(TlsClients { ca_file, crl_file: raw.crl_file.take(), mode: raw.mode })
}

fn certificates(reader: &mut Reader<'_>, raw: RawTls) -> Tls {
    let paths = &["tls.self_signed", "tls.enabled", "tls.certificate"];
    let said = !raw.certificates.is_empty();
    if !raw.enabled {
        if said {
            let place = reader.place(&["tls.enabled"]);
            reader.warning(
                place,
                Fault::new("TLS is off: [[tls.certificate]] is not used").of("tls.enabled"),
            );
        }
        return Tls::Off;
    }
    if raw.self_signed && reader.is_set("tls.self_signed") && said {
        reader.contradiction(
            paths,
            Fault::new("there is [[tls.certificate]] too")
                .hint("keep one of the two")
                .of("tls.self_signed"),
        );
        return Tls::SelfSigned;
    }
    if raw.self_signed && !said {
        return Tls::SelfSigned;
    }
    if !said {
        let fault = Fault::new("TLS is on, and there is no certificate");
        let hint = "add [[tls.certificate]] with certificate_file and key_file; or, where something else ends TLS, \
                    set enabled = false in [tls]";
        reader.contradiction(paths, fault.hint(hint));
    }
    Tls::Certificates(raw.certificates.into_iter().flatten().collect())
}
