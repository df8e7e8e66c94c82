//! TLS for clients over TCP: what the node shows them, and what it asks of them.

use super::properties::{Kind, PropertyError};
use super::server::{BrokerConfig, ServerProperty, node};
use std::path::PathBuf;

/// The properties of TLS. QUIC has its own certificates, the cluster's.
pub(super) const PROPERTIES: &[ServerProperty] = &[
    node(
        "tcp.tls.enable",
        Kind::Bool,
        "false",
        "Whether listen.tcp speaks TLS, too, and nothing else.",
    ),
    node(
        "tls.certificate.file",
        Kind::Text,
        "",
        "The certificate shown to clients over TLS, with its chain (PEM); empty: the node's own.",
    ),
    node(
        "tls.key.file",
        Kind::Text,
        "",
        "The private key that belongs to it (PEM: PKCS#8, PKCS#1 or SEC1).",
    ),
    node(
        "ssl.client.auth",
        Kind::OneOf(&["none", "requested", "required"]),
        "requested",
        "Whether clients over TLS are asked for a certificate, and whether they must have one.",
    ),
    node(
        "tls.client.ca.file",
        Kind::Text,
        "",
        "The authorities whose client certificates are accepted over TLS (PEM); empty: the cluster's own.",
    ),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Whether the listener for TCP speaks it, too.
    pub tcp: bool,
    /// What is shown to clients; None: the node's own.
    pub certificate: Option<CertificateFiles>,
    pub client_auth: ClientAuth,
    /// None: the cluster's own authority.
    pub client_ca_file: Option<PathBuf>,
}

/// A certificate and its key, as an operator lays them down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Whether clients over TLS have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    Requested,
    Required,
}

impl Tls {
    /// The settings in `broker`.
    pub(super) fn of(broker: &BrokerConfig) -> Result<Self, PropertyError> {
        let file = |name: &str| {
            let path = broker.value(name);
            (!path.is_empty()).then(|| PathBuf::from(path))
        };
        let certificate = match (file("tls.certificate.file"), file("tls.key.file")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (Some(path), None) => return Err(lonely("tls.certificate.file", &path, "tls.key.file")),
            (None, Some(path)) => return Err(lonely("tls.key.file", &path, "tls.certificate.file")),
        };
        Ok(Self {
            tcp: broker.value("tcp.tls.enable") == "true",
            certificate,
            client_auth: match broker.value("ssl.client.auth").as_str() {
                "none" => ClientAuth::None,
                "required" => ClientAuth::Required,
                _ => ClientAuth::Requested,
            },
            client_ca_file: file("tls.client.ca.file"),
        })
    }
}

fn lonely(key: &str, path: &std::path::Path, missing: &str) -> PropertyError {
    PropertyError::Invalid {
        key: key.to_owned(),
        value: path.display().to_string(),
        reason: format!("a certificate and its key belong together, and {missing} is not set"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(set: &[(&str, &str)]) -> Result<Tls, String> {
        let values = set
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let broker = BrokerConfig::new(values.collect::<BTreeMap<_, _>>());
        Tls::of(&broker).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_has_a_key_and_clients_are_asked_as_told() {
        let plain = read(&[]).expect("valid");
        assert_eq!(
            (plain.tcp, plain.certificate, plain.client_auth),
            (false, None, ClientAuth::Requested)
        );
        let files = [("tls.certificate.file", "c.pem"), ("tls.key.file", "k.pem")];
        let set = read(&files).expect("valid").certificate.expect("both are set");
        assert_eq!(
            (set.certificate, set.key),
            (PathBuf::from("c.pem"), PathBuf::from("k.pem"))
        );
        for (one, missing) in [
            (&files[..1], "tls.key.file is not set"),
            (&files[1..], "tls.certificate.file is not set"),
        ] {
            let refused = read(one).expect_err("half of it");
            assert!(refused.ends_with(missing), "{refused}");
        }
        for (text, asked) in [("none", ClientAuth::None), ("required", ClientAuth::Required)] {
            assert_eq!(
                read(&[("ssl.client.auth", text)]).map(|tls| tls.client_auth),
                Ok(asked)
            );
        }
    }
}
