//! What went wrong, in the words of [`StoreError`].
//!
//! Redis says it with the first word of an error. Up to 6.2 an error inside a script may come as
//! `ERR Error running script …: @user_script:3: -READONLY …` or `@user_script: 3: -OOM …`: there the word is looked for
//! in the whole text.

use std::error::Error;
use std::io;

use redis::{ErrorKind, RedisError};
use secrecy::ExposeSecret as _;

use super::link::Credentials;
use crate::store::StoreError;

type Class = fn(String) -> StoreError;

/// The words, and what they mean. Those about a setting first: a text that names two is about that.
const WORDS: [(&str, Class); 21] = [
    ("NOAUTH", StoreError::Credentials),
    ("WRONGPASS", StoreError::Credentials),
    ("NOPERM", StoreError::Permission),
    ("DENIED", StoreError::Permission),
    ("WRONGTYPE", StoreError::Foreign),
    ("BADRECORD", StoreError::Foreign),
    ("MOVED", StoreError::Unsupported),
    ("ASK", StoreError::Unsupported),
    ("CROSSSLOT", StoreError::Unsupported),
    ("LOADING", StoreError::Unavailable),
    ("READONLY", StoreError::Unavailable),
    ("BUSY", StoreError::Unavailable),
    ("TRYAGAIN", StoreError::Unavailable),
    ("MASTERDOWN", StoreError::Unavailable),
    ("CLUSTERDOWN", StoreError::Unavailable),
    ("OOM", StoreError::Unavailable),
    ("MISCONF", StoreError::Unavailable),
    ("NOREPLICAS", StoreError::Unavailable),
    ("UNKILLABLE", StoreError::Unavailable),
    ("UNBLOCKED", StoreError::Unavailable),
    ("NOGOODSLAVE", StoreError::Unavailable),
];

/// Errors that have no word of their own.
const PHRASES: [(&str, Class); 9] = [
    ("without any password configured", StoreError::Credentials),
    ("invalid password", StoreError::Credentials),
    ("can't run this command", StoreError::Permission),
    ("can't access at least one of the keys", StoreError::Permission),
    ("unknown command", StoreError::Unsupported),
    ("Unknown Redis command", StoreError::Unsupported),
    ("cluster support disabled", StoreError::Unsupported),
    ("DB index is out of range", StoreError::Options),
    ("max number of clients", StoreError::Unavailable),
];

/// The error for what the client library reports.
pub(super) fn error(error: &RedisError) -> StoreError {
    match said(error) {
        Some(text) => server_error(text),
        None => other_error(error),
    }
}

/// The same for a reply to AUTH: whatever answers there may repeat what it was sent, and shall not get it into the log.
pub(super) fn log_in_error(error: &RedisError, credentials: &Credentials) -> StoreError {
    match said(error) {
        Some(text) => {
            server_error(text.replace(credentials.password.expose_secret(), "<redacted>"))
        }
        None => other_error(error),
    }
}

/// What the server says, without the arguments of a command that it does not know: a password may be among them.
fn said(error: &RedisError) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        return None;
    }
    let detail = error.detail().unwrap_or_default();
    let before =
        detail.split_once(", with args beginning with").map_or(detail, |(before, _)| before);
    Some(format!("{} {before}", error.code().unwrap_or_default()))
}

fn other_error(error: &RedisError) -> StoreError {
    let kind = error.kind();
    // A connection that ends within a reply is a broken one, not one to something else than Redis.
    let is_cut = || error.to_string().contains("Unexpected end of input");
    if (kind == ErrorKind::Parse && !is_cut()) || kind == ErrorKind::UnexpectedReturnType {
        return StoreError::Unexpected(error.to_string());
    }
    StoreError::Unreachable(Box::new(error.clone()))
}

/// The error for what the server says.
fn server_error(text: String) -> StoreError {
    let code = text.split_whitespace().next().unwrap_or_default();
    let is_known = |word: &str| WORDS.iter().any(|(known, _)| *known == word);
    let searched = if is_known(code) { code } else { &text };
    let mut words = searched.split(|c: char| !c.is_ascii_uppercase());
    let by_word = words.find_map(|word| WORDS.iter().find(|(known, _)| *known == word));
    let class = by_word.or_else(|| PHRASES.iter().find(|(phrase, _)| text.contains(phrase)));
    match class {
        Some((_, class)) => class(text),
        None => StoreError::Unexpected(text),
    }
}

/// The error for what happened while connecting.
pub(super) fn connect_error(error: io::Error) -> StoreError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => StoreError::Untrusted(Box::new(error)),
        Some(_) | None => StoreError::Unreachable(Box::new(error)),
    }
}

/// An error and what caused it, in one line.
pub(super) fn with_sources(error: &StoreError) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis 7 says in the first word, and what 6.2 says about a command inside a script.
    #[test]
    fn passing_states_and_wrong_settings_are_told_apart() {
        let passing = [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_a): @user_script:9: -READONLY You can't write against a read only replica.",
            "@user_script: 9: -OOM command not allowed when used memory > 'maxmemory'.",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN Hash slot not served",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR max number of clients reached",
        ];
        for text in passing {
            let error = server_error(text.to_owned());
            assert!(
                matches!(error, StoreError::Unavailable(_)) && !error.is_misconfigured(),
                "{text}: {error:?}"
            );
        }
        let settings = [
            ("NOAUTH Authentication required.", "credentials"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "credentials"),
            (
                "ERR AUTH <password> called without any password configured for the default user.",
                "credentials",
            ),
            ("NOPERM this user has no permissions to run the 'evalsha' command", "permission"),
            (
                "ERR The user executing the script can't run this command or subcommand script: a",
                "permission",
            ),
            (
                "@user_script: 9: The user executing the script can't run this command or subcommand",
                "permission",
            ),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "foreign"),
            ("BADRECORD the key holds what this version of oncehook did not write", "foreign"),
            ("ERR unknown command `EVALSHA`, with args beginning with: ", "unsupported"),
            ("MOVED 3999 127.0.0.1:6381", "unsupported"),
        ];
        for (text, label) in settings {
            let error = server_error(text.to_owned());
            assert!(error.label() == label && error.is_misconfigured(), "{text}: {error:?}");
        }
        assert_eq!(server_error("ERR Protocol error: too big".to_owned()).label(), "unexpected");
    }
}
