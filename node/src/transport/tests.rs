//! One suite over every carrier: whatever is below, a stream behaves the same. Then what only some of them have.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dialer::Credentials;
use super::quic::Settings;
use super::*;
use crate::security::identity::Fingerprint;
use crate::security::tls::{
    ALPN_ENROL, ALPN_KAFKA, Clients, Demand, EarlyData, Names, NothingRevoked, Revocations, ServerTls, Trust,
};
use crate::security::{Authority, Identity};
use crate::sys::net::Net;

const NOW_MS: i64 = 1_790_000_000_000;

/// A cluster's authority, a node's certificate, and who trusts them.
struct Pki {
    authority: Authority,
    node: Identity,
}

impl Pki {
    fn new() -> Self {
        let authority = Authority::create("test", NOW_MS).unwrap();
        let node = authority
            .issue_node(1, &["localhost".to_owned(), "127.0.0.1".to_owned()], NOW_MS)
            .unwrap()
            .identity;
        Self { authority, node }
    }

    fn server(&self) -> ServerTls {
        ServerTls {
            identity: self.node.clone(),
            clients: Clients::of_cluster(self.authority.certificate()),
            revocations: Arc::new(NothingRevoked),
        }
    }

    fn trust(&self) -> Trust {
        Trust::Authorities(vec![self.authority.certificate().clone()])
    }

    fn anonymous(&self) -> Credentials {
        Credentials {
            trust: self.trust(),
            identity: None,
            alpn: ALPN_KAFKA,
        }
    }

    fn site(&self, name: &str) -> Credentials {
        let request = crate::security::authority::SiteRequest::create(name).unwrap();
        let issued = self
            .authority
            .issue_site(&request.request_pem, name, NOW_MS)
            .unwrap();
        let identity = Identity::from_pem(&issued.chain_pem, &request.key_pem).unwrap();
        Credentials {
            identity: Some(identity),
            ..self.anonymous()
        }
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A listener and a way to it; `stream` gives the two ends of one new stream.
struct Rig {
    listener: Listener,
    way: Way,
    pki: Pki,
}

enum Way {
    Dial {
        dialer: Box<Dialer>,
        target: String,
        tls: bool,
    },
    Session {
        client: Session,
        server: Session,
        _dialer: Option<Box<Dialer>>,
    },
    Memory(memory::Connector),
}

impl Rig {
    async fn new(carrier: Carrier) -> Self {
        let pki = Pki::new();
        match carrier {
            Carrier::Tcp | Carrier::Tls => {
                let tls = (carrier == Carrier::Tls).then(|| pki.server());
                let listener =
                    Listener::Tcp(tcp::Listener::bind(&Net::real(), loopback(), tls.as_ref()).unwrap());
                let target = listener.local_address().unwrap().to_string();
                let dialer = Box::new(Dialer::new(Net::real(), Settings::default()));
                Self {
                    listener,
                    way: Way::Dial {
                        dialer,
                        target,
                        tls: tls.is_some(),
                    },
                    pki,
                }
            }
            Carrier::Quic => {
                let mut listener = Listener::Quic(
                    quic::Listener::bind(&Net::real(), loopback(), &pki.server(), &Settings::default())
                        .unwrap(),
                );
                let target = listener.local_address().unwrap().to_string();
                let dialer = Dialer::new(Net::real(), Settings::default());
                let credentials = pki.anonymous();
                let (client, server) =
                    tokio::join!(dialer.dial(&target, &credentials), session(&mut listener));
                let way = Way::Session {
                    client: client.unwrap(),
                    server: server.unwrap(),
                    _dialer: Some(Box::new(dialer)),
                };
                Self { listener, way, pki }
            }
            Carrier::Memory => {
                let (connector, listener) = memory::listener(ListenerKind::Tcp);
                Self {
                    listener: Listener::Memory(listener),
                    way: Way::Memory(connector),
                    pki,
                }
            }
        }
    }

    /// A session in memory: the double of QUIC.
    async fn memory_session() -> Self {
        let (connector, listener) = memory::listener(ListenerKind::Quic);
        let mut listener = Listener::Memory(listener);
        let client = connector.session(None).await.unwrap();
        let server = session(&mut listener).await.unwrap();
        Self {
            listener,
            way: Way::Session {
                client,
                server,
                _dialer: None,
            },
            pki: Pki::new(),
        }
    }

    /// Client end, server end. One byte goes across, for QUIC announces a stream with its first byte.
    async fn stream(&mut self) -> (Stream, Stream) {
        let (mut near, mut far) = match &self.way {
            Way::Dial { dialer, target, tls } => {
                let credentials = tls.then(|| self.pki.anonymous());
                let (near, far) = tokio::join!(
                    dialer.dial_stream(target, credentials.as_ref()),
                    stream(&mut self.listener)
                );
                (near.unwrap(), far)
            }
            Way::Memory(connector) => {
                let near = connector.stream().await.unwrap();
                (near, stream(&mut self.listener).await)
            }
            Way::Session { client, server, .. } => {
                let mut near = client.open_stream().await.unwrap();
                near.writer.write_all(b"!").await.unwrap();
                let mut far = server.accept_stream().await.unwrap();
                assert_eq!(far.reader.read_u8().await.unwrap(), b'!');
                return (near, far);
            }
        };
        near.writer.write_all(b"!").await.unwrap();
        near.writer.flush().await.unwrap();
        assert_eq!(far.reader.read_u8().await.unwrap(), b'!');
        (near, far)
    }
}

async fn incoming(listener: &mut Listener) -> Result<Incoming, HandshakeError> {
    listener.accept().await.unwrap().unwrap().establish().await
}

async fn stream(listener: &mut Listener) -> Stream {
    match incoming(listener).await.unwrap() {
        Incoming::Stream { stream, .. } => stream,
        Incoming::Session(_) => panic!("a session where a stream was expected"),
    }
}

async fn session(listener: &mut Listener) -> Result<Session, HandshakeError> {
    match incoming(listener).await? {
        Incoming::Session(session) => Ok(session),
        Incoming::Stream { .. } => panic!("a stream where a session was expected"),
    }
}

/// Bytes that differ at every position, so that a gap or a swap shows.
fn pattern(size: usize, seed: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(size + 8);
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < size {
        word = word
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.truncate(size);
    bytes.freeze()
}

async fn read_exactly(reader: &mut ReadHalf, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    reader.read_exact(&mut bytes).await.unwrap();
    Bytes::from(bytes)
}

/// However the bytes are cut when written and when read, they are the same bytes.
async fn check_boundaries(mut rig: Rig) {
    let (mut near, mut far) = rig.stream().await;
    let all = pattern(40_000, 1);
    for pieces in [1usize, 2, 3, 64, 65, 200] {
        let mut buffers: Vec<Bytes> = all
            .chunks(all.len().div_ceil(pieces))
            .map(Bytes::copy_from_slice)
            .collect();
        buffers.insert(0, Bytes::new());
        buffers.push(Bytes::new());
        let (written, read) = tokio::join!(
            near.writer.write_buffers(&mut buffers),
            read_exactly(&mut far.reader, all.len())
        );
        written.unwrap();
        assert!(buffers.is_empty());
        assert_eq!(read, all, "in {pieces} pieces");
    }
}

/// The end of one direction leaves the other open.
async fn check_half_close(mut rig: Rig) {
    let (mut near, mut far) = rig.stream().await;
    near.writer.write_all(b"question").await.unwrap();
    near.writer.finish().await.unwrap();
    let mut question = Vec::new();
    far.reader.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    far.writer
        .write_buffers(&mut vec![Bytes::from_static(b"ans"), Bytes::from_static(b"wer")])
        .await
        .unwrap();
    far.writer.finish().await.unwrap();
    let mut answer = Vec::new();
    near.reader.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
}

/// A broken stream is not taken for one that ended.
async fn check_reset(mut rig: Rig) {
    let (mut near, far) = rig.stream().await;
    far.writer.reset(CloseCode::Malformed);
    drop(far.reader);
    let mut rest = Vec::new();
    near.reader.read_to_end(&mut rest).await.unwrap_err();
}

/// Both directions at once, more than every buffer on the way holds.
async fn check_big_both_ways(mut rig: Rig) {
    const SIZE: usize = 24 << 20;
    let (near, far) = rig.stream().await;
    let one_way = |mut writer: WriteHalf, mut reader: ReadHalf, seed| async move {
        let all = pattern(SIZE, seed);
        let sent = all.clone();
        let write = async move {
            let mut buffers: Vec<Bytes> = (0..24).map(|i| sent.slice(i << 20..(i + 1) << 20)).collect();
            writer.write_buffers(&mut buffers).await.unwrap();
            writer.finish().await.unwrap();
            writer
        };
        let mut got = Vec::with_capacity(SIZE);
        let (_writer, read) = tokio::join!(write, reader.read_to_end(&mut got));
        read.unwrap();
        assert!(got == all, "{} bytes came, or they differ", got.len());
    };
    tokio::join!(
        one_way(near.writer, far.reader, 2),
        one_way(far.writer, near.reader, 3)
    );
}

/// Many streams do not mix.
async fn check_many_streams(mut rig: Rig) {
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(rig.stream().await);
    }
    for (i, (near, _)) in streams.iter_mut().enumerate() {
        near.writer
            .write_buffers(&mut vec![pattern(1000, i as u64)])
            .await
            .unwrap();
    }
    for (i, (_, far)) in streams.iter_mut().enumerate().rev() {
        assert_eq!(read_exactly(&mut far.reader, 1000).await, pattern(1000, i as u64));
    }
}

/// A reader that does not read stops the writer within a bound.
async fn check_back_pressure(mut rig: Rig) {
    const TOTAL: u64 = 128 << 20;
    const AHEAD_MAX: u64 = 40 << 20;
    let (mut near, mut far) = rig.stream().await;
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let write = async move {
        let block = Bytes::from(vec![7; 1 << 20]);
        while count.load(Ordering::Relaxed) < TOTAL {
            near.writer.write_buffers(&mut vec![block.clone()]).await.unwrap();
            count.fetch_add(1 << 20, Ordering::Relaxed);
        }
        near.writer.finish().await.unwrap();
        near
    };
    let read = async {
        let mut block = vec![0; 1 << 20];
        let mut read = 0;
        loop {
            // The writer gets every chance to run ahead.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let ahead = written.load(Ordering::Relaxed).saturating_sub(read);
            assert!(ahead <= AHEAD_MAX, "the writer is {ahead} bytes ahead");
            match far.reader.read(&mut block).await.unwrap() {
                0 => return read,
                size => read += size as u64,
            }
        }
    };
    let (_near, read) = tokio::join!(write, read);
    assert_eq!(read, TOTAL);
}

macro_rules! suite {
    ($name:ident, $rig:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn keeps_bytes_whatever_the_boundaries() {
                check_boundaries($rig.await).await;
            }

            #[tokio::test]
            async fn half_closes() {
                check_half_close($rig.await).await;
            }

            #[tokio::test]
            async fn tells_a_reset_from_an_end() {
                check_reset($rig.await).await;
            }

            #[tokio::test]
            async fn carries_much_both_ways_at_once() {
                check_big_both_ways($rig.await).await;
            }

            #[tokio::test]
            async fn carries_many_streams() {
                check_many_streams($rig.await).await;
            }

            #[tokio::test]
            async fn stops_a_writer_whose_reader_rests() {
                check_back_pressure($rig.await).await;
            }
        }
    };
}

suite!(over_tcp, Rig::new(Carrier::Tcp));
suite!(over_tls, Rig::new(Carrier::Tls));
suite!(over_quic, Rig::new(Carrier::Quic));
suite!(over_memory, Rig::new(Carrier::Memory));
suite!(over_memory_session, Rig::memory_session());

/// A close reaches the other side with its code, and every stream fails.
async fn check_session_close(mut rig: Rig) {
    let (mut near, _far) = rig.stream().await;
    let Way::Session { client, server, .. } = &rig.way else {
        panic!("not a session")
    };
    server.close(CloseCode::Draining, "going down");
    let said = client.closed().await;
    let SessionError::ClosedThere { code, reason } = said else {
        panic!("{said}")
    };
    assert_eq!(
        (code, reason.as_str()),
        (u64::from(CloseCode::Draining.value()), "going down")
    );
    assert!(matches!(
        server.accept_stream().await,
        Err(SessionError::ClosedHere)
    ));
    assert!(matches!(
        client.open_stream().await,
        Err(SessionError::ClosedThere { .. })
    ));
    near.reader.read_u8().await.unwrap_err();
    near.writer.write_all(b"late").await.unwrap_err();
}

#[tokio::test]
async fn quic_session_close_carries_its_reason() {
    check_session_close(Rig::new(Carrier::Quic).await).await;
}

#[tokio::test]
async fn memory_session_close_carries_its_reason() {
    check_session_close(Rig::memory_session().await).await;
}

#[tokio::test]
async fn quic_counts_what_goes_over_the_wire() {
    let mut rig = Rig::new(Carrier::Quic).await;
    let (mut near, mut far) = rig.stream().await;
    let all = pattern(1 << 20, 5);
    tokio::join!(
        async { near.writer.write_buffers(&mut vec![all.clone()]).await.unwrap() },
        read_exactly(&mut far.reader, all.len())
    );
    let Way::Session { server, .. } = &rig.way else {
        panic!("not a session")
    };
    assert!(server.stats().bytes_received > 1 << 20);
}

#[tokio::test]
async fn a_quic_connection_survives_a_change_of_address() {
    let pki = Pki::new();
    let mut listener = Listener::Quic(
        quic::Listener::bind(&Net::real(), loopback(), &pki.server(), &Settings::default()).unwrap(),
    );
    let target = listener.local_address().unwrap().to_string();
    let dialer = Dialer::new(Net::real(), Settings::default());
    let credentials = pki.anonymous();
    let (client, server) = tokio::join!(dialer.dial(&target, &credentials), session(&mut listener));
    let (client, server) = (client.unwrap(), server.unwrap());
    let before = server.remote_address();

    let mut near = client.open_stream().await.unwrap();
    near.writer.write_all(b"a").await.unwrap();
    let mut far = server.accept_stream().await.unwrap();
    assert_eq!(far.reader.read_u8().await.unwrap(), b'a');
    dialer.rebind().unwrap();
    near.writer.write_all(b"b").await.unwrap();
    assert_eq!(far.reader.read_u8().await.unwrap(), b'b');
    far.writer.write_all(b"c").await.unwrap();
    assert_eq!(near.reader.read_u8().await.unwrap(), b'c');
    assert_ne!(server.remote_address(), before);
}

#[tokio::test]
async fn every_tcp_socket_sends_at_once() {
    let mut rig = Rig::new(Carrier::Tcp).await;
    let (near, far) = rig.stream().await;
    for half in [near.writer, far.writer] {
        let WriteHalf::Tcp(half) = half else {
            panic!("not TCP")
        };
        assert!(half.as_ref().nodelay().unwrap());
    }
}

/// Dials QUIC and TLS with the same credentials; answers what the server learned of the client.
async fn dial_both(
    server: &ServerTls,
    credentials: &Credentials,
) -> [Result<Option<Arc<CertificateFacts>>, String>; 2] {
    let dialer = Dialer::new(Net::real(), Settings::default());
    let mut quic =
        Listener::Quic(quic::Listener::bind(&Net::real(), loopback(), server, &Settings::default()).unwrap());
    let target = quic.local_address().unwrap().to_string();
    let (client, accepted) = tokio::join!(dialer.dial(&target, credentials), incoming(&mut quic));
    let over_quic = match (client, accepted) {
        (Ok(_), Ok(accepted)) => Ok(accepted.peer().certificate.clone()),
        (Err(failure), _) => Err(failure.to_string()),
        (_, Err(failure)) => Err(failure.to_string()),
    };
    let mut tcp = Listener::Tcp(tcp::Listener::bind(&Net::real(), loopback(), Some(server)).unwrap());
    let target = tcp.local_address().unwrap().to_string();
    let (client, accepted) = tokio::join!(dialer.dial_stream(&target, Some(credentials)), incoming(&mut tcp));
    let over_tls = match (client, accepted) {
        (Ok(_), Ok(accepted)) => Ok(accepted.peer().certificate.clone()),
        (Err(failure), _) => Err(failure.to_string()),
        (_, Err(failure)) => Err(failure.to_string()),
    };
    [over_quic, over_tls]
}

#[tokio::test]
async fn servers_know_the_site_that_dials() {
    let pki = Pki::new();
    for facts in dial_both(&pki.server(), &pki.site("shop-7")).await {
        assert_eq!(facts.unwrap().unwrap().site(), Some("shop-7"));
    }
    for facts in dial_both(&pki.server(), &pki.anonymous()).await {
        assert_eq!(facts.unwrap(), None);
    }
}

#[tokio::test]
async fn strangers_certificates_are_refused() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let stranger = Credentials {
        identity: theirs.site("shop-7").identity,
        ..ours.anonymous()
    };
    for answer in dial_both(&ours.server(), &stranger).await {
        answer.unwrap_err();
    }
    for answer in dial_both(&ours.server(), &theirs.anonymous()).await {
        answer.unwrap_err();
    }
}

#[tokio::test]
async fn revoked_certificates_are_refused() {
    struct Revoked(&'static str);
    impl Revocations for Revoked {
        fn is_revoked(&self, certificate: &CertificateFacts) -> bool {
            certificate.site() == Some(self.0)
        }
    }
    let pki = Pki::new();
    let server = ServerTls {
        revocations: Arc::new(Revoked("shop-7")),
        ..pki.server()
    };
    for answer in dial_both(&server, &pki.site("shop-7")).await {
        assert!(answer.unwrap_err().contains("revoked"));
    }
    for answer in dial_both(&server, &pki.site("shop-8")).await {
        answer.unwrap();
    }
}

/// Whether a client gets in: one without a certificate, one whose authority is believed, and a stranger.
#[tokio::test]
async fn clients_show_the_certificates_that_are_demanded() {
    let (pki, company) = (Pki::new(), Pki::new());
    let of_company = Credentials {
        identity: company.site("shop-7").identity,
        ..pki.anonymous()
    };
    for (demand, without, good, strange) in [
        (Demand::None, true, true, true),
        (Demand::Requested, true, true, false),
        (Demand::Required, false, true, false),
    ] {
        let server = ServerTls {
            clients: Clients {
                demand,
                authorities: vec![company.authority.certificate().clone()],
                names: Names::Strangers,
            },
            ..pki.server()
        };
        for (client, welcome) in [
            (pki.anonymous(), without),
            (of_company.clone(), good),
            (pki.site("shop-8"), strange),
        ] {
            let [_, over_tls] = dial_both(&server, &client).await;
            assert_eq!(over_tls.is_ok(), welcome, "{demand:?}: {over_tls:?}");
            let Ok(Some(facts)) = over_tls else { continue };
            // The company's authority speaks for people, never for a site of this cluster.
            assert_eq!((&*facts.subject, facts.site()), ("site shop-7", None));
        }
    }
}

/// TLS over TCP by a client of our own making, for what `Dialer` does not do.
async fn dial_version(
    address: SocketAddr,
    pki: &Pki,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.authority.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = Net::real().connect_tcp(address).await?;
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

#[tokio::test]
async fn the_tls_listener_speaks_both_versions_and_has_a_kind_of_its_own() {
    let pki = Pki::new();
    let mut listener = Listener::tls(&Net::real(), loopback(), &pki.server()).unwrap();
    let address = listener.local_address().unwrap();
    for (version, spoken) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        let (client, accepted) = tokio::join!(dial_version(address, &pki, version), incoming(&mut listener));
        assert_eq!(client.unwrap().get_ref().1.protocol_version(), Some(spoken));
        let peer = accepted.unwrap().peer().clone();
        assert_eq!((peer.listener, peer.transport), (ListenerKind::Tls, Carrier::Tls));
    }
}

#[tokio::test]
async fn a_fingerprint_is_trust_enough() {
    let pki = Pki::new();
    let authority = pki.authority.fingerprint();
    let node = Fingerprint::of(&pki.node.chain[0]);
    let other = Pki::new().authority.fingerprint();
    for (fingerprint, welcome) in [(authority, true), (node, true), (other, false)] {
        let credentials = Credentials {
            trust: Trust::Fingerprint(fingerprint),
            ..pki.anonymous()
        };
        for answer in dial_both(&pki.server(), &credentials).await {
            assert_eq!(answer.is_ok(), welcome, "{fingerprint}");
        }
    }
}

#[tokio::test]
async fn the_agreed_protocol_is_known_on_both_sides() {
    let pki = Pki::new();
    let mut listener = Listener::Quic(
        quic::Listener::bind(&Net::real(), loopback(), &pki.server(), &Settings::default()).unwrap(),
    );
    let target = listener.local_address().unwrap().to_string();
    let dialer = Dialer::new(Net::real(), Settings::default());
    for alpn in [ALPN_KAFKA, ALPN_ENROL] {
        let credentials = Credentials {
            alpn,
            ..pki.anonymous()
        };
        let (client, server) = tokio::join!(dialer.dial(&target, &credentials), session(&mut listener));
        assert_eq!((client.unwrap().alpn(), server.unwrap().alpn()), (alpn, alpn));
    }
    dialer.close().await;
    listener.close().await;
}

/// A client that returns sends with its first packet; the server is told that it may be a replay until the
/// handshake is over.
#[tokio::test]
async fn early_streams_are_marked_until_the_handshake_is_over() {
    let pki = Pki::new();
    let settings = Settings {
        early_data: EarlyData::Accept,
        ..Settings::default()
    };
    let mut listener =
        Listener::Quic(quic::Listener::bind(&Net::real(), loopback(), &pki.server(), &settings).unwrap());
    let address = listener.local_address().unwrap();
    let tls = crate::security::tls::client_config(&pki.trust(), None, ALPN_KAFKA, EarlyData::Accept).unwrap();
    let config = quic::client_config(tls, &settings).unwrap();
    let endpoint = quic::endpoint(&Net::real(), loopback(), quinn::EndpointConfig::default(), None).unwrap();

    // The first connection is an ordinary one; it leaves a ticket.
    let connecting = endpoint
        .connect_with(config.clone(), address, "127.0.0.1")
        .unwrap();
    let (client, server) = tokio::join!(connecting, session(&mut listener));
    let (client, server) = (client.unwrap(), server.unwrap());
    let (mut writer, mut reader) = client.open_bi().await.unwrap();
    writer.write_all(b"x").await.unwrap();
    let mut far = server.accept_stream().await.unwrap();
    assert!(
        far.reader
            .early()
            .is_none_or(|early| format!("{early:?}").contains("Some"))
    );
    far.writer.write_all(b"y").await.unwrap();
    reader.read_exact(&mut [0]).await.unwrap();
    client.close(0u32.into(), b"");

    // The second does not wait.
    let connecting = endpoint.connect_with(config, address, "127.0.0.1").unwrap();
    let Ok((client, accepted)) = connecting.into_0rtt() else {
        panic!("no ticket was kept")
    };
    let (mut writer, _reader) = client.open_bi().await.unwrap();
    writer.write_all(b"early").await.unwrap();
    let server = session(&mut listener).await.unwrap();
    let mut far = server.accept_stream().await.unwrap();
    assert_eq!(read_exactly(&mut far.reader, 5).await, "early");
    let early = far
        .reader
        .early()
        .expect("it came before the end of the handshake");
    assert!(accepted.await, "the server refused early data");
    early.wait().await;
}

/// A relay of datagrams from one dialer to a target that may be exchanged, as an address that another process took over.
struct Relay {
    address: SocketAddr,
    target: tokio::sync::watch::Sender<SocketAddr>,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let near = Net::real().datagrams(loopback()).unwrap();
        let far = Net::real().datagrams(loopback()).unwrap();
        let address = near.local_addr().unwrap();
        let (target, target_now) = tokio::sync::watch::channel(target);
        let tasks = crate::sys::task::Tasks::root("relay", crate::sys::task::Blocking::Threads);
        tasks.spawn("relay", crate::sys::task::Kind::BestEffort, async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let mut dialer = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut up) => {
                        dialer = Some(from);
                        let to = *target_now.borrow();
                        far.send_to(&up[..length], to).await.unwrap();
                    }
                    Ok((length, from)) = far.recv_from(&mut down) => {
                        // What the process before still says is lost.
                        if from == *target_now.borrow() && let Some(dialer) = dialer {
                            near.send_to(&down[..length], dialer).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { address, target }
    }
}

#[tokio::test]
async fn a_restarted_node_ends_the_connections_of_its_predecessor() {
    let pki = Pki::new();
    let bind =
        || quic::Listener::bind(&Net::real(), loopback(), &pki.server(), &Settings::default()).unwrap();
    let (mut before, after) = (Listener::Quic(bind()), Listener::Quic(bind()));
    let relay = Relay::to(before.local_address().unwrap());
    let dialer = Dialer::new(Net::real(), Settings::default());
    let (target, credentials) = (relay.address.to_string(), pki.anonymous());
    let (client, server) = tokio::join!(dialer.dial(&target, &credentials), session(&mut before));
    let (client, _server) = (client.unwrap(), server.unwrap());
    relay.target.send_replace(after.local_address().unwrap());
    let mut stream = client.open_stream().await.unwrap();
    stream.writer.write_all(b"still there?").await.unwrap();
    let ended = client.closed().await.to_string();
    assert!(ended.contains("reset"), "{ended}");
}
