//! `host:port`, as servers are named that are not given as a URL.

use std::fmt;
use std::str::FromStr;

use super::problem::Fault;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address, an IPv6 one without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = |found: &str| {
            Fault::new(format!("expected a host and a port, found {found}"))
                .hint("write it as \"redis-1.internal:6379\" or \"[::1]:6379\"")
        };
        // It may be a URL with a password.
        if text.contains(['/', '@']) {
            return Err(fault("something else"));
        }
        let wrong = || fault(&format!("{text:?}"));
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_wrong = host.is_empty()
            || host.chars().any(|c| c.is_whitespace() || c.is_control() || "[]".contains(c))
            || host.contains(':') != bare.is_some();
        if is_wrong {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["a:1", "redis-1.internal:26379", "10.0.0.1:6379", "[::1]:6379"] {
            assert_eq!(text.parse::<HostPort>().map(|at| at.to_string()), Ok(text.to_owned()));
        }
        for wrong in [
            "",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "::1",
            "::1:6379",
            "[a:1",
            "[a]:1",
            "redis://a:1",
            "u@a:1",
            "a b:1",
        ] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
    }
}
