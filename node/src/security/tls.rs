//! The TLS settings of every socket, for servers and for dialers. One provider, aws-lc-rs; AES-256-GCM first, which is
//! the fastest suite where the processor has AES.
//!
//! It owns what is trusted and why. It must never accept a client certificate that this cluster's authority did not
//! sign, and never accept a server that the dialer's `Trust` does not cover.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, ServerConfig, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::{CertificateFacts, Fingerprint, Identity};

/// The ALPN name of the Kafka protocol over QUIC.
pub const ALPN_KAFKA: &[u8] = b"kafka";
/// The ALPN name of site enrolment: a client without a certificate, and nothing but an enrolment on the stream.
pub const ALPN_ENROL: &[u8] = b"headwater-enrol";
/// The ALPN name of one node's connection to another of its cluster.
pub const ALPN_PEER: &[u8] = b"headwater-peer";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the TLS settings are refused: {0}")]
    Settings(#[from] rustls::Error),
    #[error("client certificates cannot be checked: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Which certificates of this authority are no longer welcome. Asked after each handshake, resumed ones too.
pub trait Revocations: Send + Sync {
    fn is_revoked(&self, certificate: &CertificateFacts) -> bool;
}

/// Nothing was ever revoked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingRevoked;

impl Revocations for NothingRevoked {
    fn is_revoked(&self, _: &CertificateFacts) -> bool {
        false
    }
}

/// What a server shows and whom it asks for certificates.
#[derive(Clone)]
pub struct ServerTls {
    pub identity: Identity,
    pub clients: Clients,
    pub revocations: Arc<dyn Revocations>,
}

/// Whether clients are asked for certificates, and whose are believed.
#[derive(Clone, Debug)]
pub struct Clients {
    pub demand: Demand,
    pub authorities: Vec<CertificateDer<'static>>,
    pub names: Names,
}

impl Clients {
    /// Nobody is asked who he is.
    pub const ANYBODY: Self = Self {
        demand: Demand::None,
        authorities: Vec::new(),
        names: Names::Strangers,
    };

    /// A certificate is optional, and must be signed by this cluster's authority.
    pub fn of_cluster(authority: &CertificateDer<'static>) -> Self {
        Self {
            demand: Demand::Requested,
            authorities: vec![authority.clone()],
            names: Names::Own,
        }
    }
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    None,
    /// It may come without one. One that it shows must be good.
    Requested,
    Required,
}

/// Who vouches for clients' certificates, and so which names in them count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The cluster's own authority: its certificates say which site or node somebody is.
    Own,
    /// Authorities of the operator's. Whatever they sign, it makes nobody a site or a node.
    Strangers,
}

impl ServerTls {
    /// For TLS over TCP: 1.2 and 1.3, no ALPN, as Kafka clients expect.
    pub fn for_tcp(&self) -> Result<ServerConfig, TlsError> {
        self.config(rustls::ALL_VERSIONS)
    }

    /// For QUIC. `early_data` lets a returning client send requests before the handshake is over.
    pub fn for_quic(&self, early_data: EarlyData) -> Result<ServerConfig, TlsError> {
        let mut config = self.config(&[&rustls::version::TLS13])?;
        config.alpn_protocols = vec![ALPN_KAFKA.to_vec(), ALPN_ENROL.to_vec(), ALPN_PEER.to_vec()];
        config.max_early_data_size = match early_data {
            EarlyData::Refuse => 0,
            EarlyData::Accept => u32::MAX,
        };
        Ok(config)
    }

    fn config(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let verifier = || -> Result<_, TlsError> {
            let roots = Arc::new(roots(&self.clients.authorities)?);
            Ok(WebPkiClientVerifier::builder_with_provider(roots, provider))
        };
        let builder = match self.clients.demand {
            Demand::None => builder.with_no_client_auth(),
            Demand::Requested => {
                builder.with_client_cert_verifier(verifier()?.allow_unauthenticated().build()?)
            }
            Demand::Required => builder.with_client_cert_verifier(verifier()?.build()?),
        };
        let mut config =
            builder.with_single_cert(self.identity.chain.clone(), self.identity.key.clone_key())?;
        config.ignore_client_order = true;
        Ok(config)
    }
}

/// Whether requests may arrive before the handshake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EarlyData {
    #[default]
    Refuse,
    Accept,
}

/// Why a dialer believes the server that answers.
#[derive(Clone, Debug)]
pub enum Trust {
    /// It shows a certificate of one of these authorities, for the name dialed.
    Authorities(Vec<CertificateDer<'static>>),
    /// It shows a certificate with this fingerprint, or one signed by an authority with this fingerprint that it
    /// sends along. The name is not checked: the fingerprint says more.
    Fingerprint(Fingerprint),
    /// It shows any certificate whose key it has: who it is must be proved over the connection.
    AnyCertificate,
}

/// A dialer's TLS 1.3 settings for QUIC and for TLS over TCP.
pub fn client_config(
    trust: &Trust,
    identity: Option<&Identity>,
    alpn: &[u8],
    early_data: EarlyData,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match trust {
        Trust::Authorities(authorities) => builder.with_root_certificates(roots(authorities)?),
        Trust::Fingerprint(fingerprint) => pinned(builder, Some(*fingerprint), provider),
        Trust::AnyCertificate => pinned(builder, None, provider),
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_early_data = early_data == EarlyData::Accept;
    Ok(config)
}

fn pinned(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    fingerprint: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier {
            fingerprint,
            provider,
        }))
}

/// aws-lc-rs with AES-256-GCM in front.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let preferred = rustls::CipherSuite::TLS13_AES_256_GCM_SHA384;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != preferred);
    provider
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// Believes one fingerprint: the leaf's own, or that of the authority which signed it. Without one, any certificate.
#[derive(Debug)]
struct PinnedVerifier {
    fingerprint: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(fingerprint) = self.fingerprint else {
            return Ok(ServerCertVerified::assertion());
        };
        if Fingerprint::of(end_entity) == fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == fingerprint)
            .ok_or(rustls::Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        // The name is not what is pinned, so only the signature and the dates are checked.
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            &[],
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
