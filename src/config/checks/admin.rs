//! Whether the operator's listener is safe where it is.

use secrecy::ExposeSecret as _;

use super::super::problem::Fault;
use super::super::raw::RawAdmin;
use super::super::reader::Reader;
use super::super::{Admin, AdminTls};

/// As many as LiveKit wants of a secret.
const TOKEN_CHARACTERS_MIN: usize = 32;

pub(super) fn admin(reader: &mut Reader<'_>, raw: RawAdmin) -> Admin {
    let RawAdmin { address, token, certificate, client_ca_file } = raw;
    if let Some(token) = &token {
        let token = token.expose_secret();
        let fault = if token.len() < TOKEN_CHARACTERS_MIN {
            Some(Fault::new(format!(
                "the token has {} characters, and at least {TOKEN_CHARACTERS_MIN} make it hard to guess",
                token.len()
            )))
        } else if token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            Some(Fault::new("the token has a character that cannot stand in a header"))
        } else {
            None
        };
        if let Some(fault) = fault {
            let hint = "`openssl rand -hex 32` makes one";
            reader.contradiction(
                &["admin.token", "admin.token_file"],
                fault.hint(hint).of("admin.token"),
            );
        }
    }
    if certificate.is_none() && client_ca_file.is_some() {
        let fault =
            Fault::new("client certificates are part of TLS, and there is no certificate for it")
                .hint("add certificate_file and key_file to [admin.tls]")
                .of("admin.tls.client_ca_file");
        let paths =
            ["admin.tls.client_ca_file", "admin.tls.certificate_file", "admin.tls.key_file"];
        reader.contradiction(&paths, fault);
    }
    if !address.ip().to_canonical().is_loopback() {
        reachable(reader, &address.to_string(), (token.is_some(), client_ca_file.is_some()));
        if token.is_some() && certificate.is_none() {
            let place = reader.place(&["admin.token", "admin.token_file"]);
            let fault = Fault::new(format!(
                "{address} is not a loopback address, and there is no TLS: the token can be read on the way"
            ));
            reader.warning(place, fault.hint("add certificate_file and key_file to [admin.tls]"));
        }
    }
    let tls = certificate.map(|certificate| AdminTls { certificate, client_ca_file });
    Admin { address, token, tls }
}

/// Other machines can connect: they must be asked for something.
fn reachable(reader: &mut Reader<'_>, address: &str, (token, client_ca): (bool, bool)) {
    if token || client_ca {
        return;
    }
    let fault = Fault::new(format!(
        "{address} is not a loopback address, and the pages ask nobody who they are"
    ))
    .hint(
        "set token_file in [admin] (`openssl rand -hex 32` makes a token), or certificate_file, key_file and \
         client_ca_file in [admin.tls]; or listen on 127.0.0.1 or [::1]",
    );
    let paths = ["admin.address", "admin.token", "admin.token_file", "admin.tls.client_ca_file"];
    reader.contradiction(&paths, fault.of("admin.address"));
}
