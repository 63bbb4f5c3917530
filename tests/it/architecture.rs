//! The arrows between the rooms, held by the compiler's own tokens: comments and strings do not count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// Room, and the rooms it may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("text", &[]),
    ("claim", &["clock"]),
    ("webhook", &["claim", "clock"]),
    ("config", &["claim", "webhook"]),
    ("worker", &[]),
    ("store", &["claim", "clock", "text", "worker"]),
    ("upstream", &["claim", "clock", "text", "webhook", "worker"]),
    ("telemetry", &["claim", "clock", "text", "webhook"]),
    ("dispatch", &["claim", "clock", "store", "telemetry", "upstream", "webhook"]),
    ("gateway", &["claim", "clock", "dispatch", "telemetry", "text", "webhook"]),
    ("relay", &["telemetry", "upstream"]),
    ("listener", &["telemetry", "worker"]),
    ("admin", &["store", "telemetry"]),
    (
        "app",
        &[
            "admin",
            "claim",
            "clock",
            "config",
            "dispatch",
            "gateway",
            "listener",
            "relay",
            "store",
            "telemetry",
            "upstream",
            "webhook",
            "worker",
        ],
    ),
    ("cli", &["app", "clock", "config", "webhook", "worker"]),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// Rooms without I/O, and the crates that would bring it in.
const PURE: &[&str] = &["claim", "webhook"];
const IMPURE_CRATES: &[&str] =
    &["tokio", "tokio_util", "hyper", "hyper_util", "redis", "tracing", "axum", "socket2"];

const LINES_MAX: usize = 400;

/// What one file refers to: rooms of this crate, and first segments of all paths.
#[derive(Default)]
struct Mentions {
    rooms: Vec<String>,
    crates: Vec<String>,
    calls: Vec<String>,
}

/// Reads `tokens` of a module at `depth` below the crate root.
fn scan(tokens: TokenStream, depth: usize, into: &mut Mentions) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let ident = |at: usize| match trees.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    let colons = |at: usize| {
        [at, at + 1]
            .into_iter()
            .all(|i| matches!(trees.get(i), Some(TokenTree::Punct(p)) if p.as_char() == ':'))
    };
    for at in 0..trees.len() {
        let follows_path = at >= 2 && colons(at - 2);
        match &trees[at] {
            TokenTree::Group(group) => {
                let inline_module = at >= 2 && ident(at - 2).as_deref() == Some("mod");
                scan(group.stream(), depth + usize::from(inline_module), into);
            }
            TokenTree::Ident(word) if colons(at + 1) && !follows_path => {
                let (mut above, mut next) = (if word == "crate" { depth } else { 0 }, at + 3);
                if word == "super" {
                    above = 1;
                    while ident(next).as_deref() == Some("super") && colons(next + 1) {
                        (above, next) = (above + 1, next + 3);
                    }
                }
                if word == "crate" || word == "oncehook" || (word == "super" && above == depth) {
                    into.rooms.extend(first_segments(trees.get(next)));
                } else {
                    into.crates.push(word.to_string());
                }
            }
            TokenTree::Ident(word) if word == "now" && follows_path => {
                into.calls.extend(ident(at.saturating_sub(3)).map(|on| format!("{on}::now")));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// The first segments of what follows `crate::`: a name, or a group of paths.
fn first_segments(tree: Option<&TokenTree>) -> Vec<String> {
    let Some(TokenTree::Group(group)) = tree else {
        return tree.map(ToString::to_string).into_iter().collect();
    };
    let mut names = Vec::new();
    let mut fresh = true;
    for tree in group.stream() {
        match tree {
            TokenTree::Ident(name) if fresh => names.push(name.to_string()),
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                fresh = true;
                continue;
            }
            _ => {}
        }
        fresh = false;
    }
    names
}

fn room_of(file: &Path) -> (String, usize) {
    let parts: Vec<_> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let depth =
        parts.len() - usize::from(parts.last().is_some_and(|last| last == "mod" || last == "lib"));
    (parts[0].clone(), depth)
}

/// Every breach in `source`, in words.
fn breaches(file: &Path, source: &str) -> Vec<String> {
    let (room, depth) = room_of(file);
    let tokens: TokenStream = source.parse().expect("the file is Rust");
    let mut mentions = Mentions::default();
    scan(tokens, depth, &mut mentions);
    let table: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let name = file.display();
    let Some(allowed) = table.get(room.as_str()) else {
        return vec![format!("{name}: the room {room} has no row in the table of arrows")];
    };
    let mut found = Vec::new();
    for other in
        mentions.rooms.iter().filter(|other| table.contains_key(other.as_str()) && **other != room)
    {
        if !allowed.contains(&other.as_str()) {
            found.push(format!("{name}: {room} must not import {other}"));
        }
    }
    if PURE.contains(&room.as_str()) {
        let impure = mentions.crates.iter().filter(|name| IMPURE_CRATES.contains(&name.as_str()));
        found
            .extend(impure.map(|outer| format!("{name}: {room} is pure and must not use {outer}")));
    }
    if room != "clock" {
        let reads = mentions
            .calls
            .iter()
            .filter(|call| *call == "Instant::now" || *call == "SystemTime::now");
        found.extend(reads.map(|call| format!("{name}: {call} belongs to clock.rs")));
    }
    if !source.starts_with("//!") {
        found.push(format!("{name}: opens without saying what it answers (//!)"));
    }
    let lines = source.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{name}: {lines} lines, {LINES_MAX} at most"));
    }
    found
}

pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).expect("src can be read") {
            let path = item.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let source = fs::read_to_string(&path).expect("a source is UTF-8");
                files.push((path.strip_prefix(&root).expect("below src").to_path_buf(), source));
            }
        }
    }
    files
}

#[test]
fn rooms_import_only_what_the_design_allows() {
    let files = sources();
    assert!(files.len() > 20, "only {} files found", files.len());
    let found: Vec<_> = files.iter().flat_map(|(file, source)| breaches(file, source)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_room_of_the_table_exists() {
    let files = sources();
    for (room, _) in ARROWS {
        assert!(
            files.iter().any(|(file, _)| room_of(file).0 == *room),
            "no file belongs to {room}"
        );
    }
}

#[test]
fn planted_breaches_are_found() {
    let planted = [
        ("gateway/mod.rs", "use crate::store::Store;", "gateway must not import store"),
        (
            "gateway/answer.rs",
            "use crate::{claim, upstream::Upstream};",
            "gateway must not import upstream",
        ),
        ("gateway/answer.rs", "fn f() { crate::store::g() }", "gateway must not import store"),
        ("gateway/answer.rs", "use super::super::store;", "gateway must not import store"),
        ("gateway/mod.rs", "use super::store;", "gateway must not import store"),
        (
            "gateway/mod.rs",
            "mod tests { use super::super::store; }",
            "gateway must not import store",
        ),
        (
            "claim/record.rs",
            "async fn f() { tokio::time::sleep(x).await }",
            "claim is pure and must not use tokio",
        ),
        ("webhook/key.rs", "use tracing::info;", "webhook is pure and must not use tracing"),
        (
            "store/redis.rs",
            "fn f() { std::time::Instant::now(); }",
            "Instant::now belongs to clock.rs",
        ),
        ("attic/mod.rs", "", "the room attic has no row"),
    ];
    for (file, code, expected) in planted {
        let found = breaches(Path::new(file), &format!("//! Planted.\n{code}"));
        assert!(
            found.iter().any(|breach| breach.contains(expected)),
            "{file}: {code:?} gave {found:?}"
        );
    }
}

#[test]
fn what_the_design_allows_is_no_breach() {
    let innocent =
        "//! x\nuse crate::{claim::Key, clock};\n/// See crate::store::Store.\nuse super::answer;";
    assert_eq!(breaches(Path::new("gateway/service.rs"), innocent), Vec::<String>::new());
}
