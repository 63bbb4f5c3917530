//! Reads LiveKit's own files: `keys.yaml`, `livekit.yaml`, and `LIVEKIT_KEYS`. Pure: text in, keys out.
//!
//! No error quotes the text: it is full of secrets.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;

use super::problem::Fault;

/// Pairs of API key and secret.
pub(super) type Pairs = Vec<(String, SecretString)>;

/// What is wrong, and line and column, from 1, if that is known.
pub(super) type Wrong = (Fault, Option<(usize, usize)>);

/// What `livekit.yaml` says that concerns webhooks.
pub(super) struct LiveKit {
    pub(super) keys: Pairs,
    /// Another file of keys.
    pub(super) key_file: Option<String>,
    /// The API key that webhooks are signed with.
    pub(super) api_key: Option<String>,
    /// Where webhooks are sent.
    pub(super) urls: Vec<String>,
}

/// As LiveKit has it; what does not concern webhooks is skipped.
#[derive(Deserialize)]
struct Server {
    keys: Option<BTreeMap<String, String>>,
    key_file: Option<String>,
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
struct Webhook {
    api_key: Option<String>,
    urls: Option<Vec<String>>,
}

/// Reads a key file: a map of `key: secret`.
pub(super) fn keys(text: &str) -> Result<Pairs, Wrong> {
    let expected = "expected LiveKit's key file: YAML, each line `key: secret`";
    let keys: BTreeMap<String, String> = parse(text, expected)?;
    if keys.is_empty() { Err((Fault::new(expected), None)) } else { Ok(pairs(keys)) }
}

/// Reads a server's configuration.
pub(super) fn server(text: &str) -> Result<LiveKit, Wrong> {
    let server: Server =
        parse(text, "expected LiveKit's configuration: YAML with `keys` and `webhook`")?;
    let (api_key, urls) =
        server.webhook.map_or((None, None), |webhook| (webhook.api_key, webhook.urls));
    Ok(LiveKit {
        keys: pairs(server.keys.unwrap_or_default()),
        key_file: server.key_file,
        api_key: api_key.filter(|api_key| !api_key.is_empty()),
        urls: urls.unwrap_or_default(),
    })
}

/// Reads `LIVEKIT_KEYS`: YAML as livekit-server takes it (`key: secret`, one a line), or pairs between commas.
pub(super) fn variable(text: &str) -> Result<Pairs, Wrong> {
    let lines = if text.contains('\n') || text.trim_start().starts_with('{') {
        text.to_owned()
    } else {
        text.split(',').map(str::trim).collect::<Vec<_>>().join("\n")
    };
    parse::<BTreeMap<String, String>>(
        &lines,
        "expected `key: secret`, one pair a line or between commas",
    )
    .map(pairs)
}

fn pairs(map: BTreeMap<String, String>) -> Pairs {
    map.into_iter().map(|(key, secret)| (key, SecretString::from(secret))).collect()
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str, expected: &str) -> Result<T, Wrong> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().and_then(|at| {
            Some((usize::try_from(at.line()).ok()?, usize::try_from(at.column()).ok()?))
        });
        (Fault::new(expected), at.filter(|(line, column)| *line > 0 && *column > 0))
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn shown(pairs: Result<Pairs, Wrong>) -> String {
        let shown =
            |(key, secret): &(String, SecretString)| format!("{key}={}", secret.expose_secret());
        pairs.map_or_else(
            |(fault, _)| fault.to_string(),
            |pairs| pairs.iter().map(shown).collect::<Vec<_>>().join(" "),
        )
    }

    #[test]
    fn keys_are_read_as_livekit_reads_them() {
        assert_eq!(shown(keys("APIa: one\nAPIb: \"t:w,o\"\n")), "APIa=one APIb=t:w,o");
        assert_eq!(shown(keys("1234: 5678\ntrue: 0x10\n")), "1234=5678 true=0x10");
        for text in [
            "",
            "APIa\n",
            "- APIa: one\n",
            "APIa: [one]\n",
            "APIa: one\nAPIa: two\n",
            "APIa: {b: c}\n",
            ": :",
        ] {
            let (fault, _) = keys(text).map(|_| text).unwrap_err();
            assert!(!fault.to_string().contains("one"), "{fault}");
        }
    }

    #[test]
    fn the_variable_is_read_with_lines_and_with_commas() {
        for text in [
            "APIa: one\nAPIb: two",
            "APIa: one, APIb: two",
            "{APIa: one, APIb: two}",
            " APIa: one,APIb: two ",
        ] {
            assert_eq!(shown(variable(text)), "APIa=one APIb=two", "{text}");
        }
    }

    #[test]
    fn a_server_s_configuration_is_read_for_what_concerns_webhooks() {
        let text = "port: 7880\nkeys:\n  APIa: one\nwebhook:\n  api_key: APIa\n  urls: [https://x/y]\nrtc: {tcp_port: 1}\n";
        let read = server(text).map_err(|(fault, _)| fault).unwrap();
        assert_eq!(
            (read.api_key.as_deref(), read.urls.as_slice()),
            (Some("APIa"), ["https://x/y".to_owned()].as_slice())
        );
        assert_eq!(shown(Ok(read.keys)), "APIa=one");
        assert_eq!(server("keys: 5").map(|_| ()).unwrap_err().1, Some((1, 7)));
    }
}
