//! `oncehook sign` and `oncehook verify`, without a process.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Parser;
use oncehook::cli::{sign, verify};

#[derive(Parser)]
struct Sign {
    #[command(flatten)]
    args: sign::Args,
}

#[derive(Parser)]
struct Verify {
    #[command(flatten)]
    args: verify::Args,
}

const FLEET: [&str; 4] =
    ["--api-key", "APIfleetkey", "--api-secret", "fleet-secret-of-at-least-thirty-two-characters"];

fn explain(args: &[&str], stdin: &[u8]) -> (verify::Outcome, String) {
    let args = ["verify"].iter().chain(args);
    let parsed = Verify::try_parse_from(args).unwrap();
    let mut out = Vec::new();
    let outcome = verify::run(&parsed.args, &mut { stdin }, &mut out).unwrap();
    (outcome, String::from_utf8(out).unwrap())
}

fn capture() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/livekit/1.13.5.jsonl")
        .display()
        .to_string()
}

#[test]
fn a_captured_request_is_explained_step_by_step() {
    let path = capture();
    let args = [&FLEET[..], &[&path, "--line", "3", "--at", "nbf"]].concat();
    let (outcome, text) = explain(&args, b"");
    assert_eq!(outcome, verify::Outcome::Accepted);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "ok    token      HS256, 252 bytes",
            "ok    signature  made with the secret of APIfleetkey, tenant default",
            "ok    time       nbf 1795574895 (in 0 s), exp 1795575195 (in 300 s), judged at 1795574895 with 60 s leeway",
            "ok    body       515 bytes, sha256 Date1groNVikG7Qps7vXEqWwkgSKLjdjVDkW3+zGUPQ= as signed",
            r#"-     event      "track_published", id "EV_aoZ9gYXKoP4Z""#,
            "-     fields     event=track_published, room.sid=RM_x576ZD4NuPoY, participant.sid=PA_tXDdo6ufH4VF, track.sid=TR_AMP3xqQgCKpfFD, track.version.unixMicro=1795574895659289, track.version.ticks=0",
            "-     identity   event: what happened",
            lines[7],
        ]
    );
    assert!(lines[7].starts_with("-     key        "));
}

#[test]
fn an_expired_token_is_refused_and_still_explained() {
    let path = capture();
    let args = [&FLEET[..], &[&path, "--at", "1795576000", "--format", "json"]].concat();
    let (outcome, text) = explain(&args, b"");
    assert_eq!(outcome, verify::Outcome::Refused);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["refusal"], "expired");
    assert_eq!(json["event"], "room_started");
    assert_eq!(json["basis"], "event");
    assert_eq!(json["steps"][2]["step"], "time");
    assert_eq!(json["steps"][2]["result"], "fail");
    let detail = json["steps"][2]["detail"].as_str().unwrap();
    assert!(detail.starts_with(
        "the token expired 805 s ago: nbf 1795574895 (1105 s ago), exp 1795575195 (805 s ago)"
    ));
}

#[test]
fn what_sign_prints_verify_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let [body, secret] = ["body.json", "secret"].map(|name| folder.path().join(name));
    fs::write(&body, "{\"event\":\"\\u001b[31m\"}\n").unwrap();
    fs::write(&secret, "a secret\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let [body, secret] = [&body, &secret].map(|path| path.to_str().unwrap());
    let key = ["--api-key", "k", "--api-secret-file", secret];
    let parsed = Sign::try_parse_from([&["sign"], &key[..], &["--at", "1000"]].concat()).unwrap();
    let mut token = Vec::new();
    sign::run(&parsed.args, &mut fs::File::open(body).unwrap(), &mut token).unwrap();
    let token = String::from_utf8(token).unwrap();
    let given = ["--authorization", token.trim(), "--body", body, "--at", "1001"];
    let (outcome, text) = explain(&[&key[..], &given].concat(), b"");
    assert_eq!(outcome, verify::Outcome::Accepted, "{text}");
    assert!(text.contains("body: its sha256; only equal bytes are copies"));
    assert!(!text.contains('\u{1b}'), "a body must not steer a terminal");

    let dump = format!("POST / HTTP/1.1\r\nAuthorization: {}\r\n\r\n{{}}", token.trim());
    let (outcome, text) = explain(&[&key[..], &["--at", "nbf"]].concat(), dump.as_bytes());
    assert_eq!(outcome, verify::Outcome::Refused);
    assert!(text.contains("FAIL  body       the body is not the one that was signed: 2 bytes, sha256 RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=, but "));
    assert!(text.contains("-     key        none: only what was signed has one"));
}

#[test]
fn without_a_secret_the_hint_says_where_to_put_it() {
    let args = Verify::try_parse_from(["verify", &capture(), "--api-secret-file", "/nonexistent"]);
    let error =
        verify::run(&args.unwrap().args, &mut std::io::empty(), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the API secret from /nonexistent"));
}
