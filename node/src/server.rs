//! The Kafka edge: listeners, connections, requests. Turns bytes into calls and results into bytes.
//!
//! Owns the listeners, the connections' tasks and their limits. It decides nothing about topics, partitions or the
//! cluster, and must never touch a log: handlers call `partition`, `metadata` and `controller`.

mod accept;
mod client_metrics;
mod connection;
mod dispatch;
mod errors;
mod frames;
mod handlers;
mod meters;
mod request;
mod sessions;
pub mod share_groups;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_protocol::ids::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{BrokerConfig, NodeConfig};
use crate::controller::{Controller, ProducerIds};
use crate::group::Groups;
use crate::metadata::{Image, View};
use crate::partition::Registry;
use crate::peer::Peers;
use crate::share::Shares;
use crate::sys::Sys;
use crate::sys::budget::Budget;
use crate::sys::buffers::Buffers;
use crate::sys::pace::Pace;
use crate::sys::task::Tasks;
use crate::telemetry::Metrics;
use crate::transaction::Transactions;
use crate::transport::{Listener, Peer, Session, Stream};

pub use accept::SessionSink;

/// What all fetches together may hold in answers that are not written yet.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Memory for large requests that is kept when nobody needs it.
const UNUSED_BYTES_MAX: usize = 4 << 20;

/// What the handlers call. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub config: Arc<NodeConfig>,
    pub sys: Sys,
    pub metrics: Metrics,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub groups: Groups,
    pub transactions: Transactions,
    pub shares: Shares,
    pub peers: Peers,
}

impl Services {
    pub(crate) fn node_id(&self) -> NodeId {
        self.config.node_id
    }

    /// The properties in force, with what `image` says for all nodes.
    pub(crate) fn broker(&self, image: &Image) -> BrokerConfig {
        self.config.broker.with_cluster(Arc::clone(&image.broker_configs))
    }
}

/// The running edge. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What every connection shares.
struct Shared {
    services: Services,
    /// Bytes of large requests that are being read or worked on.
    requests: Budget,
    /// What large requests are read into.
    buffers: Buffers,
    /// Bytes of fetched records that are being written.
    answers: Budget,
    /// What leaders here give to replicas that are not in sync.
    catching_up: Mutex<Pace>,
    fetch_sessions: sessions::Cache,
    producer_ids: ProducerIds,
    meters: meters::Meters,
    client_metrics: client_metrics::ClientMetrics,
    tasks: Tasks,
    /// Fires when the node is ready: connections are taken before, and served from then on.
    opened: CancellationToken,
    /// No request is begun any more; those begun are answered.
    draining: CancellationToken,
    /// How many connections are open.
    connections: watch::Sender<usize>,
    sink: Option<Arc<dyn SessionSink>>,
}

impl Server {
    /// Makes the edge without a listener; `listen` adds them. `sink` is told of sites that dial.
    pub fn new(services: Services, sink: Option<Arc<dyn SessionSink>>) -> Self {
        let limits = &services.config.server;
        let shared = Shared {
            requests: Budget::new(limits.requests_bytes_max.max(1)),
            buffers: Buffers::new(UNUSED_BYTES_MAX),
            answers: Budget::new(ANSWER_BYTES_MAX),
            catching_up: Mutex::new(Pace::default()),
            fetch_sessions: sessions::Cache::new(limits.fetch_sessions_max, services.sys.random.fork()),
            producer_ids: ProducerIds::default(),
            meters: meters::Meters::new(&services.metrics),
            client_metrics: client_metrics::ClientMetrics::new(&services.metrics, &services.sys.clock),
            tasks: services.sys.tasks.child("server"),
            opened: CancellationToken::new(),
            draining: CancellationToken::new(),
            connections: watch::Sender::new(0),
            sink,
            services,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Accepts connections from `listener` until the server drains.
    pub fn listen(&self, listener: Listener) {
        accept::spawn(Arc::clone(&self.shared), listener);
    }

    /// Begins to serve clients. Other nodes are served from the first listener on: a node is not ready without them.
    pub fn open(&self) {
        self.shared.opened.cancel();
    }

    /// Serves Kafka requests on one stream, for instance one that a core opened over a connection this node dialed.
    pub fn serve_stream(&self, stream: Stream, peer: Peer) {
        connection::spawn(&self.shared, stream, Arc::new(peer));
    }

    /// Serves Kafka requests on every stream the other side opens, until the session ends or the server drains.
    pub fn serve_session(&self, session: Session) {
        accept::serve_session(&self.shared, session);
    }

    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Accepts nothing more, answers what was asked, and closes. What is not answered within `patience` is dropped.
    pub async fn drain(&self, patience: Duration) {
        self.shared.draining.cancel();
        let clock = &self.shared.services.sys.clock;
        if clock.timeout(patience, self.shared.tasks.ended()).await.is_err() {
            let running = self.shared.tasks.running();
            tracing::warn!(running, "connections are dropped with requests unanswered");
        }
        self.shared.tasks.cancel();
        self.shared.tasks.ended().await;
    }
}
