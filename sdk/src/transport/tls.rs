//! The TLS settings: whom a client trusts and how it shows who it is.
//!
//! Owns the verifiers. It must never accept a certificate for a reason that the configuration does not name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::{Config, ConfigError, Identity, Trust};

const FINGERPRINT_BYTES: usize = 32;

/// The settings for TLS and QUIC, or `None` when nobody is trusted.
pub(super) fn client_config(config: &Config) -> Result<Option<ClientConfig>, ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let accept = |pin| -> Arc<dyn ServerCertVerifier> {
        Arc::new(Accept {
            pin,
            algorithms: provider.signature_verification_algorithms,
        })
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|cause| ConfigError::Tls(cause.to_string()))?;
    let builder = match &config.trust {
        Trust::Unspecified => return Ok(None),
        Trust::Ca(pem) => builder.with_root_certificates(roots(pem)?),
        Trust::Fingerprint(text) => builder
            .dangerous()
            .with_custom_certificate_verifier(accept(Some(fingerprint(text)?))),
        Trust::SkipVerification => builder.dangerous().with_custom_certificate_verifier(accept(None)),
    };
    let tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity_parts(identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|cause| ConfigError::Tls(cause.to_string()))?
        }
    };
    Ok(Some(tls))
}

fn roots(pem: &str) -> Result<RootCertStore, ConfigError> {
    let bad = |reason: String| ConfigError::Pem {
        what: "Trust::Ca",
        reason,
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|cause| bad(cause.to_string()))?;
        store.add(certificate).map_err(|cause| bad(cause.to_string()))?;
    }
    if store.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    Ok(store)
}

type Chain = Vec<CertificateDer<'static>>;

fn identity_parts(identity: &Identity) -> Result<(Chain, PrivateKeyDer<'static>), ConfigError> {
    let bad = |what, cause: rustls_pki_types::pem::Error| ConfigError::Pem {
        what,
        reason: cause.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<Chain, _>>()
        .map_err(|cause| bad("Identity::certificate_pem", cause))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|cause| bad("Identity::key_pem", cause))?;
    Ok((chain, key))
}

/// Reads 64 hexadecimal digits, colons or spaces between them allowed.
fn fingerprint(text: &str) -> Result<[u8; FINGERPRINT_BYTES], ConfigError> {
    let mut bytes = [0u8; FINGERPRINT_BYTES];
    let mut digits = 0;
    for character in text.chars().filter(|c| !matches!(c, ':' | ' ')) {
        let digit = character.to_digit(16).ok_or(ConfigError::Fingerprint)? as u8;
        let byte = bytes.get_mut(digits / 2).ok_or(ConfigError::Fingerprint)?;
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    if digits == 2 * FINGERPRINT_BYTES {
        Ok(bytes)
    } else {
        Err(ConfigError::Fingerprint)
    }
}

/// Accepts the pinned certificate, or any when none is pinned.
///
/// - The handshake's signature is always checked: the other side holds the certificate's key.
#[derive(Debug)]
struct Accept {
    pin: Option<[u8; FINGERPRINT_BYTES]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Accept {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(pin) = &self.pin {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, end_entity);
            if digest.as_ref() != pin {
                return Err(rustls::CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fingerprints() {
        let plain = "00ff".repeat(16);
        assert_eq!(fingerprint(&plain).unwrap()[..2], [0, 0xff]);
        let colons = "AB:".repeat(32);
        assert_eq!(fingerprint(&colons).unwrap(), [0xab; 32]);
        for bad in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(fingerprint(bad), Err(ConfigError::Fingerprint), "{bad}");
        }
    }

    #[test]
    fn a_ca_must_hold_a_certificate() {
        let config = Config::new("quic://x")
            .unwrap()
            .with_trust(Trust::Ca("nothing".into()));
        assert!(matches!(client_config(&config), Err(ConfigError::Pem { .. })));
    }
}
