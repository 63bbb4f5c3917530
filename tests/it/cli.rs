//! The command line as a user meets it: real processes, their outputs and their exit codes.

use std::io::Write as _;
use std::process::Stdio;

use clap::CommandFactory as _;
use oncehook::cli::Cli;
use serde_json::Value;

use crate::support::process::{Process, oncehook, output};

/// An address that nobody can be listening at: bound, and given back.
fn unused() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A sample backend with these flags, and its URL.
fn listen(flags: &[&str]) -> (Process, String) {
    let mut arguments = vec!["listen", "--address", "127.0.0.1:0", "--format", "json"];
    arguments.extend(flags);
    let backend = Process::start(oncehook(&arguments));
    let url = backend.said("http://");
    (backend, url)
}

/// A gateway before `backend`, with free ports, and its URL.
fn gateway(backend: &str, tls: &str) -> (Process, String) {
    let url = format!("{backend}webhook");
    let mut command = oncehook(&["run", "--dev", "--listen", "127.0.0.1:0", "--backend", &url]);
    command.env("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0").env("ONCEHOOK_TLS__ENABLED", tls);
    command.env("ONCEHOOK_LOG__LEVEL", "error");
    let gateway = Process::start(command);
    let url = gateway.said(if tls == "true" { "https://" } else { "http://" });
    (gateway, url)
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Sends, and hands over the exit code and the last line: the sums.
fn trigger(arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["trigger", "--format", "json"];
    all.extend(arguments);
    let (code, out, talk) = output(&all);
    let last = objects(&out).pop().unwrap_or_else(|| panic!("no sums: {talk}"));
    (code, last["summary"].clone())
}

#[test]
fn the_help_of_every_command_is_as_it_was_reviewed() {
    let commands = Cli::command();
    let names: Vec<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
    assert!(names.len() >= 9, "{names:?}");
    let (code, help, _) = output(&["--help"]);
    assert_eq!(code, 0);
    insta::assert_snapshot!("help", help);
    for name in names {
        let (code, help, talk) = output(&[name, "--help"]);
        assert_eq!((code, talk.as_str()), (0, ""), "{name}");
        assert!(help.contains("Examples:"), "{name} has no examples");
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    let wrong: &[&[&str]] = &[
        &[],
        &["nope"],
        &["trigger"],
        &["trigger", "room_startd", "--to", "http://127.0.0.1:1/"],
        &["trigger", "room_started", "--to", "ftp://127.0.0.1/"],
        &["trigger", "room_started", "--to", "http://127.0.0.1:1/", "--same-id", "--distinct-id"],
        &["trigger", "room_started", "--to", "http://127.0.0.1:1/", "--api-key", "x"],
        &["listen", "--delay", "8"],
        &["listen", "--fail-rate", "2"],
        &["sign", "--api-key", "x"],
        &["completions", "tcsh"],
    ];
    for arguments in wrong {
        let (code, out, talk) = output(arguments);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {talk}");
        assert!(!talk.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_event_that_is_misspelt_is_guessed() {
    let (_, _, talk) = output(&["trigger", "room_startd", "--to", "http://127.0.0.1:1/"]);
    assert!(talk.contains("did you mean room_started?"), "{talk}");
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let nobody = unused();
    let backend = "http://127.0.0.1:1/";
    let cases: &[(i32, &[&str])] = &[
        (66, &["run", "--config", "/nonexistent/oncehook.toml"]),
        (66, &["verify", "/nonexistent/capture", "--api-secret", "secret"]),
        (69, &["listen", "--address", &taken]),
        (69, &["run", "--dev", "--backend", backend, "--listen", &taken]),
        (69, &["healthcheck", "--address", &nobody]),
        (73, &["listen", "--address", "192.0.2.1:8080"]),
        (78, &["run"]),
        (78, &["run", "--dev", "--backend", "nowhere"]),
    ];
    for (expected, arguments) in cases {
        let (code, _, talk) = output(arguments);
        assert_eq!(code, *expected, "{arguments:?}: {talk}");
        assert!(talk.starts_with("oncehook: ") || talk.contains("error"), "{arguments:?}: {talk}");
    }
}

#[test]
fn a_taken_port_is_explained_once() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let (_, _, talk) =
        output(&["run", "--dev", "--backend", "http://127.0.0.1:1/", "--listen", &address]);
    let hints = talk.lines().filter(|line| line.starts_with("hint: ")).count();
    assert_eq!(hints, 1, "{talk}");
    assert!(talk.contains(&format!("cannot listen on {address}: ")), "{talk}");
}

#[test]
fn a_reader_who_leaves_is_success() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = oncehook(&["completions", "bash"]);
    let status = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = status.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = output(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(script.contains("trigger") && script.contains("same-id"), "{shell}");
    }
}

#[test]
fn the_version_can_be_read_by_a_program() {
    let (code, out, _) = output(&["version", "--format", "json"]);
    assert_eq!(code, 0);
    assert_eq!(objects(&out)[0]["version"], env!("CARGO_PKG_VERSION"));
    let (_, short, _) = output(&["--version"]);
    assert_eq!(short, format!("oncehook {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_trigger_sends_listen_verifies() {
    let (mut backend, url) = listen(&["--count", "16"]);
    let (code, sums) = trigger(&["all", "--to", &url]);
    assert_eq!((code, &sums["acknowledged"]), (0, &Value::from(16)), "{sums}");
    assert_eq!(backend.wait().code(), Some(0));
    let lines = objects(&backend.rest().join("\n"));
    assert_eq!(lines.len(), 17);
    for line in &lines[..16] {
        assert_eq!(
            (&line["refusal"], &line["status"]),
            (&Value::Null, &Value::from(200)),
            "{line}"
        );
        assert_eq!(line["duplicate"], Value::Null, "{line}");
    }
    assert_eq!(lines[16]["summary"]["accepted"], 16);
}

#[test]
fn a_backend_alone_accepts_what_a_gateway_would_collapse() {
    let (backend, url) = listen(&[]);
    for (flags, known) in [(["--same-id"], "id"), (["--distinct-id"], "event")] {
        let mut arguments = vec!["egress_ended", "--nodes", "2", "--to", &url];
        arguments.extend(flags);
        assert_eq!(trigger(&arguments).0, 0);
        let lines = objects(&[backend.out_line(), backend.out_line()].join("\n"));
        assert_eq!(lines[0]["duplicate"], Value::Null);
        assert_eq!(lines[1]["duplicate"], known);
    }
}

#[test]
fn a_node_tries_again_after_a_500_and_not_after_a_404() {
    let (_failing, url) = listen(&["--fail-first", "1"]);
    let (code, sums) = trigger(&["room_started", "--to", &url]);
    assert_eq!((code, &sums["attempts"]), (0, &Value::from(2)), "{sums}");
    let (_lost, url) = listen(&["--status", "404"]);
    let (code, sums) = trigger(&["room_started", "--to", &url]);
    assert_eq!((code, &sums["lost_in_silence"]), (1, &Value::from(1)), "{sums}");
    let (code, sums) =
        trigger(&["room_started", "--no-retry", "--to", &format!("http://{}/", unused())]);
    assert_eq!((code, &sums["unconnected"]), (69, &Value::from(1)), "{sums}");
}

#[test]
fn a_wrong_secret_is_refused_by_the_backend() {
    let (backend, url) = listen(&[]);
    let (code, sums) = trigger(&["room_started", "--api-secret", "wrong", "--to", &url]);
    assert_eq!((code, &sums["lost_in_silence"]), (1, &Value::from(1)), "{sums}");
    let line = &objects(&backend.out_line())[0];
    assert_eq!(line["status"], 401);
    assert!(line["refusal"].as_str().unwrap().contains("signature"), "{line}");
}

#[test]
fn the_same_seed_fails_the_same_arrivals() {
    let statuses = || {
        let (mut backend, url) = listen(&["--fail-rate", "0.5", "--seed", "7"]);
        trigger(&["room_started", "--count", "32", "--parallel", "1", "--no-retry", "--to", &url]);
        backend.signal("INT");
        assert_eq!(backend.wait().code(), Some(0));
        let lines = objects(&backend.rest().join("\n"));
        lines.iter().take(32).map(|line| line["status"].as_u64()).collect::<Vec<_>>()
    };
    let first = statuses();
    assert!(first.contains(&Some(200)) && first.contains(&Some(500)), "{first:?}");
    assert_eq!(first, statuses());
}

#[test]
fn nodes_over_http2_are_collapsed_by_a_gateway_with_a_self_signed_certificate() {
    let (mut backend, backend_url) = listen(&[]);
    let (mut gateway, url) = gateway(&backend_url, "true");
    let (code, _) = trigger(&["egress_ended", "--to", &url]);
    assert_eq!(code, 1, "a certificate that nobody vouches for is not trusted");
    for version in [&["--insecure"][..], &["--insecure", "--http1"]] {
        let mut arguments = vec!["egress_ended", "--nodes", "3", "--to", &url];
        arguments.extend(version);
        let (code, sums) = trigger(&arguments);
        assert_eq!((code, &sums["acknowledged"]), (0, &Value::from(3)), "{sums}");
        assert_eq!(sums["oncehook_status"]["forwarded"], 1, "{sums}");
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    backend.signal("TERM");
    assert_eq!(backend.wait().code(), Some(0));
    assert_eq!(objects(&backend.rest().join("\n")).last().unwrap()["summary"]["accepted"], 2);
}

#[test]
fn a_gateway_that_runs_is_healthy() {
    let (_backend, backend_url) = listen(&[]);
    let (mut gateway, _) = gateway(&backend_url, "false");
    let admin = gateway.said("http://").trim_end_matches("/livez").replace("http://", "");
    for question in ["ready", "live"] {
        let (code, out, talk) =
            output(&["healthcheck", "--address", &admin, "--question", question]);
        assert_eq!((code, out.as_str()), (0, ""), "{talk}");
    }
    gateway.signal("INT");
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_gateway_that_drains() {
    let mut command = oncehook(&["run", "--dev", "--listen", "127.0.0.1:0"]);
    command.env("ONCEHOOK_ADMIN__ADDRESS", "127.0.0.1:0");
    command.env("ONCEHOOK_SHUTDOWN__DRAIN_DELAY", "60s");
    command.env("ONCEHOOK_SHUTDOWN__GRACE", "60s");
    let mut gateway = Process::start(command);
    gateway.said("oncehook");
    gateway.signal("TERM");
    gateway.said("draining");
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(1));
}

#[test]
fn what_sign_prints_verify_explains() {
    let mut body = tempfile::NamedTempFile::new().unwrap();
    body.write_all(br#"{"event":"room_started","room":{"sid":"RM_1"},"id":"EV_1"}"#).unwrap();
    let path = body.path().to_str().unwrap();
    let secret = ["--api-key", "devkey", "--api-secret", "secret"];
    let (code, token, _) = output(&[&["sign", path][..], &secret].concat());
    assert_eq!(code, 0);
    let captured = ["verify", "--authorization", token.trim_end(), "--body", path];
    let (code, _, talk) = output(&[&captured[..], &secret].concat());
    assert_eq!(code, 0, "{talk}");
    let (code, ..) =
        output(&[&captured[..], &["--api-key", "devkey", "--api-secret", "other"]].concat());
    assert_eq!(code, 65);
}

#[test]
fn the_demo_delivers_every_event_exactly_once() {
    let (code, out, talk) =
        output(&["demo", "--format", "json", "--events", "64", "--copies", "2"]);
    let lines = objects(&out);
    assert_eq!((code, lines.len()), (0, 8), "{out}{talk}");
    for line in &lines[..7] {
        assert_eq!(line["ok"], true, "{line}");
    }
    assert_eq!(lines[7]["summary"]["accepted"], 70);
    assert_eq!(lines[6]["copies"], 384);
}

#[test]
fn the_demo_says_what_to_do_next() {
    let (code, out, _) = output(&["demo", "--events", "1"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("the backend got every event exactly once"), "{out}");
    assert!(out.contains("oncehook run --dev --backend"), "{out}");
}
