//! Configurations: a file and variables, read and checked as at a start, but for the files that they name. Every error
//! says what and where; what is shown is TOML again; a secret of the environment is in neither.
//!
//! The input is the file, then a zero byte, then lines `NAME=value`.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use oncehook::config::fuzzing::check;
use oncehook::config::load::check_fragment;

const FILE: &str = "fuzz.toml";
/// The variable that holds a secret; a shorter one could stand in a message by chance.
const SECRET: &str = "LIVEKIT_API_SECRET";
const SECRET_BYTES_MIN: usize = 12;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(input) = std::str::from_utf8(data) else { return Corpus::Reject };
    let (text, lines) = input.split_once('\0').unwrap_or((input, ""));
    let variables = || {
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let said = match check(FILE, text, variables().collect()) {
        Ok(shown) => {
            if let Err(problems) = check_fragment("shown", &shown) {
                let syntax = problems.iter().find(|problem| problem.message().contains("not TOML"));
                assert!(syntax.is_none(), "{problems}\nin\n{shown}");
            }
            shown
        }
        Err(problems) => {
            for problem in problems.iter() {
                assert!(!problem.message().is_empty(), "nothing is said");
                check_place(&problem.place(), text);
            }
            assert!(problems.iter().count() > 0, "no reason is given");
            problems.to_string()
        }
    };
    let secrets = variables().filter(|(name, _)| name == SECRET);
    for (_, secret) in secrets.filter(|(_, secret)| secret.len() >= SECRET_BYTES_MIN) {
        let elsewhere = text.contains(&secret) || lines.matches(&secret).count() > 1;
        // The file's name and messages may contain any short word, so only what is random enough is looked for.
        assert!(elsewhere || !random(&secret) || !said.contains(&secret), "the secret is told");
    }
    Corpus::Keep
});

/// A place in the file is one that it has.
fn check_place(place: &str, text: &str) {
    assert!(!place.is_empty(), "no place is named");
    let Some(rest) = place.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(':')) else {
        return;
    };
    let (line, column) = rest.split_once(':').expect("line and column");
    let (line, column): (usize, usize) =
        (line.parse().expect("a line"), column.parse().expect("a column"));
    assert!(line >= 1 && column >= 1, "{place}");
    let lines = text.split('\n').collect::<Vec<_>>();
    let within = lines.get(line - 1).unwrap_or_else(|| panic!("{place}: there is no such line"));
    assert!(column <= within.chars().count() + 1, "{place}: the line is shorter");
}

fn random(secret: &str) -> bool {
    secret.bytes().all(|byte| byte.is_ascii_graphic()) && secret.bytes().any(|b| b.is_ascii_digit())
}
