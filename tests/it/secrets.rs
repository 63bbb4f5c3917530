//! Secrets have no `Debug`: held by the compiler for what is public, by the sources' tokens for the rest. And a file
//! that holds one is not used while others may read it, as LiveKit does not use its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use oncehook::config::{Environment, LoadError, Overrides, Sources, load};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use tempfile::TempDir;

use super::architecture::sources;

/// Does not compile if one of the types has a `Debug`: then two implementations would fit, and none could be chosen.
macro_rules! none_has_debug {
    ($($type:ty),+ $(,)?) => {
        const _: () = {
            trait Chosen<Marker> {
                const IS: () = ();
            }
            struct WithDebug;
            impl<T: ?Sized> Chosen<()> for T {}
            impl<T: ?Sized + std::fmt::Debug> Chosen<WithDebug> for T {}
            $(let () = <$type as Chosen<_>>::IS;)+
        };
    };
}

none_has_debug!(
    oncehook::config::Config,
    Environment,
    oncehook::config::InputFile,
    Overrides,
    oncehook::config::Redis,
    oncehook::config::RedisServers,
    oncehook::config::Sentinel,
    Sources,
    oncehook::config::Store,
    oncehook::config::StoreKind,
    oncehook::config::Tenant,
    oncehook::webhook::verify::KeyRing,
    oncehook::webhook::verify::Verifier,
    oncehook::webhook::token::Token<'static>,
    oncehook::webhook::event::Event<'static>,
    oncehook::upstream::Outgoing,
    oncehook::store::redis::ClientCertificate,
    oncehook::store::redis::Credentials,
    oncehook::store::redis::Endpoint,
    oncehook::store::redis::Options,
    oncehook::store::redis::Sentinel,
    oncehook::store::redis::TlsOptions,
    oncehook::cli::credentials::Secret,
);

/// What a secret is kept in. Whoever has a field of one of these holds a secret himself.
const KEEPERS: [&str; 6] =
    ["SecretString", "SecretSlice", "Zeroizing", "PrivateKeyDer", "DecodingKey", "EncodingKey"];

/// The types in `tokens` that keep a secret and derive `Debug`, and how many keep one.
fn debugged(tokens: TokenStream) -> (Vec<String>, usize) {
    let (mut found, mut keep) = (Vec::new(), 0);
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let is_word = |tree: &TokenTree, words: &[&str]| matches!(tree, TokenTree::Ident(word) if words.iter().any(|one| word == one));
    let (mut derives_debug, mut name) = (false, None);
    let mut trees = trees.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match &tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                let text = group.stream().to_string();
                derives_debug |= text.starts_with("derive") && text.contains("Debug");
            }
            TokenTree::Ident(_) if is_word(&tree, &["struct", "enum"]) => {
                name = trees.peek().map(ToString::to_string);
            }
            TokenTree::Ident(_) if is_word(&tree, &["fn", "impl", "use", "mod", "trait"]) => {
                (derives_debug, name) = (false, None);
            }
            TokenTree::Group(group) => {
                match name.take() {
                    Some(name) if KEEPERS.iter().any(|kind| mentions(group.stream(), kind)) => {
                        keep += 1;
                        found.extend(derives_debug.then_some(name));
                    }
                    Some(_) => {}
                    None => {
                        let (inner, more) = debugged(group.stream());
                        found.extend(inner);
                        keep += more;
                    }
                }
                derives_debug = false;
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    (found, keep)
}

fn mentions(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|tree| match tree {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => mentions(group.stream(), word),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[test]
fn no_type_that_keeps_a_secret_derives_debug() {
    let mut keepers = 0;
    for (file, source) in sources() {
        let (found, keep) = debugged(source.parse().unwrap());
        assert!(found.is_empty(), "{} derives Debug for {found:?}", file.display());
        keepers += keep;
    }
    assert!(keepers >= 8, "only {keepers} types keep a secret");

    let planted = "mod m { #[derive(Clone, Debug)] pub struct Leak { name: String, secret: Option<SecretString> } }";
    assert_eq!(debugged(planted.parse().unwrap()), (vec!["Leak".to_owned()], 1));
    let planted = "#[derive(Debug)] enum Leak { Key(PrivateKeyDer<'static>), None } struct Fine { a: Zeroizing<u8> }";
    assert_eq!(debugged(planted.parse().unwrap()), (vec!["Leak".to_owned()], 2));
}

const SECRET: &str = "hunter2-0123456789abcdef0123456789";

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a configuration with one secret in a file of `mode` comes to: its warnings, or its errors.
fn told(setting: &str, secret: &str, mode: u32) -> Result<String, String> {
    let folder = TempDir::new().unwrap();
    for (name, text) in
        [("tls.crt", "x"), ("tls.key", "x"), ("keys.yaml", &format!("APIk: {SECRET}"))]
    {
        write(&folder.path().join(name), text, 0o600);
    }
    write(&folder.path().join("secret"), secret, mode);
    let file = folder.path().join("oncehook.toml");
    let common =
        "listen.address = \"127.0.0.1:8443\"\nupstream.backend = \"http://127.0.0.1:8080/hook\"\n";
    write(&file, &format!("{common}{setting}"), 0o644);
    let sources = Sources {
        file: Some(file),
        environment: Environment::default(),
        overrides: Overrides::default(),
    };
    match load(&sources) {
        Ok(config) => Ok(config.warnings.iter().map(ToString::to_string).collect()),
        Err(LoadError::Invalid(problems)) => Err(problems.to_string()),
        Err(error @ LoadError::Unreadable { .. }) => Err(error.to_string()),
    }
}

/// LiveKit asks for `mode & 0007 == 0`, whatever the group may do: 0440 and 0640 are how systemd's credentials and
/// Kubernetes' `fsGroup` hand secrets over.
#[test]
fn a_file_of_secrets_is_refused_while_others_may_do_anything_with_it() {
    let (plain, keyed) =
        ("tls.enabled = false\n", "tls.enabled = false\nkeys_file = \"keys.yaml\"\n");
    let files = [
        (format!("{plain}keys_file = \"secret\"\n"), format!("APIk: {SECRET}\n")),
        (format!("{plain}keys.APIk = {{ secret_file = \"secret\" }}\n"), SECRET.to_owned()),
        (
            format!(
                "{keyed}store.redis.url = \"redis://r:1\"\nstore.redis.password_file = \"secret\"\n"
            ),
            SECRET.to_owned(),
        ),
        (format!("{keyed}store.redis.url_file = \"secret\"\n"), format!("redis://:{SECRET}@r:1")),
        (
            format!(
                "{keyed}store.redis.sentinel = {{ addresses = [\"s:1\"], password_file = \"secret\" }}\n"
            ),
            SECRET.to_owned(),
        ),
        (
            format!("{plain}[[tenant]]\nname = \"a\"\nkeys_file = \"secret\"\n"),
            format!("APIk: {SECRET}\n"),
        ),
    ];
    for (setting, secret) in &files {
        for mode in [0o400, 0o440, 0o600, 0o640, 0o660] {
            let told = told(setting, secret, mode);
            assert_eq!(told.as_deref(), Ok(""), "mode {mode:o} of {setting}");
        }
        for mode in [0o604, 0o644, 0o602, 0o601, 0o447] {
            let told = told(setting, secret, mode).unwrap_err();
            assert!(told.contains("all users of this machine may read"), "{mode:o}: {told}");
            assert!(told.contains("hint: chmod o= ") && !told.contains(SECRET), "{told}");
        }
    }
}

/// Private keys of TLS and LiveKit's own configuration are warned about: cert-manager and Helm mount them as 0644, and
/// LiveKit does not look at theirs either.
#[test]
fn a_private_key_that_others_may_read_is_warned_about() {
    let setting = "keys_file = \"keys.yaml\"\n[[tls.certificate]]\ncertificate_file = \"tls.crt\"\nkey_file = \"secret\"\n";
    assert_eq!(told(setting, "x", 0o640).as_deref(), Ok(""));
    let told = told(setting, "x", 0o644).unwrap();
    assert!(told.contains("all users of this machine may read"), "{told}");
}

#[test]
fn a_secret_of_fewer_than_32_characters_is_warned_about() {
    let warned = |secret: &str| {
        told("tls.enabled = false\nkeys_file = \"secret\"\n", &format!("APIk: {secret}"), 0o600)
            .unwrap()
    };
    assert_eq!(warned(&"s".repeat(32)), "");
    let told = warned(&"s".repeat(31));
    assert!(told.contains("the secret of API key `APIk` has fewer than 32 characters"), "{told}");
    assert!(!told.contains("ssss"), "{told}");
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    let sources = |store: &str| Sources {
        environment: [("LIVEKIT_KEYS".to_owned(), format!("APIk: {SECRET}"))].into_iter().collect(),
        overrides: Overrides { store: Some(store.to_owned()), dev: true, ..Overrides::default() },
        ..Sources::default()
    };
    let error =
        load(&sources("redis://user:hunter2@127.0.0.1:1/0")).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("--store: error: `store.redis.url`: all users of this machine may read"),
        "{error}"
    );
    assert!(error.contains("password_file") && !error.contains("hunter2"), "{error}");
    assert!(load(&sources("redis://127.0.0.1:1/0")).is_ok());
}
