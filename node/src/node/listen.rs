//! The node's doors: certificates, sockets, and who stands behind them.
//!
//! Owns the bound listeners until something serves them. Addresses are bound before the node is registered, since
//! others are told what was really bound.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{Bound, certificates};
use crate::config::NodeConfig;
use crate::link::{Links, StreamServer};
use crate::metadata::{SiteState, View};
use crate::peer::{CallError, Peers};
use crate::replication::{Connecting, Ends, Leaders};
use crate::security::store::{self, Keys, SecurityStore, StoreError, Subject};
use crate::security::tls::{Clients, Revocations, ServerTls};
use crate::security::{Authority, CertificateFacts};
use crate::server::{Server, SessionSink};
use crate::sys::Sys;
use crate::sys::disk::Disk;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::net;
use crate::sys::task::{Kind, Tasks};
use crate::transport::tcp::ListenError as SocketError;
use crate::transport::{Listener, ListenerKind, Peer, Session, Stream, memory, quic};
use headwater_protocol::ids::NodeId;

/// Keys lie here, below the data directory.
const FOLDER: &str = "security";

/// Why the node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{key}={address:?} cannot be used: {source}")]
    Address {
        key: &'static str,
        address: String,
        source: io::Error,
    },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot listen for HTTP on {address}: {source}")]
    Http { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Keys(#[from] StoreError),
}

/// Everything that was bound and not yet served.
pub(super) struct Sockets {
    pub(super) tcp: Option<Listener>,
    pub(super) tls: Option<Listener>,
    pub(super) quic: Option<Listener>,
    pub(super) http: Option<net::Listener>,
    pub(super) bound: Bound,
    pub(super) authority: Arc<Authority>,
    pub(super) store: SecurityStore,
}

/// Opens the keys and binds every listener that the configuration names.
pub(super) async fn bind(
    config: &NodeConfig,
    sys: &Sys,
    view: &View,
    cluster_id: &str,
) -> Result<Sockets, ListenError> {
    let (listen, net) = (&config.listen, &sys.net);
    let (keys, store) = open_keys(config, sys, cluster_id).await?;
    let tls = ServerTls {
        identity: keys.node,
        clients: Clients::of_cluster(keys.authority.certificate()),
        revocations: Arc::new(RevokedSites(view.clone())),
    };
    let mut sockets = Sockets {
        tcp: None,
        tls: None,
        quic: None,
        http: None,
        bound: Bound::default(),
        authority: Arc::new(keys.authority),
        store,
    };
    let clients_tls = client_tls(config, sys, &tls).await?;
    if let Some(address) = resolve(net, "listen.tcp", listen.tcp.as_deref()).await? {
        let listener = Listener::tcp(net, address, config.tls.tcp.then_some(&clients_tls))?;
        sockets.bound.tcp = listener.local_address().ok();
        sockets.tcp = Some(listener);
    }
    if let Some(address) = resolve(net, "listen.tls", listen.tls.as_deref()).await? {
        let listener = Listener::tls(net, address, &clients_tls)?;
        sockets.bound.tls = listener.local_address().ok();
        sockets.tls = Some(listener);
    }
    let listeners = [&sockets.tcp, &sockets.tls].into_iter().flatten();
    let switches = listeners.filter_map(Listener::tls_switch).collect();
    certificates::watch(sys, config.tls.clone(), tls.clone(), &clients_tls, switches);
    if let Some(address) = resolve(net, "listen.quic", listen.quic.as_deref()).await? {
        let listener = Listener::quic(net, address, &tls, &quic::Settings::default())?;
        sockets.bound.quic = listener.local_address().ok();
        sockets.quic = Some(listener);
    }
    if let Some(address) = resolve(net, "listen.http", listen.http.as_deref()).await? {
        let listener = net
            .listen_tcp(address)
            .map_err(|source| ListenError::Http { address, source })?;
        sockets.bound.http = listener.local_addr().ok();
        sockets.http = Some(listener);
    }
    Ok(sockets)
}

async fn resolve(
    net: &net::Net,
    key: &'static str,
    address: Option<&str>,
) -> Result<Option<SocketAddr>, ListenError> {
    let Some(address) = address else { return Ok(None) };
    let refused = |source| ListenError::Address {
        key,
        address: address.to_owned(),
        source,
    };
    let found = net.resolve(address).await.map_err(refused)?;
    Ok(found.first().copied())
}

async fn open_keys(
    config: &NodeConfig,
    sys: &Sys,
    cluster_id: &str,
) -> Result<(Keys, SecurityStore), ListenError> {
    let folder = PathBuf::from(FOLDER);
    let disk = Arc::clone(&sys.disk);
    let store = SecurityStore::new(Arc::clone(&disk), sys.tasks.clone(), folder.clone());
    let (cluster, node, hosts) = (cluster_id.to_owned(), config.node_id.0, hosts(config));
    let now_ms = sys.clock.unix_ms();
    // Nobody looks at a certificate on a simulated net; keys come from the machine, so their bytes must not reach a
    // disk whose history follows from a seed.
    let disk: Arc<dyn Disk> = match sys.net.host() {
        Some(_) => Arc::new(MemoryDisk::new(sys.random.fork())),
        None => disk,
    };
    let opening = sys.tasks.blocking("open keys", move || {
        let subject = Subject {
            cluster: &cluster,
            node,
            hosts: &hosts,
        };
        store::open(&*disk, &folder, &subject, now_ms)
    });
    let keys = opening.await.map_err(|_| StoreError::Stopped)??;
    Ok((keys, store))
}

/// The hosts by which others reach this node, as far as the configuration tells.
fn hosts(config: &NodeConfig) -> Vec<String> {
    let addresses = [
        &config.advertise.tcp,
        &config.advertise.tls,
        &config.advertise.quic,
        &config.listen.tcp,
        &config.listen.tls,
        &config.listen.quic,
    ];
    let host = |address: &String| {
        let (host, _) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let anywhere = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified());
        (!host.is_empty() && !anywhere).then(|| host.to_owned())
    };
    let mut hosts: Vec<_> = addresses.into_iter().flatten().filter_map(host).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// What clients are shown over TCP.
async fn client_tls(config: &NodeConfig, sys: &Sys, own: &ServerTls) -> Result<ServerTls, ListenError> {
    let settings = config.tls.clone();
    if !settings.tcp && config.listen.tls.is_none() {
        return Ok(own.clone());
    }
    let (disk, own) = (Arc::clone(&sys.disk), own.clone());
    let read = sys.tasks.blocking("read certificates", move || {
        certificates::read(&*disk, &settings, &own)
    });
    Ok(read.await.map_err(|_| StoreError::Stopped)??)
}

/// Sites whose certificates are refused.
struct RevokedSites(View);

impl Revocations for RevokedSites {
    fn is_revoked(&self, certificate: &CertificateFacts) -> bool {
        let Some(site) = certificate.site() else {
            return false;
        };
        self.0
            .image()
            .sites
            .get(site)
            .is_some_and(|site| site.state == SiteState::Revoked)
    }
}

/// Hands sites that dial to the links, once there are links.
pub(super) struct Sites {
    links: OnceLock<Links>,
    peers: Peers,
    tasks: Tasks,
}

impl Sites {
    pub(super) fn new(tasks: &Tasks, peers: Peers) -> Arc<Self> {
        Arc::new(Self {
            links: OnceLock::new(),
            peers,
            tasks: tasks.child("sites"),
        })
    }

    /// From now on sites are served by `links`.
    pub(super) fn open(&self, links: Links) {
        // Set once, at start.
        let _ = self.links.set(links);
    }
}

impl SessionSink for Sites {
    fn site(&self, _site: &str, session: Session) {
        if let Some(links) = self.links.get().cloned() {
            self.tasks.spawn("site", Kind::BestEffort, async move {
                links.accept_site(session).await
            });
        }
    }

    fn peer(&self, session: Session) {
        let peers = self.peers.clone();
        self.tasks.spawn(
            "peer",
            Kind::BestEffort,
            async move { peers.accept(session).await },
        );
    }

    fn enrol(&self, session: Session) {
        if let Some(links) = self.links.get().cloned() {
            self.tasks.spawn("enrol", Kind::BestEffort, async move {
                links.accept_enrolment(session).await
            });
        }
    }
}

/// Serves Kafka requests that another node of the cluster sends.
pub(super) struct PeerStreams(pub(super) Server);

impl crate::peer::Streams for PeerStreams {
    fn serve(&self, from: NodeId, stream: Stream, session: &Session) {
        let peer = Peer {
            node: Some(from),
            ..session.peer().clone()
        };
        self.0.serve_stream(stream, peer);
    }
}

/// Streams to any node on which it serves Kafka requests: to this one inside the process.
pub(super) struct AnyNode {
    me: NodeId,
    here: memory::Connector,
    peers: Peers,
}

impl AnyNode {
    pub(super) fn new(me: NodeId, server: &Server, peers: Peers) -> Self {
        let (here, listener) = memory::listener(ListenerKind::Quic);
        server.listen(Listener::Memory(listener));
        Self { me, here, peers }
    }
}

impl Leaders for AnyNode {
    fn connect(&self, node: NodeId) -> Connecting {
        if node != self.me {
            return self.peers.connect(node);
        }
        let here = self.here.clone();
        Box::pin(async move {
            let stream = here.stream().await.map_err(|error| CallError::Unreachable {
                node,
                reason: error.to_string(),
            })?;
            Ok(Ends {
                reader: Box::new(stream.reader),
                writer: Box::new(stream.writer),
            })
        })
    }
}

/// Serves what the other end of a link opens by the ordinary handlers.
pub(super) struct LinkStreams(pub(super) Server);

impl StreamServer for LinkStreams {
    fn serve(&self, stream: Stream, peer: Peer) {
        self.0.serve_stream(stream, peer);
    }
}
