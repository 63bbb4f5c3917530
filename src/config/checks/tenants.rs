//! Whether the keys of all tenants make one ring.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};

use crate::webhook::keys::Tenant as Name;

use super::super::Tenant;
use super::super::backend::Backend;
use super::super::problem::{Fault, Place, closest};
use super::super::raw::tenants::{RawKey, RawTenant};
use super::super::reader::Reader;
use super::endpoints::Checked;

/// LiveKit warns of shorter ones.
const SECRET_CHARACTERS_MIN: usize = 32;

/// The key of `livekit-server --dev`.
const DEV_KEY: (&str, &str) = ("devkey", "secret");

/// Where LiveKit sends webhooks, and who says so.
type Urls = Vec<(String, Place)>;

pub(super) struct Tenants {
    pub(super) tenants: Vec<Tenant>,
    pub(super) urls: Urls,
}

/// Whose key an API key is.
type Ring = BTreeMap<String, (Name, SecretString)>;

pub(super) fn tenants(reader: &mut Reader<'_>, enabled: bool, raw: Vec<RawTenant>) -> Tenants {
    let mut ring = Ring::new();
    let mut tenants: Vec<Tenant> = Vec::new();
    let mut urls = Urls::new();
    let nobody = raw.is_empty();
    for tenant in raw {
        let Some(name) = tenant.name else { continue };
        if tenants.iter().any(|other| other.name == name) {
            let fault = Fault::new(format!("two tenants are called `{name}`"));
            reader.error(
                tenant.place.clone(),
                fault.hint("keys outside of [[tenant]] belong to the tenant `default`"),
            );
        }
        let none = tenant.keys.is_empty() && !tenant.failed;
        let keys: Vec<_> = tenant
            .keys
            .into_iter()
            .filter_map(|key| taken(reader, &mut ring, &name, key))
            .collect();
        if none && enabled {
            let fault = Fault::new(format!("tenant `{name}` has no key"));
            reader
                .error(tenant.place, fault.hint("add [tenant.keys], keys_file or livekit_config"));
        }
        let signs_with = tenant.signs_with.and_then(|said| signer(reader, &keys, said));
        urls.extend(tenant.urls);
        tenants.push(Tenant { name, keys, signs_with });
    }
    if nobody && reader.is_dev() {
        let (api_key, secret) = DEV_KEY;
        let keys = vec![(api_key.to_owned(), SecretString::from(secret))];
        tenants.push(Tenant { name: Name::from("default"), keys, signs_with: None });
    } else if nobody && enabled {
        let fault = Fault::new("there is no API key: nothing could be verified");
        let hint = "add [keys], keys_file or livekit_config, or set LIVEKIT_API_KEY and LIVEKIT_API_SECRET";
        reader.error(Place::Nowhere, fault.hint(hint));
    }
    Tenants { tenants, urls }
}

/// The key, unless another tenant has it, or it is there twice.
fn taken(
    reader: &mut Reader<'_>,
    ring: &mut Ring,
    name: &Name,
    key: RawKey,
) -> Option<(String, SecretString)> {
    let RawKey { api_key, secret, place } = key;
    if api_key.is_empty() || secret.expose_secret().is_empty() {
        let what = if api_key.is_empty() {
            "an API key".to_owned()
        } else {
            format!("the secret of API key `{api_key}`")
        };
        reader.error(
            place,
            Fault::new(format!("{what} is empty")).hint("anybody could sign with it"),
        );
        return None;
    }
    if let Some((owner, known)) = ring.get(&api_key) {
        if owner != name {
            reader.error(
                place,
                Fault::new(format!("API key `{api_key}` belongs to tenant `{owner}` already")),
            );
        } else if known.expose_secret() != secret.expose_secret() {
            let fault = Fault::new(format!("API key `{api_key}` has two secrets"));
            reader.error(
                place,
                fault.hint(
                    "a new secret needs a new API key: both are accepted until LiveKit has it",
                ),
            );
        }
        return None;
    }
    if secret.expose_secret().chars().count() < SECRET_CHARACTERS_MIN {
        let fault =
            Fault::new(format!("the secret of API key `{api_key}` has fewer than 32 characters"));
        reader.warning(place, fault.hint("`livekit-server generate-keys` makes a good one"));
    }
    ring.insert(api_key.clone(), (name.clone(), secret.clone()));
    Some((api_key, secret))
}

fn signer(
    reader: &mut Reader<'_>,
    keys: &[(String, SecretString)],
    said: (String, Place),
) -> Option<String> {
    let (api_key, place) = said;
    if keys.iter().any(|(known, _)| *known == api_key) {
        return Some(api_key);
    }
    let fault = Fault::new(format!(
        "webhooks are signed with API key `{api_key}`, and its secret is not here"
    ));
    reader.error(
        place,
        fault.hint(
            "add the API key with its secret: every webhook would be refused, and so be lost",
        ),
    );
    None
}

/// Routes for tenants that there are not.
pub(super) fn unknown(reader: &mut Reader<'_>, tenants: &[Tenant], routes: &[Checked]) {
    let known: Vec<&str> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    for Checked { route, section } in routes {
        for name in route.tenants.iter().filter(|name| !known.contains(&name.as_str())) {
            let fault = Fault::new(format!("there is no tenant `{name}`"));
            let fault = match closest(name.as_str(), known.iter().copied()) {
                Some(close) => fault.hint(format!("did you mean `{close}`?")),
                None => fault.hint(format!("the tenants are: {}", known.join(", "))),
            };
            reader.contradiction(
                &[&format!("{section}.tenants"), "tenant"],
                fault.of("route.tenants"),
            );
        }
    }
}

/// LiveKit that sends to a backend directly.
pub(super) fn direct(reader: &mut Reader<'_>, urls: &Urls, routes: &[Checked]) {
    for (url, place) in urls {
        let Ok(url) = url.parse::<Backend>() else { continue };
        let same = |backend: &Backend| backend.host() == url.host() && backend.port() == url.port();
        if routes.iter().any(|checked| same(&checked.route.upstream.backend)) {
            let fault = Fault::new(format!(
                "webhook.urls there has {url}, which is the backend: webhooks go past this gateway"
            ));
            reader.warning(place.clone(), fault.hint("let webhook.urls name this gateway instead"));
        }
    }
}
