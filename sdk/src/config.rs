//! How a client finds its cluster, whom it trusts, and what it may use.
//!
//! Owns the settings shared by producer, consumer and admin, their defaults and their checks. It must never
//! do I/O: certificates come as PEM text, not as paths.

mod address;

use std::time::Duration;

use thiserror::Error;

pub use self::address::{Address, AddressError, Transport};
use crate::retry::Backoff;

/// Settings of a [`crate::Client`].
///
/// ```
/// use headwater_sdk::{Config, Trust};
///
/// let mut config = Config::new("quic://core.example:9092, core.example:9092")?;
/// // The fingerprint that the node prints when it starts.
/// config.trust = Trust::Fingerprint("3b:0f:".repeat(16));
/// config.client_id = "billing".to_owned();
/// # Ok::<(), headwater_sdk::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to ask first. QUIC addresses are preferred; TCP and TLS addresses take over when UDP does not
    /// get through.
    pub bootstrap: Vec<Address>,
    /// The name that brokers log and meter this client by.
    pub client_id: String,
    /// Whose certificates to accept over QUIC and TLS. Has no default: a client says whom it trusts.
    pub trust: Trust,
    /// The client's own certificate, for brokers that ask for one.
    pub identity: Option<Identity>,
    /// The name to find in the broker's certificate, when it differs from the host that is dialed.
    pub server_name: Option<String>,
    /// How long reaching one broker may take, handshakes included.
    pub connect_timeout: Duration,
    /// How long a broker may take to answer. When it passes, the connection is given up: answers come in
    /// order, so those behind it would be late as well.
    pub request_timeout: Duration,
    /// What QUIC is given before TCP is tried beside it.
    pub quic_head_start: Duration,
    /// For how long the transport that won is dialed first.
    pub remember_transport: Duration,
    /// Settings of the QUIC transport.
    pub quic: QuicConfig,
    /// Limits of every connection.
    pub limits: Limits,
    /// Metadata older than this is fetched again; errors that show it stale do so at once.
    pub metadata_max_age: Duration,
    /// Pauses between attempts at anything that may be tried again.
    pub backoff: Backoff,
    /// Whether producing to a topic that does not exist asks the broker to create it.
    pub auto_create_topics: bool,
}

impl Config {
    /// Default settings for a comma-separated list of addresses: `host:port` (TCP), `tls://host:port`,
    /// `quic://host:port`. A port that is not given is 9092.
    pub fn new(bootstrap: &str) -> Result<Self, ConfigError> {
        let addresses = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<Vec<Address>, _>>()?;
        if addresses.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        Ok(Self {
            bootstrap: addresses,
            client_id: "headwater".to_owned(),
            trust: Trust::Unspecified,
            identity: None,
            server_name: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            quic_head_start: Duration::from_millis(250),
            remember_transport: Duration::from_secs(600),
            quic: QuicConfig::default(),
            limits: Limits::default(),
            metadata_max_age: Duration::from_secs(300),
            backoff: Backoff::default(),
            auto_create_topics: false,
        })
    }

    /// The same settings with `trust`.
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Whether the settings can work at all.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let encrypted = self
            .bootstrap
            .iter()
            .find(|address| address.transport != Transport::Tcp);
        if let (Some(address), Trust::Unspecified) = (encrypted, &self.trust) {
            return Err(ConfigError::NoTrust {
                address: address.clone(),
            });
        }
        if self.bootstrap.is_empty() {
            return Err(ConfigError::NoAddress);
        }
        let limits = &self.limits;
        if limits.in_flight_bytes == 0 || limits.response_bytes_max < MIN_RESPONSE_BYTES {
            return Err(ConfigError::TooSmall {
                what: "limits",
                min: MIN_RESPONSE_BYTES,
            });
        }
        if self.quic.produce_streams == 0 {
            return Err(ConfigError::TooSmall {
                what: "quic.produce_streams",
                min: 1,
            });
        }
        Ok(())
    }
}

const MIN_RESPONSE_BYTES: usize = 64 * 1024;

/// Whose certificates a client accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody's yet: enough for plain TCP, an error for QUIC and TLS.
    #[default]
    Unspecified,
    /// Those issued by one of these authorities (PEM), for the host that was dialed.
    Ca(String),
    /// The one certificate with this SHA-256 fingerprint (64 hexadecimal digits; colons are allowed).
    Fingerprint(String),
    /// Anyone's. The connection is encrypted, and whoever sits in its middle can read it: for tests only.
    SkipVerification,
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and those that vouch for it, PEM, leaf first.
    pub certificate_pem: String,
    /// Its private key, PEM (PKCS #8, SEC1 or PKCS #1).
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// Which congestion control QUIC uses when sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Fair to others and right for networks that lose little.
    #[default]
    Cubic,
    /// Keeps its pace through random loss (radio links), and may lose more of its own packets.
    Bbr,
}

/// Settings of the QUIC transport.
#[derive(Clone, Debug)]
pub struct QuicConfig {
    /// Streams per broker that produce is spread over; a partition stays on one of them.
    pub produce_streams: u8,
    pub congestion: Congestion,
    /// Receive window of the whole connection, in bytes: at least twice bandwidth times round trip.
    pub connection_window_bytes: u32,
    /// Receive window of one stream; below half of the connection's, so that none starves the others.
    pub stream_window_bytes: u32,
    /// Socket buffers asked of the kernel.
    pub socket_buffer_bytes: usize,
    /// How often an idle connection says that it lives.
    pub keep_alive: Duration,
    /// A connection that heard nothing for so long is gone. Over UDP nobody says that a process has died: what was sent to
    /// a killed broker waits for so long before it is sent to another one.
    pub idle_timeout: Duration,
    /// Whether a resumed connection may send metadata requests and fetches before its handshake is done.
    /// Such requests can be replayed by an attacker, which for these does no harm.
    pub early_data: bool,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            produce_streams: 8,
            congestion: Congestion::Cubic,
            connection_window_bytes: 16 << 20,
            stream_window_bytes: 6 << 20,
            socket_buffer_bytes: 8 << 20,
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(3),
            early_data: false,
        }
    }
}

/// Limits of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request bytes that may wait for their answers; further requests wait for room.
    pub in_flight_bytes: usize,
    /// The largest answer that is accepted; a larger one ends the connection before memory is taken.
    pub response_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_bytes: 32 << 20,
            response_bytes_max: 128 << 20,
        }
    }
}

/// Settings that cannot work. The caller's fault; no retry helps.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("no bootstrap address; give at least one, such as quic://localhost:9092")]
    NoAddress,
    #[error(
        "{address} is encrypted, but whom to trust is not said; set Config::trust to a Ca, a Fingerprint or SkipVerification"
    )]
    NoTrust { address: Address },
    #[error("{what} is too small, {min} is the least that works")]
    TooSmall { what: &'static str, min: usize },
    #[error("{what} is too large, {max} is the most that works")]
    TooLarge { what: &'static str, max: usize },
    /// Settings that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
    #[error("{what} is not usable PEM: {reason}")]
    Pem { what: &'static str, reason: String },
    #[error("a fingerprint is 64 hexadecimal digits of SHA-256")]
    Fingerprint,
    #[error("the certificate and key do not work with TLS: {0}")]
    Tls(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_address_needs_somebody_to_trust() {
        let config = Config::new("localhost:9092,quic://localhost").unwrap();
        let address = Address {
            transport: Transport::Quic,
            host: "localhost".into(),
            port: 9092,
        };
        assert_eq!(config.check(), Err(ConfigError::NoTrust { address }));
        assert_eq!(config.with_trust(Trust::SkipVerification).check(), Ok(()));
        assert_eq!(Config::new("localhost:1").unwrap().check(), Ok(()));
    }

    #[test]
    fn an_empty_list_is_refused() {
        assert_eq!(Config::new(" , ").unwrap_err(), ConfigError::NoAddress);
    }
}
