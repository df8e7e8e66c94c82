//! Malformed frames on QUIC streams, and noise on the UDP port: a stream ends at most, and other streams go on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_tests::{PATIENCE, Random, Site, within};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls;
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use quinn::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use quinn::rustls::{DigitallySignedStruct, SignatureScheme};

use crate::malformed::{api_versions, malformed};

const STREAMS: u64 = 2_000;
const DATAGRAMS: u64 = 2_000;

/// Takes whatever certificate the node shows: this story is not about trust.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn endpoint() -> anyhow::Result<quinn::Endpoint> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"kafka".to_vec()];
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        tls,
    )?)));
    Ok(endpoint)
}

async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr) -> anyhow::Result<quinn::Connection> {
    within(
        PATIENCE,
        "a QUIC connection",
        endpoint.connect(address, "localhost")?,
    )
    .await?
    .context("refused")
}

/// Asks on a long-lived stream, which must be answered whatever happens on others.
async fn ask(stream: &mut (quinn::SendStream, quinn::RecvStream), number: u32) -> anyhow::Result<()> {
    stream.0.write_all(&api_versions(number)).await?;
    let answer = within(PATIENCE, "the witness's answer", async {
        let mut length = [0; 4];
        stream.1.read_exact(&mut length).await?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.1.read_exact(&mut body).await?;
        anyhow::Ok(body)
    });
    ensure!(
        answer.await??[..4] == number.to_be_bytes(),
        "an answer to another question"
    );
    Ok(())
}

#[tokio::test]
async fn malformed_streams_and_datagrams_disturb_nobody() -> anyhow::Result<()> {
    let mut random = Random::new();
    let site = Site::new()?;
    let mut node = site.start().await?;
    let address = node.addresses.quic;
    let endpoint = endpoint()?;
    let good = connect(&endpoint, address).await?;
    let mut witness = good.open_bi().await?;
    let noise = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut bad = connect(&endpoint, address).await?;
    for number in 0..STREAMS {
        if bad.close_reason().is_some() {
            bad = connect(&endpoint, address).await?;
        }
        let (mut send, mut receive) = within(PATIENCE, "a stream", bad.open_bi()).await??;
        // A reset stream is an answer too.
        let _ = send.write_all(&malformed(&mut random)).await;
        let _ = send.finish();
        let end = receive.read_to_end(1 << 20);
        let _ = within(Duration::from_secs(20), "an end to a malformed stream", end).await?;
        for _ in 0..DATAGRAMS / STREAMS {
            let length = random.below(1..1_400) as usize;
            noise.send_to(&random.bytes(length), address).await?;
        }
        if number % 50 == 0 {
            ask(&mut witness, number as u32)
                .await
                .with_context(|| format!("after stream {number}"))?;
        }
    }
    ask(&mut witness, u32::MAX).await?;
    ensure!(node.is_running()?, "the node ended");
    ensure!(!node.log().contains("panicked"), "the node panicked");
    Ok(())
}
