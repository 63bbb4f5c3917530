//! `[keys]`, `keys_file`, `livekit_config`, `[[tenant]]` and LiveKit's variables: who may sign.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::webhook::keys::Tenant;

use super::super::livekit::{self, Pairs, Wrong};
use super::super::load;
use super::super::problem::{Fault, Place, Reveal};
use super::super::reader::{Files, Origin, Sensitivity};
use super::super::section::Section;

/// The tenant of keys that stand outside every `[[tenant]]`.
const DEFAULT: &str = "default";

/// `[[tenant]]`, or what stands outside.
pub(in crate::config) struct RawTenant {
    pub(in crate::config) place: Place,
    pub(in crate::config) name: Option<Tenant>,
    pub(in crate::config) keys: Vec<RawKey>,
    /// Whether a key could not be read; that has been told.
    pub(in crate::config) failed: bool,
    /// The API key that webhooks are signed with, and who says so.
    pub(in crate::config) signs_with: Option<(String, Place)>,
    /// Where LiveKit sends webhooks, and who says so.
    pub(in crate::config) urls: Vec<(String, Place)>,
}

/// An API key and its secret.
pub(in crate::config) struct RawKey {
    pub(in crate::config) api_key: String,
    pub(in crate::config) secret: SecretString,
    pub(in crate::config) place: Place,
}

/// All tenants. The default one is among them if it has a key.
pub(super) fn tenants(root: &mut Section<'_, '_>) -> Vec<RawTenant> {
    let mut outside = RawTenant::new(Place::Nowhere, Some(Tenant::from(DEFAULT)));
    let errors = root.reader.errors();
    variables(root, &mut outside);
    files(root, &mut outside);
    outside.failed = root.reader.errors() > errors;
    let mut tenants = root.sections("tenant", |section| {
        let mut tenant = RawTenant::new(section.here(), section.required("name"));
        let errors = section.reader.errors();
        files(section, &mut tenant);
        tenant.failed = section.reader.errors() > errors;
        tenant
    });
    if !outside.keys.is_empty() || outside.failed || outside.signs_with.is_some() {
        tenants.insert(0, outside);
    }
    tenants
}

impl RawTenant {
    const fn new(place: Place, name: Option<Tenant>) -> Self {
        Self { place, name, keys: Vec::new(), failed: false, signs_with: None, urls: Vec::new() }
    }
}

/// What a section says, after what variables said: a key of a variable goes before the same one of a file.
fn files(section: &mut Section<'_, '_>, tenant: &mut RawTenant) {
    let stronger = tenant.keys.len();
    let mut keys = section.secrets("keys", "<API key>");
    if let Some(file) = named(section, "keys_file") {
        keys.extend(from_file(section, &file, Sensitivity::Secret, livekit::keys));
    }
    if let Some(file) = named(section, "livekit_config") {
        livekit_config(section, file, tenant, &mut keys);
    }
    for (api_key, secret, place) in keys {
        if !tenant.keys.iter().take(stronger).any(|key| key.api_key == api_key) {
            tenant.keys.push(RawKey { api_key, secret, place });
        }
    }
}

/// A file, the key that names it, and where that stands.
struct Named {
    key: String,
    path: PathBuf,
    place: Place,
}

type Keys = Vec<(String, SecretString, Place)>;

fn livekit_config(
    section: &mut Section<'_, '_>,
    file: Named,
    tenant: &mut RawTenant,
    keys: &mut Keys,
) {
    let Some(server) = parsed(section, &file, Sensitivity::Key, livekit::server) else {
        return;
    };
    let Named { key, path, place } = file;
    keys.extend(server.keys.into_iter().map(|(api_key, secret)| (api_key, secret, place.clone())));
    if let Some(key_file) = server.key_file {
        let key_file =
            path.parent().map_or_else(|| PathBuf::from(&key_file), |folder| folder.join(&key_file));
        let file = Named { key, path: key_file, place: place.clone() };
        keys.extend(from_file(section, &file, Sensitivity::Secret, livekit::keys));
    }
    if tenant.signs_with.is_none() {
        tenant.signs_with = server.api_key.map(|api_key| (api_key, place.clone()));
    }
    tenant.urls.extend(server.urls.into_iter().map(|url| (url, place.clone())));
}

/// The file that a key names, unless files are not looked at.
fn named(section: &mut Section<'_, '_>, name: &str) -> Option<Named> {
    let (path, origin) = section.path_value(name)?;
    let place = section.reader.place_of(&origin, Reveal::Value);
    match section.reader.files() {
        Files::Read(_) => Some(Named { key: section.path(name), path, place }),
        Files::Skip => None,
    }
}

fn from_file(
    section: &mut Section<'_, '_>,
    file: &Named,
    sensitivity: Sensitivity,
    parse: fn(&str) -> Result<Pairs, Wrong>,
) -> Keys {
    let pairs = parsed(section, file, sensitivity, parse).unwrap_or_default();
    pairs.into_iter().map(|(api_key, secret)| (api_key, secret, file.place.clone())).collect()
}

/// What is wrong with the file stands at `place`, what is wrong in it at its own line.
fn parsed<T>(
    section: &mut Section<'_, '_>,
    Named { key, path, place }: &Named,
    sensitivity: Sensitivity,
    parse: fn(&str) -> Result<T, Wrong>,
) -> Option<T> {
    let text = section.reader.judged(key, place, (path, sensitivity)).and_then(|()| {
        load::text(path).map_err(|fault| section.reader.error(place.clone(), fault)).ok()
    })?;
    match parse(&text) {
        Ok(value) => Some(value),
        Err((fault, at)) => {
            let name = path.display().to_string();
            let place = match at {
                Some((line, column)) => Place::File { name, line, column, excerpt: None },
                None => Place::Whole(name),
            };
            section.reader.error(place, fault);
            None
        }
    }
}

/// `LIVEKIT_API_KEY` with its secret, `LIVEKIT_KEYS`, `WEBHOOK_API_KEY`.
fn variables(root: &mut Section<'_, '_>, tenant: &mut RawTenant) {
    pair(root, tenant);
    if let Some(text) = root.reader.variable("LIVEKIT_KEYS") {
        let place = Place::Variable("LIVEKIT_KEYS".to_owned());
        match livekit::variable(&text) {
            Ok(pairs) => tenant.keys.extend(pairs.into_iter().map(|(api_key, secret)| RawKey {
                api_key,
                secret,
                place: place.clone(),
            })),
            Err((fault, _)) => root.reader.error(place, fault),
        }
    }
    let signs_with = root.reader.variable("WEBHOOK_API_KEY");
    tenant.signs_with = signs_with
        .map(|api_key| ((*api_key).clone(), Place::Variable("WEBHOOK_API_KEY".to_owned())));
}

fn pair(root: &mut Section<'_, '_>, tenant: &mut RawTenant) {
    let api_key = root.reader.variable("LIVEKIT_API_KEY");
    let secret = root.reader.variable("LIVEKIT_API_SECRET");
    let file = root.reader.variable("LIVEKIT_API_SECRET_FILE");
    let place = |name: &str| Place::Variable(name.to_owned());
    let secret = match (secret, file) {
        (Some(_), Some(_)) => {
            let fault = Fault::new("LIVEKIT_API_SECRET is set too").hint("keep one of the two");
            return root.reader.error(place("LIVEKIT_API_SECRET_FILE"), fault);
        }
        (Some(secret), None) => Some(SecretString::from(secret.as_str())),
        (None, Some(file)) => {
            let origin = Origin::Variable("LIVEKIT_API_SECRET_FILE".to_owned());
            let Some(secret) =
                root.secret_from("LIVEKIT_API_SECRET_FILE", &PathBuf::from(file.as_str()), &origin)
            else {
                return;
            };
            Some(secret)
        }
        (None, None) => None,
    };
    match (api_key, secret) {
        (Some(api_key), Some(secret)) => {
            let (api_key, place) = ((*api_key).clone(), place("LIVEKIT_API_KEY"));
            tenant.keys.push(RawKey { api_key, secret, place });
        }
        (Some(_), None) => {
            let fault = Fault::new("the API key has no secret")
                .hint("set LIVEKIT_API_SECRET or LIVEKIT_API_SECRET_FILE");
            root.reader.error(place("LIVEKIT_API_KEY"), fault);
        }
        (None, Some(_)) => {
            let fault = Fault::new("the secret has no API key").hint("set LIVEKIT_API_KEY");
            root.reader.error(place("LIVEKIT_API_SECRET"), fault);
        }
        (None, None) => {}
    }
}
