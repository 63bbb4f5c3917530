//! How each kind of value is written in the file, in a variable and in a flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::claim::exchange::OnAmbiguous;
use crate::webhook::key::Identity;
use crate::webhook::keys::Tenant;
use crate::webhook::template::TemplateError;

use super::backend::{Backend, HostPolicy, RoutePath};
use super::host_port::HostPort;
use super::problem::{Fault, closest};
use super::{ClientMode, LogFormat, LogLevel, Mode, TlsVersion, units};

/// A value of the configuration.
pub(super) trait Value: Sized + Clone {
    /// How TOML writes it.
    const SHAPE: Shape;
    /// What to call it when something else is found.
    const EXPECTED: &'static str;

    /// Reads it.
    fn parse(text: &str) -> Result<Self, Fault>;

    /// Writes it so that [`Value::parse`] reads the same.
    fn text(&self) -> String;

    /// As TOML.
    fn toml(&self) -> String {
        match Self::SHAPE {
            Shape::Text => quoted(&self.text()),
            Shape::Integer | Shape::Boolean => self.text(),
        }
    }
}

/// How TOML writes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Integer,
    Boolean,
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) usize);

/// Which store, before its own section is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    Disk,
    Redis,
}

/// `store.on_store_error`, before its time is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnError {
    Local,
    Reject,
    RejectThenLocal,
}

/// A name to check a certificate against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerName(pub(super) String);

/// `relay.backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    NotFound,
    Backend(Backend),
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for String {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "a string";

    fn parse(text: &str) -> Result<Self, Fault> {
        Ok(text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "the path of a file";

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            Err(Fault::new("expected the path of a file, found \"\""))
        } else {
            Ok(text.into())
        }
    }

    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Duration {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"8s\" or \"1h\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        units::duration(text)
    }

    fn text(&self) -> String {
        units::duration_text(*self)
    }
}

impl Value for Bytes {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "a size such as \"16KiB\" or \"2MiB\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        units::size(text).map(Self)
    }

    fn text(&self) -> String {
        units::size_text(self.0)
    }
}

impl Value for bool {
    const SHAPE: Shape = Shape::Boolean;
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, Fault> {
        // Only true and false reach this from a file; variables are written in other ways too.
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(Fault::new(format!("expected true or false, found {text:?}"))),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// What std or another crate reads and writes.
macro_rules! plain {
    ($($type:ty, $shape:ident, $expected:literal;)+) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::$shape;
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, Fault> {
                Self::from_str(text).map_err(|_| Fault::new(format!(concat!("expected ", $expected, ", found {:?}"), text)))
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

plain! {
    usize, Integer, "a whole number";
    u32, Integer, "a whole number";
    u16, Integer, "a whole number";
    SocketAddr, Text, "an address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\"";
    IpNet, Text, "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
}

/// What explains its own faults.
macro_rules! explained {
    ($($type:ty, $expected:literal;)+) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::Text;
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, Fault> {
                text.parse()
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

explained! {
    Backend, "the URL of a backend such as \"http://127.0.0.1:8080/webhook\"";
    HostPolicy, "\"backend\", \"keep\" or a host name";
    HostPort, "a host and a port such as \"redis-1.internal:6379\"";
    RoutePath, "the path of a route such as \"/webhook\"";
}

/// One of a few words.
macro_rules! choice {
    ($($type:ident { $($word:literal => $variant:ident),+ } $expected:literal;)+) => {$(
        impl Value for $type {
            const SHAPE: Shape = Shape::Text;
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, Fault> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(unknown_word(text, $expected, &[$($word),+])),
                }
            }

            fn text(&self) -> String {
                match self {
                    $(Self::$variant => $word.to_owned(),)+
                }
            }
        }
    )+};
}

choice! {
    Kind { "memory" => Memory, "disk" => Disk, "redis" => Redis } "\"memory\", \"disk\" or \"redis\"";
    OnError { "local" => Local, "reject" => Reject, "reject-then-local" => RejectThenLocal }
        "\"local\", \"reject\" or \"reject-then-local\"";
    OnAmbiguous { "retry" => Retry, "suppress" => Suppress } "\"retry\" or \"suppress\"";
    TlsVersion { "1.2" => Tls12, "1.3" => Tls13 } "\"1.2\" or \"1.3\"";
    ClientMode { "require" => Require, "optional" => Optional } "\"require\" or \"optional\"";
    LogFormat { "json" => Json, "text" => Text } "\"json\" or \"text\"";
    LogLevel { "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace }
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
}

fn unknown_word(text: &str, expected: &str, words: &[&str]) -> Fault {
    let fault = Fault::new(format!("expected {expected}, found {text:?}"));
    match closest(text, words.iter().copied()) {
        Some(word) => fault.hint(format!("did you mean \"{word}\"?")),
        None => fault,
    }
}

impl Value for Mode {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "\"sync\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "sync" => Ok(Self::Sync),
            "queue" => Err(Fault::new("queue mode is not in this version")
                .hint("\"sync\" is: the sender waits")),
            _ => Err(Fault::new(format!("expected \"sync\", found {text:?}"))),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Sync => "sync".to_owned(),
        }
    }
}

impl Value for Target {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "\"not_found\" or the URL of a backend";

    fn parse(text: &str) -> Result<Self, Fault> {
        if text == "not_found" { Ok(Self::NotFound) } else { text.parse().map(Self::Backend) }
    }

    fn text(&self) -> String {
        match self {
            Self::NotFound => "not_found".to_owned(),
            Self::Backend(backend) => backend.to_string(),
        }
    }
}

impl Value for Identity {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str =
        "\"event\", \"id\" or a template such as \"{createdAt}:{event}\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|error: TemplateError| {
            let message = error.to_string();
            match message.split_once("; hint: ") {
                Some((message, hint)) => Fault::new(message).hint(hint),
                None => Fault::new(message),
            }
        })
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for Tenant {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "the name of a tenant";

    fn parse(text: &str) -> Result<Self, Fault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self::from(text))
        } else {
            Err(Fault::new(format!(
                "expected a name of 1 to 64 letters, digits, \"_\", \".\" and \"-\", found {text:?}"
            )))
        }
    }

    fn text(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Value for ServerName {
    const SHAPE: Shape = Shape::Text;
    const EXPECTED: &'static str = "a host name or an address";

    fn parse(text: &str) -> Result<Self, Fault> {
        match rustls::pki_types::ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => {
                Err(Fault::new(format!("expected a host name or an address, found {text:?}")))
            }
        }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}
