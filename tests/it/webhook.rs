//! The webhook room against what real LiveKit servers sent, against tokens that are not theirs, and against DESIGN.md, 4.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use oncehook::clock::UnixTime;
use oncehook::webhook::event::{Event, EventKind, Field, Value};
use oncehook::webhook::key::{Basis, Identity, identify};
use oncehook::webhook::sample::{self, Subject};
use oncehook::webhook::token::Token;
use oncehook::webhook::verify::{KeyRing, Verifier, Webhook, sign};
use secrecy::SecretString;
use serde::Deserialize;

pub(crate) const NOW: u64 = 1_795_574_895;
pub(crate) const BODY: &[u8] = br#"{"event":"room_started","room":{"sid":"RM_a"}}"#;

#[derive(Deserialize)]
struct Capture {
    authorization: String,
    body: String,
}

fn captures(version: &str) -> Vec<Capture> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/livekit");
    let lines = fs::read_to_string(path.join(format!("{version}.jsonl"))).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::from_epoch(Duration::from_secs(seconds))
}

fn verifier(keys: &[(&str, &str, &str)]) -> Verifier {
    let keys = keys.iter().map(|(tenant, key, secret)| {
        (tenant.into(), (*key).to_owned(), SecretString::from(*secret))
    });
    Verifier::new(KeyRing::new(keys).unwrap())
}

pub(crate) fn devkey() -> Verifier {
    verifier(&[("default", "devkey", "secret"), ("other", "APIother", "another secret")])
}

fn captured(capture: &Capture) -> Webhook {
    let secret = "fleet-secret-of-at-least-thirty-two-characters";
    let verifier = verifier(&[("fleet", "APIfleetkey", secret)]);
    let authorization = capture.authorization.as_bytes();
    let nbf = Token::parse(authorization).unwrap().grants.nbf.unwrap();
    let signature = verifier.check_token(authorization, at(nbf)).unwrap();
    assert_eq!(signature.tenant().as_str(), "fleet");
    assert_eq!(signature.api_key().as_str(), "APIfleetkey");
    assert_eq!(signature.expires(), at(nbf + 300));
    verifier.check_body(signature, Bytes::from(capture.body.clone())).unwrap()
}

fn webhook(body: impl Into<Bytes>) -> Webhook {
    let body = body.into();
    let secret = SecretString::from("secret");
    let token = sign("devkey", &secret, &body, at(NOW), Duration::from_mins(5)).unwrap();
    let verifier = devkey();
    let signature = verifier.check_token(token.as_bytes(), at(NOW)).unwrap();
    verifier.check_body(signature, body).unwrap()
}

fn basis(body: &str) -> &'static str {
    identify(&webhook(body.to_owned()), "/", &Identity::Event).basis.label()
}

fn same_key(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|body| {
        let webhook = webhook(body.to_owned());
        identify(&webhook, "/", &Identity::Event).key
    });
    one == other
}

#[test]
fn every_captured_request_verifies_and_copies_share_a_key() {
    // Requests, events, and the events that came more than once with how often each came.
    let expected = [
        ("1.7.2", 14, 14, vec![]),
        ("1.9.11", 32, 22, vec![2, 2, 2, 2, 3, 3, 3]),
        ("1.13.5", 32, 22, vec![2, 2, 3, 3, 3, 3]),
    ];
    for (version, requests, events, copies) in expected {
        let mut keys = HashMap::new();
        let captures = captures(version);
        assert_eq!(captures.len(), requests, "{version}");
        for capture in &captures {
            let webhook = captured(capture);
            let keyed = identify(&webhook, "/webhook", &Identity::Event);
            assert_eq!(keyed.basis, Basis::Event, "{}", capture.body);
            assert!(keyed.id.as_ref().is_some_and(|id| id.starts_with("EV_")));
            let entry = keys.entry(keyed.key).or_insert((keyed.kind, keyed.digest, Vec::new()));
            assert_eq!((entry.0, entry.1), (keyed.kind, keyed.digest), "{}", capture.body);
            entry.2.push(keyed.id.unwrap().into_owned());
        }
        assert_eq!(keys.len(), events, "{version}");
        let counts = keys.values().map(|(.., ids)| ids.len());
        let mut counts: Vec<_> = counts.filter(|count| *count > 1).collect();
        counts.sort_unstable();
        assert_eq!(counts, copies, "{version}");
        assert_eq!(counts.iter().sum::<usize>() + events - counts.len(), requests, "{version}");
    }
}

#[test]
fn a_track_that_is_published_again_is_another_event_even_under_its_old_sid() {
    let mut tracks: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for capture in &captures("1.7.2") {
        let webhook = captured(capture);
        let event = Event::parse(webhook.body());
        if event.kind() == EventKind::TrackPublished {
            let Some(Value::Text(sid)) = event.value(Field::TrackSid) else { panic!("no sid") };
            let key = identify(&webhook, "/webhook", &Identity::Event).key;
            tracks.entry(sid.to_owned()).or_default().push(key);
        }
    }
    assert_eq!(tracks.len(), 2, "one track a participant, in spite of two publications each");
    for keys in tracks.values() {
        let [first, second] = keys[..] else { panic!("{keys:?}") };
        assert_ne!(first, second);
    }
}

/// DESIGN.md, 4: which fields identify each event. Changing one changes the key; changing any other does not.
#[test]
fn the_fields_that_identify_each_event_are_those_of_the_design() {
    let room = "room.sid";
    let track =
        [room, "participant.sid", "track.sid", "track.version.unixMicro", "track.version.ticks"];
    let egress = ["egressInfo.egressId", "egressInfo.status"];
    let ingress = [
        "ingressInfo.ingressId",
        "ingressInfo.state.resourceId",
        "ingressInfo.state.startedAt",
        "ingressInfo.state.status",
    ];
    let job = ["job.id", "job.state.status", "job.state.startedAt"];
    let table: [(&str, &[&str]); 16] = [
        ("room_started", &[room]),
        ("room_finished", &[room]),
        ("participant_joined", &track[..2]),
        ("participant_left", &track[..2]),
        ("participant_connection_aborted", &track[..2]),
        ("track_published", &track),
        ("track_unpublished", &track),
        ("egress_started", &egress),
        ("egress_updated", &[egress[0], egress[1], "egressInfo.updatedAt"]),
        ("egress_ended", &egress),
        ("ingress_started", &ingress),
        ("ingress_ended", &ingress),
        ("agent_job_started", &job),
        ("agent_job_ended", &job),
        ("recording_finished", &[]),
        ("other", &[]),
    ];
    for (kind, (name, fields)) in EventKind::ALL.into_iter().zip(table) {
        assert_eq!(kind.name(), name);
        let paths: Vec<_> = kind.fields().iter().map(|field| field.path()).collect();
        let expected: Vec<_> =
            if fields.is_empty() { vec![] } else { [&["event"], fields].concat() };
        assert_eq!(paths, expected, "{name}");
    }
}

#[test]
fn samples_of_every_kind_are_events_of_that_kind() {
    let subject = Subject::numbered(7, at(NOW));
    let other = Subject::numbered(8, at(NOW));
    for kind in EventKind::ALL {
        let [first, copy, distinct] = [
            sample::body(kind, &subject, "EV_a", NOW),
            sample::body(kind, &subject, "EV_b", NOW + 1),
            sample::body(kind, &other, "EV_c", NOW),
        ]
        .map(webhook);
        let [first, copy, distinct] = [&first, &copy, &distinct]
            .map(|webhook| identify(webhook, "/webhook", &Identity::Event));
        assert_eq!((first.kind, copy.kind), (kind, kind));
        let known = !kind.fields().is_empty();
        assert_eq!(first.basis, if known { Basis::Event } else { Basis::Id }, "{kind:?}");
        assert_eq!(first.key == copy.key, known, "{kind:?}");
        assert_ne!(first.key, distinct.key, "{kind:?}");
        assert_eq!(first.digest, copy.digest, "{kind:?}");
    }
}

#[test]
fn the_seven_events_of_the_old_guides_have_keys() {
    // As those guides show them: snake_case, `creation_time`, no `id`.
    let room =
        r#""room":{"sid":"RM_a","name":"r","empty_timeout":300,"creation_time":"1795574895"}"#;
    let participant = r#""participant":{"sid":"PA_a","identity":"p","joined_at":"1795574895"}"#;
    let track = r#""track":{"sid":"TR_a","type":"AUDIO"}"#;
    let cases = [
        ("room_started", room.to_owned(), "event"),
        ("room_finished", room.to_owned(), "event"),
        ("participant_joined", format!("{room},{participant}"), "event"),
        ("participant_left", format!("{room},{participant}"), "event"),
        // No version yet, and a track that is published again keeps its sid: only equal bytes are surely copies.
        ("track_published", format!("{room},{participant},{track}"), "body"),
        ("track_unpublished", format!("{room},{participant},{track}"), "body"),
        ("recording_finished", r#""egress_info":{"egress_id":"EG_a"}"#.to_owned(), "body"),
    ];
    for (event, members, expected) in cases {
        let old = format!(r#"{{"event":"{event}",{members},"creation_time":1795574895}}"#);
        assert_eq!(basis(&old), expected, "{event}");
        let with_id = format!(r#"{{"event":"{event}",{members},"id":"EV_a","createdAt":"1"}}"#);
        let expected = if expected == "event" { "event" } else { "id" };
        assert_eq!(basis(&with_id), expected, "{event}");
        assert_eq!(same_key(&old, &with_id), expected == "event", "{event}");
    }
}

#[test]
fn a_body_falls_to_the_next_step_and_never_shares_a_key_by_doing_so() {
    let long = "x".repeat(257);
    let deep = format!(
        r#"{{"event":"room_started","x":{},"room":{{"sid":"RM_a"}}}}"#,
        "[".repeat(3000) + &"]".repeat(3000)
    );
    let cases = [
        (r#"{"event":"room_started","room":{"sid":"RM_a"}}"#, "event"),
        (r#" {"room": {"x": {"sid": 1}, "sid": "RM_a"}, "event": "room_started"} "#, "event"),
        (deep.as_str(), "event"),
        (r#"{"event":"room_started","room":{"sid":""},"id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":{"sid":null},"id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":{"sid":7},"id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":[{"sid":"RM_a"}],"id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":"RM_a","id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":{"sid":"RM_a","sid":"RM_a"},"id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":{"sid":"RM_a"},"room":null,"id":"EV_a"}"#, "id"),
        (
            r#"{"event":"room_started","event":"room_started","room":{"sid":"RM_a"},"id":"EV_a"}"#,
            "id",
        ),
        (r#"{"event":"room_started","room":{"sid":"\ud800"},"id":"EV_a"}"#, "id"),
        (r#"{"event":"room_started","room":{"sid":1e999},"id":"EV_a"}"#, "id"),
        (r#"{"event":"new_in_2031","id":"EV_a"}"#, "id"),
        (r#"{"event":"Room_started","room":{"sid":"RM_a"},"id":"EV_a"}"#, "id"),
        (r#"{"id":"EV_a"}"#, "id"),
        (r#"{"id":"EV_a","id":"EV_a"}"#, "body"),
        (r#"{"id":""}"#, "body"),
        (r#"{"id":7}"#, "body"),
        (r#"{"event":"room_started","room":{"sid":"RM_a"}"#, "body"),
        (r#"{"event":"room_started","room":{"sid":"RM_a"}} {}"#, "body"),
        (r#"{"event":"room_started","room":{"sid":"RM_a"},}"#, "body"),
        (r#"["room_started"]"#, "body"),
        ("", "body"),
    ];
    for (body, expected) in cases {
        assert_eq!(basis(body), expected, "{body:.100}");
    }
    assert_eq!(basis(&format!(r#"{{"id":"{}"}}"#, &long[1..])), "id");
    assert_eq!(basis(&format!(r#"{{"id":"{long}"}}"#)), "body");
    let invalid = webhook(
        b"{\"event\":\"room_started\",\"room\":{\"sid\":\"\xff\"},\"id\":\"EV_a\"}".as_slice(),
    );
    assert_eq!(identify(&invalid, "/", &Identity::Event).basis, Basis::Id);
    let elsewhere = webhook(
        b"{\"event\":\"room_started\",\"room\":{\"sid\":\"RM_a\",\"metadata\":\"\xff\"}}"
            .as_slice(),
    );
    assert_eq!(identify(&elsewhere, "/", &Identity::Event).basis, Basis::Event);
}

#[test]
fn both_spellings_of_a_value_are_one_value() {
    let same = [
        (
            r#""egressInfo":{"egressId":"E","status":"EGRESS_COMPLETE"}"#,
            r#""egress_info":{"status":3,"egress_id":"E"}"#,
        ),
        (
            r#""egressInfo":{"egressId":"E"}"#,
            r#""egressInfo":{"egressId":"E","status":"EGRESS_STARTING"}"#,
        ),
        (r#""egressInfo":{"egressId":"E"}"#, r#""egressInfo":{"egressId":"\u0045","status":0}"#),
        (
            r#""egressInfo":{"egressId":"E","status":null}"#,
            r#""egressInfo":{"egressId":"E","status":0}"#,
        ),
    ];
    for (one, other) in same {
        let [one, other] =
            [one, other].map(|egress| format!(r#"{{"event":"egress_ended",{egress}}}"#));
        assert!(same_key(&one, &other), "{one} {other}");
    }
    let track = |version: &str| {
        format!(
            r#"{{"event":"track_published","room":{{"sid":"R"}},"participant":{{"sid":"P"}},"track":{{"sid":"T","version":{version}}},"id":"EV_a"}}"#
        )
    };
    let plain = track(r#"{"unixMicro":"1795574895659289"}"#);
    assert!(same_key(&plain, &track(r#"{"unix_micro":1795574895659289,"ticks":0}"#)));
    assert!(!same_key(&plain, &track(r#"{"unixMicro":"1795574895659289","ticks":1}"#)));
    // One more than 2^53, and one more still: a float could not tell them apart.
    assert!(!same_key(
        &track(r#"{"unixMicro":9007199254740993}"#),
        &track(r#"{"unixMicro":9007199254740992}"#)
    ));
    for version in [
        "{}",
        r#"{"unixMicro":0}"#,
        r#"{"unixMicro":"01"}"#,
        r#"{"unixMicro":"+1"}"#,
        r#"{"unixMicro":" 1"}"#,
        r#"{"unixMicro":1.0}"#,
        r#"{"unixMicro":1e3}"#,
        r#"{"unixMicro":"-0"}"#,
        r#"{"unixMicro":true}"#,
        r#"{"unixMicro":9223372036854775808}"#,
        r#"{"unixMicro":"9223372036854775808"}"#,
        r#"{"unixMicro":1,"unix_micro":1}"#,
        r#"{"unixMicro":1,"ticks":"x"}"#,
    ] {
        assert_eq!(basis(&track(version)), "id", "{version}");
    }
}

#[test]
fn tenants_routes_and_bases_are_apart() {
    let webhook = webhook(BODY);
    let id: Identity = "id".parse().unwrap();
    let template: Identity = "{room.sid}:{event}".parse().unwrap();
    let key = |route, identity| identify(&webhook, route, identity).key;
    let secret = SecretString::from("another secret");
    let token = sign("APIother", &secret, BODY, at(NOW), Duration::from_mins(5)).unwrap();
    let signature = devkey().check_token(token.as_bytes(), at(NOW)).unwrap();
    let elsewhere = devkey().check_body(signature, Bytes::from_static(BODY)).unwrap();
    let keys = [
        key("/", &Identity::Event),
        key("/a", &Identity::Event),
        key("/", &id),
        key("/", &template),
        identify(&elsewhere, "/", &Identity::Event).key,
    ];
    for (place, key) in keys.iter().enumerate() {
        assert!(!keys[..place].contains(key), "{place}");
    }
    assert_eq!(
        key("/", &Identity::Event).to_string(),
        "b09364b77834271f24dbccb4317aef8e",
        "keys outlive a release"
    );
}

#[test]
fn a_template_chooses_the_fields_and_says_what_is_wrong_with_it() {
    let template: Identity = "{createdAt}:{event}".parse().unwrap();
    assert_eq!(template.to_string(), "{createdAt}:{event}");
    let body = |id: &str, sid: &str| {
        format!(
            r#"{{"event":"room_started","room":{{"sid":"{sid}"}},"id":"{id}","createdAt":"1"}}"#
        )
    };
    let [one, other] = [body("EV_a", "RM_a"), body("EV_b", "RM_b")].map(webhook);
    let [one, other] = [&one, &other].map(|webhook| identify(webhook, "/", &template));
    // The two distinct events of one second that the widely copied recipe loses.
    assert_eq!((one.key, one.basis), (other.key, Basis::Template));
    assert_ne!(one.digest, other.digest);
    let without = webhook(r#"{"event":"room_started","id":"EV_a"}"#);
    assert_eq!(identify(&without, "/", &template).basis, Basis::Id);

    let errors = [
        (
            "events",
            "`events` is no identity; hint: write event, id, or a template such as {createdAt}:{event}",
        ),
        ("{rom.sid}", "unknown field `rom.sid`; hint: did you mean `room.sid`?"),
        (
            "{event",
            "a brace is open or closed without its counterpart; hint: write fields as {event}",
        ),
        (
            "{event}}",
            "a brace is open or closed without its counterpart; hint: write fields as {event}",
        ),
        (
            "{a{event}",
            "a brace is open or closed without its counterpart; hint: write fields as {event}",
        ),
    ];
    for (text, message) in errors {
        assert_eq!(text.parse::<Identity>().unwrap_err().to_string(), message);
    }
    let unknown = "{x}".parse::<Identity>().unwrap_err().to_string();
    assert!(
        unknown
            .starts_with("unknown field `x`; hint: the fields are event, id, createdAt, room.sid,")
    );
    assert!(
        "{event}".repeat(80).parse::<Identity>().unwrap_err().to_string().contains("512 bytes")
    );
}
