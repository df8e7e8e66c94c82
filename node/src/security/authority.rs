//! The cluster's own certificate authority: signs the certificates of its nodes and of the sites it enrols.
//!
//! It owns the authority's key while the process runs. It must never sign what a request asks for beyond its public
//! key: names, uses and validity are ours.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;

use super::identity::{Fingerprint, Identity, IdentityError, NODE_URI, SITE_URI, certificates};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const AUTHORITY_DAYS: i64 = 30 * 365;
const NODE_DAYS: i64 = 5 * 365;
const SITE_DAYS: i64 = 10 * 365;
/// Certificates begin here rather than now: a gateway without a battery clock starts in the past, and must still be
/// able to reach its core. Midnight of 1 January 2020, UTC.
const NOT_BEFORE_MS: i64 = 1_577_836_800_000;
/// A site's request is a few hundred bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the certificate request is too large: {size} bytes, at most {REQUEST_BYTES_MAX}")]
    RequestTooLarge { size: usize },
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
    #[error("the name cannot stand in a certificate: {0}")]
    Name(String),
    #[error("the authority's certificate or key cannot be used: {0}")]
    Key(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The signing half of the cluster's trust.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with a fresh P-256 key.
    pub fn create(cluster: &str, now_ms: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(key_error)?;
        let mut params = params(&format!("Headwater cluster {cluster}"), now_ms, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(key_error)?;
        Self::assemble(certificate.der().clone(), certificate.pem(), key)
    }

    /// Takes up an authority made earlier.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(key_error)?;
        let certificate = certificates(certificate_pem)?.swap_remove(0);
        Self::assemble(certificate, certificate_pem.to_owned(), key)
    }

    fn assemble(
        certificate: CertificateDer<'static>,
        certificate_pem: String,
        key: KeyPair,
    ) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(key_error)?;
        Ok(Self {
            certificate,
            certificate_pem,
            issuer,
        })
    }

    /// What clients are given to trust this cluster.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What an enrolment token carries, so that a site can trust the first answer it gets.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a node's certificate, good for serving under `hosts` (names or addresses) and for dialing.
    pub fn issue_node(
        &self,
        node: i32,
        hosts: &[String],
        now_ms: i64,
    ) -> Result<NodeCertificate, AuthorityError> {
        let mut params = params(&format!("node {node}"), now_ms, NODE_DAYS);
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params
            .subject_alt_names
            .push(uri_name(format!("{NODE_URI}{node}"))?);
        let key = KeyPair::generate().map_err(key_error)?;
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = self.sign(params, &usages, &key)?;
        let identity = Identity::from_parts(vec![leaf, self.certificate.clone()], key.serialize_der());
        Ok(NodeCertificate {
            identity,
            key_pem: key.serialize_pem(),
        })
    }

    /// Issues a site's certificate for the public key of its request; answers the chain, leaf first, in PEM.
    pub fn issue_site(
        &self,
        request_pem: &str,
        site: &str,
        now_ms: i64,
    ) -> Result<SiteCertificate, AuthorityError> {
        if request_pem.len() > REQUEST_BYTES_MAX {
            return Err(AuthorityError::RequestTooLarge {
                size: request_pem.len(),
            });
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|e| AuthorityError::Request(e.to_string()))?;
        let mut params = params(&format!("site {site}"), now_ms, SITE_DAYS);
        params
            .subject_alt_names
            .push(uri_name(format!("{SITE_URI}{site}"))?);
        // A site dials and nothing else: whoever trusts this authority must not take it for the core.
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = self.sign(params, &usages, &request.public_key)?;
        let fingerprint = Fingerprint::of(&leaf);
        let chain_pem = format!("{}{}", pem_text(&leaf), self.certificate_pem);
        Ok(SiteCertificate {
            chain_pem,
            fingerprint,
        })
    }

    /// What identifies the key that a request was made with: a request made anew has another signature, not another
    /// key.
    pub fn request_key(request_pem: &str) -> Result<Fingerprint, AuthorityError> {
        if request_pem.len() > REQUEST_BYTES_MAX {
            return Err(AuthorityError::RequestTooLarge {
                size: request_pem.len(),
            });
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|e| AuthorityError::Request(e.to_string()))?;
        Ok(Fingerprint::of_key(request.public_key.der_bytes()))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        usages: &[ExtendedKeyUsagePurpose],
        public_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let signed = params.signed_by(public_key, &self.issuer).map_err(key_error)?;
        Ok(signed.der().clone())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// A node's new certificate, and its key as it is stored.
pub struct NodeCertificate {
    pub identity: Identity,
    pub key_pem: String,
}

/// What a newly enrolled site is given.
#[derive(Clone, Debug)]
pub struct SiteCertificate {
    pub chain_pem: String,
    pub fingerprint: Fingerprint,
}

/// What a site makes before it enrols: a key that never leaves it, and the request that its core signs.
pub struct SiteRequest {
    pub key_pem: String,
    pub request_pem: String,
}

impl SiteRequest {
    pub fn create(site: &str) -> Result<Self, AuthorityError> {
        Self::with_key(site, &KeyPair::generate().map_err(key_error)?)
    }

    /// The same again with a key made earlier.
    pub fn from_key(site: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        Self::with_key(site, &KeyPair::from_pem(key_pem).map_err(key_error)?)
    }

    fn with_key(site: &str, key: &KeyPair) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("site {site}"));
        let request = params.serialize_request(key).map_err(key_error)?;
        let request_pem = request
            .pem()
            .map_err(|e| AuthorityError::Request(e.to_string()))?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            request_pem,
        })
    }
}

impl std::fmt::Debug for SiteRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiteRequest")
            .field("request_pem", &self.request_pem)
            .finish_non_exhaustive()
    }
}

fn params(name: &str, now_ms: i64, days: i64) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.not_before = epoch + after_epoch(NOT_BEFORE_MS.min(now_ms));
    params.not_after = epoch + after_epoch(NOT_BEFORE_MS.max(now_ms).saturating_add(days * DAY_MS));
    params
}

fn after_epoch(ms: i64) -> Duration {
    Duration::from_secs(u64::try_from(ms / 1000).unwrap_or(0))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn host_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse() {
        return Ok(SanType::IpAddress(address));
    }
    host.try_into()
        .map(SanType::DnsName)
        .map_err(|_| AuthorityError::Name(host.to_owned()))
}

fn uri_name(uri: String) -> Result<SanType, AuthorityError> {
    uri.as_str()
        .try_into()
        .map(SanType::URI)
        .map_err(|_| AuthorityError::Name(uri))
}

fn key_error(e: rcgen::Error) -> AuthorityError {
    AuthorityError::Key(e.to_string())
}

/// One certificate as PEM.
pub(super) fn pem_text(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate.as_ref());
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
