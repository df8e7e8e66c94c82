//! [`Address`]: where a broker listens, and by which transport.
//!
//! Owns the text form. It must never resolve a name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

const PORT_DEFAULT: u16 = 9092;

/// How bytes reach a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Quic,
    Tls,
    Tcp,
}

impl Transport {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Quic => "quic://",
            Self::Tls => "tls://",
            Self::Tcp => "",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        })
    }
}

/// A broker's address: `host:port` is TCP, `tls://host:port` and `quic://host:port` are what they say.
/// IPv6 addresses stand in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub transport: Transport,
    pub host: String,
    pub port: u16,
}

/// The text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("{0:?} has no host")]
    NoHost(String),
    #[error("{0:?} has no valid port")]
    Port(String),
    #[error("{scheme:?} in {text:?} is not a transport; use quic://, tls:// or tcp://")]
    Scheme { scheme: String, text: String },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (transport, rest) = match text.split_once("://") {
            None => (Transport::Tcp, text),
            Some(("tcp", rest)) => (Transport::Tcp, rest),
            Some(("tls", rest)) => (Transport::Tls, rest),
            Some(("quic", rest)) => (Transport::Quic, rest),
            Some((scheme, _)) => {
                return Err(AddressError::Scheme {
                    scheme: scheme.to_owned(),
                    text: text.to_owned(),
                });
            }
        };
        let (host, port) = split_port(rest).ok_or_else(|| AddressError::Port(text.to_owned()))?;
        if host.is_empty() {
            return Err(AddressError::NoHost(text.to_owned()));
        }
        Ok(Self {
            transport,
            host: host.to_owned(),
            port,
        })
    }
}

/// Host and port of `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address.
fn split_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => after.is_empty().then_some((host, PORT_DEFAULT)),
        };
    }
    match text.split_once(':') {
        None => Some((text, PORT_DEFAULT)),
        Some((_, rest)) if rest.contains(':') => Some((text, PORT_DEFAULT)),
        Some((host, port)) => Some((host, port.parse().ok()?)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            transport,
            host,
            port,
        } = self;
        if host.contains(':') {
            write!(f, "{}[{host}]:{port}", transport.scheme())
        } else {
            write!(f, "{}{host}:{port}", transport.scheme())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_addresses() {
        let check = |text: &str, transport, host: &str, port, shown: &str| {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                address,
                Address {
                    transport,
                    host: host.into(),
                    port
                }
            );
            assert_eq!(address.to_string(), shown);
        };
        check("core", Transport::Tcp, "core", 9092, "core:9092");
        check("tcp://core:1", Transport::Tcp, "core", 1, "core:1");
        check("tls://core:2", Transport::Tls, "core", 2, "tls://core:2");
        check(
            "quic://10.0.0.1:3",
            Transport::Quic,
            "10.0.0.1",
            3,
            "quic://10.0.0.1:3",
        );
        check("quic://[::1]:4", Transport::Quic, "::1", 4, "quic://[::1]:4");
        check("[fe80::1]", Transport::Tcp, "fe80::1", 9092, "[fe80::1]:9092");
        check("::1", Transport::Tcp, "::1", 9092, "[::1]:9092");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "http://a:1",
            "a:b",
            "a:70000",
            ":9092",
            "quic://",
            "[::1",
            "[::1]9",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
