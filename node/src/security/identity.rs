//! A certificate with its key, and what a certificate says about its holder.
//!
//! Pure: parses and prints. It must never decide whether a certificate is trusted; that is `tls`'s work.

use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Where a certificate could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the PEM text holds no certificate")]
    NoCertificate,
    #[error("the PEM text cannot be read: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("a certificate cannot be parsed: {0}")]
    Certificate(String),
}

/// The SHA-256 of a certificate's DER bytes; printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }

    /// The same of a public key's bytes.
    pub fn of_key(public_key: &[u8]) -> Self {
        Self(Sha256::digest(public_key).into())
    }

    /// Reads 64 hex digits, with or without colons between the bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A certificate chain, leaf first, with the leaf's private key. Its `Debug` hides the key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain and a PKCS#8, SEC1 or PKCS#1 key, both in PEM.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        Self::with_key(certificates(chain_pem)?, key_pem)
    }

    /// A chain with its leaf's key, which is read from PEM.
    pub(super) fn with_key(
        chain: Vec<CertificateDer<'static>>,
        key_pem: &str,
    ) -> Result<Self, IdentityError> {
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        Ok(Self { chain, key })
    }

    pub(super) fn from_parts(chain: Vec<CertificateDer<'static>>, key_pkcs8: Vec<u8>) -> Self {
        Self {
            chain,
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8)),
        }
    }

    /// What the leaf says.
    pub fn facts(&self) -> Result<CertificateFacts, IdentityError> {
        CertificateFacts::read(self.chain.first().ok_or(IdentityError::NoCertificate)?)
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// Every certificate of a PEM text, at least one.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        Err(IdentityError::NoCertificate)
    } else {
        Ok(found)
    }
}

/// What one certificate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub fingerprint: Fingerprint,
    /// The subject's common name, or the whole subject when it has none.
    pub subject: String,
    /// Names and addresses it is good for: DNS names, IP addresses, URIs.
    pub san: Vec<String>,
    pub not_after_ms: i64,
}

/// The prefix of the URI that names a site in its certificate.
pub const SITE_URI: &str = "headwater://site/";
/// The prefix of the URI that names a node in its certificate.
pub const NODE_URI: &str = "headwater://node/";

impl CertificateFacts {
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate.as_ref())
            .map_err(|e| IdentityError::Certificate(e.to_string()))?;
        let subject = parsed.subject();
        let common_name = subject.iter_common_name().find_map(|name| name.as_str().ok());
        let names = parsed
            .subject_alternative_name()
            .map_err(|e| IdentityError::Certificate(e.to_string()))?
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .filter_map(name_text)
                    .collect()
            });
        Ok(Self {
            fingerprint: Fingerprint::of(certificate),
            subject: common_name.map_or_else(|| subject.to_string(), str::to_owned),
            san: names.unwrap_or_default(),
            not_after_ms: parsed.validity().not_after.timestamp().saturating_mul(1000),
        })
    }

    /// Takes back that it names a site or a node: only the cluster's own authority may say that.
    pub fn disown(&mut self) {
        self.san
            .retain(|name| !name.starts_with(SITE_URI) && !name.starts_with(NODE_URI));
    }

    /// The site this certificate was issued to.
    pub fn site(&self) -> Option<&str> {
        self.san.iter().find_map(|name| name.strip_prefix(SITE_URI))
    }

    /// The node this certificate was issued to.
    pub fn node(&self) -> Option<i32> {
        self.san
            .iter()
            .find_map(|name| name.strip_prefix(NODE_URI)?.parse().ok())
    }
}

/// A subject alternative name as people write it; `None` for kinds that nobody uses here.
fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    }
}
