//! The configuration: shipped files parse, invalid ones say what is wrong, sources go in their order, secrets stay in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oncehook::config::{
    self, Config, Environment, LoadError, Overrides, Relay, Sources, StoreKind, Tls,
    check_fragment, load, schema, show,
};
use proptest::prelude::{Strategy, any, prop};
use proptest::sample::Index;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

/// In every secret of the fixtures; in nothing that is ever shown.
const MARK: &str = "hunter2";

const SECRET: &str = "hunter2-0123456789abcdef0123456789";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads `text` as a file that only its owner may read.
fn loaded(
    text: &str,
    environment: &[(&str, &str)],
    overrides: Overrides,
) -> Result<Config, LoadError> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("oncehook.toml");
    write(&file, text, 0o600);
    load(&Sources { file: Some(file), environment: variables(environment), overrides })
}

const KEYS: [(&str, &str); 2] = [("LIVEKIT_API_KEY", "APItest"), ("LIVEKIT_API_SECRET", SECRET)];

/// Enough for a gateway.
fn minimal(rest: &str) -> String {
    format!(
        "[keys]\nAPItest = \"{SECRET}\"\n[tls]\nenabled = false\n[listen]\naddress = \"127.0.0.1:8443\"\n[upstream]\n\
         backend = \"http://127.0.0.1:8080/hook\"\n{rest}"
    )
}

/// Address and database of a Redis that is one server.
fn one(redis: &config::Redis) -> (String, i64) {
    let config::RedisServers::One { address, database } = &redis.servers else {
        panic!("not one server")
    };
    (address.to_string(), *database)
}

fn valid(result: Result<Config, LoadError>) -> Config {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// One fixture: `#!` lines at its head say what is around it (`env NAME=VALUE`, `flag NAME=VALUE`,
/// `file NAME MODE TEXT`, `mode MODE` of the file itself).
fn told(case: &Path) -> String {
    let text = fs::read_to_string(case).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("oncehook.toml");
    let (mut sources, mut mode) =
        (Sources { file: Some(file.clone()), ..Sources::default() }, 0o600);
    for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let (what, rest) = line.split_once(' ').unwrap();
        match what {
            "env" => {
                let (name, value) = rest.split_once('=').unwrap();
                sources.environment.extend([(name.to_owned(), value.to_owned())]);
            }
            "file" => {
                let parts: Vec<&str> = rest.splitn(3, ' ').collect();
                write(
                    &folder.path().join(parts[0]),
                    parts[2],
                    u32::from_str_radix(parts[1], 8).unwrap(),
                );
            }
            "mode" => mode = u32::from_str_radix(rest, 8).unwrap(),
            "flag" => {
                let (name, value) = rest.split_once('=').unwrap();
                let value = Some(value.to_owned());
                match name {
                    "listen" => sources.overrides.listen = value,
                    "backend" => sources.overrides.backend = value,
                    "store" => sources.overrides.store = value,
                    other => panic!("{other}"),
                }
            }
            other => panic!("{other}"),
        }
    }
    write(&file, &text, mode);
    let told = match load(&sources) {
        Ok(config) => {
            assert!(
                !show(&config).contains(MARK),
                "{}: a secret is shown:\n{}",
                case.display(),
                show(&config)
            );
            let warnings = config.warnings.iter().map(ToString::to_string);
            warnings.chain(["valid".to_owned()]).collect::<Vec<_>>().join("\n")
        }
        Err(error) => error.to_string(),
    };
    told.replace(&format!("{}/", folder.path().display()), "")
        .replace(&folder.path().display().to_string(), ".")
        + "\n"
}

/// `ONCEHOOK_BLESS=1 cargo test` writes what is told beside each case; read the difference before you commit it.
#[test]
fn every_wrong_configuration_says_exactly_what_is_wrong() {
    let bless = std::env::var("ONCEHOOK_BLESS").is_ok();
    let cases = files(&folder("tests/data/config"), "toml");
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let told = told(case);
        assert!(!told.contains(MARK), "{}: a secret is told:\n{told}", case.display());
        let expected = case.with_extension("txt");
        if bless {
            fs::write(&expected, &told).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != told {
            wrong.push(format!("{}:\n{told}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "not as in the .txt beside them:\n\n{}", wrong.join("\n"));
    let orphans = files(&folder("tests/data/config"), "txt")
        .into_iter()
        .filter(|path| !path.with_extension("toml").exists());
    assert_eq!(orphans.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "messages without a case");
}

/// A machine on which the shipped files can be used: they name files in `/etc`.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(TempDir::new().unwrap());
        for name in ["tls.crt", "tls.key", "backend-ca.crt", "redis-ca.crt", "redis-password"] {
            write(&machine.path(name), SECRET, 0o600);
        }
        write(&machine.path("keys.yaml"), &format!("APIexample: {SECRET}\n"), 0o600);
        let text = fs::read_to_string(folder("config/livekit/fleet.yaml")).unwrap();
        write(&machine.path("livekit.yaml"), &machine.moved(&text), 0o600);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn moved(&self, text: &str) -> String {
        let here = self.0.path().display().to_string();
        text.replace("/etc/oncehook", &here).replace("/etc/livekit", &here)
    }

    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Config {
        valid(loaded(&self.moved(text), environment, Overrides::default()))
    }
}

#[test]
fn every_shipped_example_is_valid() {
    let machine = Machine::new();
    let mut found = 0;
    for file in files(&folder("config"), "toml") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let warnings: &[&str] = match name {
            "oncehook" => continue,
            "sidecar" => &["webhooks can be read on the way"],
            _ => &[],
        };
        let config = machine.load(&text, if name == "sidecar" { &KEYS } else { &[] });
        let told: Vec<&str> = config.warnings.iter().map(config::Problem::message).collect();
        assert_eq!(told.len(), warnings.len(), "{name}: {told:?}");
        for (told, expected) in told.iter().zip(warnings) {
            assert!(told.contains(expected), "{name}: {told}");
        }
        match name {
            "single-machine" => {
                assert!(matches!(config.store.kind, StoreKind::Memory));
                assert_eq!(config.routes[0].path.as_str(), "/api/livekit-webhook");
            }
            "fleet-redis" => {
                let StoreKind::Redis(redis) = &config.store.kind else { panic!("no Redis") };
                assert_eq!(one(redis), ("redis.internal:6379".to_owned(), 1));
                assert_eq!(redis.password.as_ref().unwrap().expose_secret(), SECRET);
                assert_eq!(config.tenants[0].signs_with.as_deref(), Some("APIexample"));
            }
            "sidecar" => assert_eq!(config.tls, Tls::Off),
            other => panic!("an example that this test does not know: {other}"),
        }
        found += 1;
    }
    assert_eq!(found, 3);
}

#[test]
fn livekit_s_side_of_every_example_is_read_and_sends_to_its_route() {
    let machine = Machine::new();
    let mut found = 0;
    for file in files(&folder("config/livekit"), "yaml") {
        write(
            &machine.path("side.yaml"),
            &machine.moved(&fs::read_to_string(&file).unwrap()),
            0o600,
        );
        let text = "livekit_config = \"/etc/livekit/side.yaml\"\n".to_owned()
            + &minimal("").replace(&format!("[keys]\nAPItest = \"{SECRET}\"\n"), "");
        let config = machine.load(&text, &[]);
        assert_eq!(
            config.tenants[0].signs_with.as_deref(),
            Some("APIexample"),
            "{}",
            file.display()
        );
        assert_eq!(config.warnings.len(), 0, "{}", file.display());
        found += 1;
    }
    assert_eq!(found, 3);
}

/// The reference file with its commented lines made active.
fn uncommented(text: &str) -> String {
    let key =
        |line: &str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains([' ', '`']));
    let active = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if key(rest) || (rest.starts_with('[') && rest.ends_with(']')) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(active).collect::<Vec<_>>().join("\n")
}

/// Every key of a document with its section's header, and its value.
fn keys(header: &str, table: &toml::Table, into: &mut BTreeMap<(String, String), toml::Value>) {
    let named = header.trim_matches(['[', ']']);
    for (name, value) in table {
        let path = if named.is_empty() { name.clone() } else { format!("{named}.{name}") };
        let tables =
            value.as_array().filter(|elements| elements.first().is_some_and(toml::Value::is_table));
        if named.ends_with("keys") {
            // The operator's own.
        } else if let Some(inner) = value.as_table() {
            keys(&format!("[{path}]"), inner, into);
        } else if let Some(elements) = tables {
            for element in elements {
                keys(&format!("[[{path}]]"), element.as_table().unwrap(), into);
            }
        } else {
            into.insert((header.to_owned(), name.clone()), value.clone());
        }
    }
}

#[test]
fn the_reference_file_and_the_schema_have_the_same_keys_and_defaults() {
    let text = fs::read_to_string(folder("config/oncehook.toml")).unwrap();
    check_fragment("oncehook.toml", &text).unwrap();
    let (mut active, mut all) = (BTreeMap::new(), BTreeMap::new());
    keys("", &text.parse().unwrap(), &mut active);
    keys("", &uncommented(&text).parse().unwrap(), &mut all);
    let in_schema = || schema().into_iter().filter(|key| !key.name.starts_with('<'));
    let known: BTreeSet<_> = in_schema().map(|key| (key.section, key.name)).collect();
    assert!(known.len() > 80, "only {} keys", known.len());
    assert_eq!(all.keys().cloned().collect::<BTreeSet<_>>(), known);
    for key in in_schema().filter(|key| !key.section.starts_with("[[")) {
        let value = active.get(&(key.section.clone(), key.name.clone()));
        let default = key
            .default
            .as_ref()
            .map(|default| format!("x = {default}").parse::<toml::Table>().unwrap());
        assert_eq!(value, default.as_ref().map(|default| &default["x"]), "{key:?}");
    }
}

#[test]
fn every_example_in_the_reference_file_is_of_the_right_kind() {
    let text = uncommented(&fs::read_to_string(folder("config/oncehook.toml")).unwrap());
    let problems = check_fragment("oncehook.toml", &text).unwrap_err();
    // The URL and the password of Redis, the sentinels' password and the admin token, each written down and in a file.
    let other: Vec<_> =
        problems.iter().filter(|problem| !problem.message().ends_with("is set too")).collect();
    assert_eq!((other.len(), problems.iter().count()), (0, 4), "{problems}");
}

/// A paragraph of the reference file explains its keys: it begins with prose, or it is a section's first, whose header
/// may stand before the prose.
#[test]
fn every_key_of_the_reference_file_is_explained() {
    let text = fs::read_to_string(folder("config/oncehook.toml")).unwrap();
    let is_key = |line: &str| {
        uncommented(line).split_once(" = ").is_some_and(|(name, _)| !name.contains([' ', '#']))
    };
    let is_header = |line: &str| uncommented(line).starts_with('[');
    let mut found = 0;
    for paragraph in text.split("\n\n").filter(|paragraph| paragraph.lines().any(is_key)) {
        let first = paragraph.lines().find(|line| !is_header(line)).unwrap();
        let explained = first.starts_with("# ") && !is_key(first);
        // The keys of [route.tls], [[tenant]] and [tenant.keys] are explained where they stand first.
        let again =
            ["route", "tenant"].iter().any(|name| paragraph.contains(&format!("# [{name}.")));
        assert!(explained || again, "nothing explains\n{paragraph}");
        found += paragraph.lines().filter(|line| is_key(line)).count();
    }
    assert!(found > 80, "only {found} keys");
}

#[test]
fn every_toml_block_in_the_pages_is_valid() {
    let mut pages = vec![folder("README.md")];
    if folder("docs").exists() {
        pages.extend(files(&folder("docs"), "md"));
    }
    for page in pages.iter().filter(|page| page.exists()) {
        let text = fs::read_to_string(page).unwrap();
        let blocks: Vec<_> =
            text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(
            !blocks.is_empty() || page.file_stem().unwrap() != "README",
            "README.md has no toml block"
        );
        for block in blocks {
            check_fragment(page.to_str().unwrap(), block)
                .unwrap_or_else(|problems| panic!("{problems}\n\n{block}"));
        }
    }
}

#[test]
fn flags_go_before_variables_and_these_before_the_file_and_that_before_the_defaults() {
    let lease = [("ONCEHOOK_CLAIM__LEASE", "30s")];
    let leases = [
        (minimal(""), [].as_slice(), 10),
        (minimal("[claim]\nlease = \"20s\""), [].as_slice(), 20),
        (minimal("[claim]\nlease = \"20s\""), lease.as_slice(), 30),
    ];
    for (text, environment, seconds) in leases {
        let config = valid(loaded(&text, environment, Overrides::default()));
        assert_eq!(config.claim.lease, Duration::from_secs(seconds));
    }
    let overrides = Overrides {
        listen: Some("127.0.0.1:1".to_owned()),
        backend: Some("http://127.0.0.1:2".to_owned()),
        store: Some("redis://127.0.0.1:3/4".to_owned()),
        dev: false,
    };
    let environment = [
        ("ONCEHOOK_LISTEN__ADDRESS", "127.0.0.1:5"),
        ("ONCEHOOK_UPSTREAM__BACKEND", "http://127.0.0.1:6"),
        ("REDIS_URL", "redis://127.0.0.1:7"),
        ("ONCEHOOK_STORE__REDIS__PREFIX", "x:"),
    ];
    let config = valid(loaded(&minimal(""), &environment, overrides));
    assert_eq!(config.listen.address.port(), 1);
    assert_eq!(config.routes[0].upstream.backend.port(), 2);
    let StoreKind::Redis(redis) = config.store.kind else { panic!("no Redis") };
    assert_eq!((one(&redis), redis.prefix.as_str()), (("127.0.0.1:3".to_owned(), 4), "x:"));
}

#[test]
fn an_own_variable_goes_before_one_that_others_set_too() {
    let both = [
        ("ONCEHOOK_STORE__REDIS__URL", "redis://127.0.0.1:1"),
        ("REDIS_URL", "redis://127.0.0.1:2"),
    ];
    let config = valid(loaded(&minimal(""), &both, Overrides::default()));
    let StoreKind::Redis(redis) = config.store.kind else { panic!("no Redis") };
    assert_eq!(one(&redis).0, "127.0.0.1:1");
    let off = valid(loaded(&minimal(""), &[("WEBHOOK_ENABLED", "false")], Overrides::default()));
    assert!(!off.enabled);
    let on = [("ONCEHOOK_ENABLED", "true"), ("WEBHOOK_ENABLED", "false")];
    assert!(valid(loaded(&minimal(""), &on, Overrides::default())).enabled);
}

#[test]
fn a_variable_that_is_empty_is_not_set() {
    let config = valid(loaded(
        &minimal(""),
        &[("ONCEHOOK_CLAIM__LEASE", ""), ("REDIS_URL", "")],
        Overrides::default(),
    ));
    assert_eq!(config.claim.lease, Duration::from_secs(10));
    assert!(matches!(config.store.kind, StoreKind::Memory));
}

#[test]
fn livekit_s_variables_are_keys_of_the_default_tenant_and_go_before_the_file_s() {
    let other = "hunter2-ffffffffffffffffffffffffffffff";
    let pairs = format!("APIa: {other}, APIb: {other}");
    let environment = [
        ("LIVEKIT_API_KEY", "APItest"),
        ("LIVEKIT_API_SECRET", other),
        ("LIVEKIT_KEYS", &pairs),
        ("WEBHOOK_API_KEY", "APIb"),
    ];
    let config = valid(loaded(&minimal(""), &environment, Overrides::default()));
    let keys: Vec<_> = config
        .keys()
        .map(|(tenant, api_key, secret)| format!("{tenant} {api_key} {}", secret.expose_secret()))
        .collect();
    assert_eq!(
        keys,
        ["APItest", "APIa", "APIb"].map(|api_key| format!("default {api_key} {other}"))
    );
    assert_eq!(config.tenants[0].signs_with.as_deref(), Some("APIb"));
}

#[test]
fn secrets_come_from_files_that_variables_name() {
    let folder = TempDir::new().unwrap();
    let (secret, keys, password) =
        (folder.path().join("secret"), folder.path().join("keys"), folder.path().join("password"));
    write(&secret, &format!("{SECRET}\n"), 0o600);
    write(&keys, &format!("APIfile: {SECRET}\n"), 0o640);
    write(&password, "hunter2 with blanks \r\n", 0o400);
    let environment = [
        ("LIVEKIT_API_KEY", "APIvariable"),
        ("LIVEKIT_API_SECRET_FILE", secret.to_str().unwrap()),
        ("ONCEHOOK_KEYS_FILE", keys.to_str().unwrap()),
        ("REDIS_URL", "redis://127.0.0.1"),
        ("ONCEHOOK_STORE__REDIS__PASSWORD_FILE", password.to_str().unwrap()),
        ("ONCEHOOK_UPSTREAM__BACKEND", "http://127.0.0.1:8080"),
        ("ONCEHOOK_TLS__ENABLED", "false"),
        ("ONCEHOOK_LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, 192.168.0.0/16"),
    ];
    let sources = Sources { environment: variables(&environment), ..Sources::default() };
    let config = valid(load(&sources));
    let keys: Vec<_> = config
        .keys()
        .map(|(_, api_key, secret)| (api_key, secret.expose_secret().to_owned()))
        .collect();
    assert_eq!(
        keys,
        [("APIvariable".to_owned(), SECRET.to_owned()), ("APIfile".to_owned(), SECRET.to_owned())]
    );
    let StoreKind::Redis(redis) = &config.store.kind else { panic!("no Redis") };
    assert_eq!(redis.password.as_ref().unwrap().expose_secret(), "hunter2 with blanks ");
    assert_eq!(config.listen.trusted_proxies.len(), 2);
    assert_eq!(config.routes[0].path.as_str(), "/webhook");
}

#[test]
fn dev_needs_nothing_and_yields_to_everything() {
    let dev = Overrides { dev: true, ..Overrides::default() };
    let config = valid(load(&Sources { overrides: dev.clone(), ..Sources::default() }));
    let keys: Vec<_> =
        config.keys().map(|(tenant, api_key, _)| (tenant.to_string(), api_key)).collect();
    assert_eq!(keys, [("default".to_owned(), "devkey".to_owned())]);
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:8443");
    assert_eq!((&config.tls, config.warnings.len()), (&Tls::Off, 0));
    assert_eq!(config.log.format, config::LogFormat::Text);
    let mut environment = variables(&KEYS);
    environment.extend([("ONCEHOOK_TLS__ENABLED".to_owned(), "true".to_owned())]);
    let config = valid(load(&Sources { overrides: dev, environment, ..Sources::default() }));
    assert_eq!(config.keys().map(|(_, api_key, _)| api_key).collect::<Vec<_>>(), ["APItest"]);
    assert_eq!(config.tls, Tls::SelfSigned);
}

#[test]
fn without_routes_the_gateway_has_the_backend_s_path() {
    let config = valid(loaded(&minimal(""), &[], Overrides::default()));
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].path.as_str(), "/hook");
    assert_eq!(config.relay, Relay::NotFound);
}

#[test]
fn routes_inherit_what_they_leave_out() {
    let text = minimal(
        "timeout = \"6s\"\nconnections_max = 7\n[upstream.tls]\nserver_name = \"a\"\n[[route]]\npath = \"/a\"\n[[route]]\n\
         path = \"/b\"\nbackend = \"https://b\"\ntimeout = \"5s\"\nrefused = [404]\n[route.tls]\nserver_name = \"b\"\n",
    );
    let config = valid(loaded(&text, &[], Overrides::default()));
    let [a, b] = [&config.routes[0].upstream, &config.routes[1].upstream];
    assert_eq!((a.timeout.as_secs(), a.connections_max, a.backend.port()), (6, 7, 8080));
    assert_eq!((b.timeout.as_secs(), b.connections_max, b.backend.port()), (5, 7, 443));
    assert_eq!((a.refused.len(), b.refused.as_slice()), (8, [404].as_slice()));
    assert_eq!(
        (a.tls.server_name.as_deref(), b.tls.server_name.as_deref()),
        (Some("a"), Some("b"))
    );
}

#[test]
fn what_is_shown_is_a_configuration_with_origins_and_without_secrets() {
    let text = minimal(
        "[store.redis]\nurl = \"redis://u:hunter2@[::1]:6379/2\"\n[[route]]\npath = \"/a\"\nrefused = [404]\n",
    );
    let config = valid(loaded(&text, &[("ONCEHOOK_CLAIM__LEASE", "30s")], Overrides::default()));
    let shown = show(&config);
    assert!(!shown.contains(MARK), "{shown}");
    check_fragment("shown", &shown).unwrap();
    for line in [
        "lease = \"30s\"  # environment ONCEHOOK_CLAIM__LEASE",
        "guard = \"2s\"  # default",
        "url = \"redis://u:<redacted>@[::1]:6379/2\"  # ",
        "APItest = \"<redacted>\"  # ",
        "refused = [404]  # ",
        "[[route]]",
        "[store.redis]",
    ] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line} is not in\n{shown}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_apart_from_a_wrong_one() {
    let sources = Sources { file: Some("/nowhere/oncehook.toml".into()), ..Sources::default() };
    assert!(matches!(load(&sources), Err(LoadError::Unreadable { .. })));
}

/// `oncehook check` in an environment of its own.
fn check(arguments: &[&str]) -> std::process::Output {
    assert_cmd::Command::cargo_bin("oncehook")
        .unwrap()
        .env_clear()
        .arg("check")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_check_command_ends_as_sysexits_says_and_prints_data_only_if_asked() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("oncehook.toml");
    let name = file.to_str().unwrap();
    write(&file, &minimal(""), 0o600);
    let output = check(&["--config", name]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("configuration {name} is valid\n")
    );
    let shown = String::from_utf8(check(&["--config", name, "--show"]).stdout).unwrap();
    check_fragment("shown", &shown).unwrap();
    assert!(shown.contains("lease = \"10s\"  # default") && !shown.contains(MARK), "{shown}");
    write(&file, &minimal("[claim]\nlease = 1\nguard = 2\n"), 0o600);
    let output = check(&["--config", name]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches(": error: ").count(), 2, "{told}");
    assert!(told.ends_with(&format!("configuration {name} is not valid\n")), "{told}");
    assert_eq!(check(&["--config", "/nowhere/oncehook.toml"]).status.code(), Some(66));
    assert_eq!(check(&[]).status.code(), Some(78));
}

/// Every shipped and every wrong file, with a piece cut out and another put in.
fn damaged() -> impl Strategy<Value = String> {
    let mut texts: Vec<String> = ["config", "tests/data/config"]
        .iter()
        .flat_map(|name| files(&folder(name), "toml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    texts.push(uncommented(&texts[1]));
    let pieces = [
        "", "=", "\"", "'", "[", "]]", "{", "}", "\n", "\t", "\0", "ä", "🦀", "1e9", "@", ".",
        "\"\"\"", "\r\n", "#", ",",
    ];
    let cut = (any::<Index>(), 0..40_usize, prop::sample::select(pieces.to_vec()));
    (prop::sample::select(texts), prop::collection::vec(cut, 1..4)).prop_map(|(text, cuts)| {
        cuts.into_iter().fold(text, |text, (at, length, piece)| {
            let mut characters: Vec<char> = text.chars().collect();
            let start = at.index(characters.len() + 1);
            let end = (start + length).min(characters.len());
            drop(characters.splice(start..end, piece.chars()));
            characters.into_iter().collect()
        })
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_it_panic(text in damaged()) {
        if let Err(problems) = check_fragment("damaged.toml", &text) {
            let told = problems.to_string();
            proptest::prop_assert!(told.contains("damaged.toml"), "{told}");
        }
    }
}
