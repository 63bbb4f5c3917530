//! Where requests go and where they come in, as types that hold nothing else.
//!
//! Connecting is left to `upstream`, matching a request's path to `app` and `gateway`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;

use super::problem::Fault;

/// The URL of a backend: http or https, a host, perhaps a port and a path; no user, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend(Uri);

/// Which `Host` a backend is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// The one in its URL.
    Backend,
    /// The one that the sender sent.
    Keep,
    /// This one.
    Fixed(String),
}

/// The path of a route: absolute, normal, without a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutePath(String);

impl Backend {
    /// The URL.
    pub const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether to speak TLS.
    pub fn is_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Host name or address, an IPv6 one without brackets.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, or the scheme's.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// The path that replaces a route's, if the URL has one.
    pub fn path(&self) -> Option<&str> {
        Some(self.0.path()).filter(|path| !matches!(*path, "" | "/"))
    }

    /// Whether connecting to it means connecting to a listener on `address`.
    pub(super) fn is(&self, address: SocketAddr) -> bool {
        let host = match self.host() {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            other => other.parse().ok(),
        };
        let Some(host) = host else { return false };
        let same_host = host == address.ip()
            || host.is_unspecified()
            || (address.ip().is_unspecified() && host.is_loopback())
            || (host.is_loopback() && address.ip().is_loopback() && self.host() == "localhost");
        self.port() == address.port() && same_host
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Backend {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let expected = |what: &str| {
            // What comes before an `@` may be a password.
            let found =
                if text.contains('@') { String::new() } else { format!(", found {text:?}") };
            Fault::new(format!("expected the URL of a backend{found}: {what}"))
                .hint("write it as \"http://127.0.0.1:8080/webhook\"")
        };
        if !text.contains("://") {
            return Err(expected("it has no scheme"));
        }
        let uri: Uri = text.parse().map_err(|_| expected("that is no URL"))?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(expected("the scheme must be http or https"));
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty())
        else {
            return Err(expected("it has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(expected("it must not name a user"));
        }
        // http takes any digits for a port, and then says that there is none.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(expected("the port must be 1 to 65535"));
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(expected("it must have neither query nor fragment"));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend => "backend",
            Self::Keep => "keep",
            Self::Fixed(host) => host,
        })
    }
}

impl FromStr for HostPolicy {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "backend" => Ok(Self::Backend),
            "keep" => Ok(Self::Keep),
            host => match host.parse::<http::uri::Authority>() {
                Ok(authority) if !authority.as_str().contains('@') => {
                    Ok(Self::Fixed(host.to_owned()))
                }
                Ok(_) | Err(_) => Err(Fault::new(format!(
                    "expected \"backend\", \"keep\" or the host name to send, found {host:?}"
                ))),
            },
        }
    }
}

impl RoutePath {
    /// The path, beginning with a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoutePath {
    type Err = Fault;

    /// Refuses whatever two parties could read as two paths: the gateway matches routes byte for byte.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let expected = |what: &str| {
            Err(Fault::new(format!("expected the path of a route, found {text:?}: {what}")))
        };
        if !text.starts_with('/') {
            return expected("it must begin with \"/\"");
        }
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
        if let Some(odd) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(plain)) {
            return expected(&format!("it must not contain {odd:?}"));
        }
        let mut segments = text.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            if matches!(segment, "." | "..") || (segment.is_empty() && segments.peek().is_some()) {
                return expected("it must not contain \"//\", \".\" or \"..\"");
            }
        }
        Ok(Self(text.to_owned()))
    }
}
