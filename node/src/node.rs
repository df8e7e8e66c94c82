//! The node: opens what it stores, wires the modules, starts them from the bottom up, and stops them from the top
//! down. The only file that knows them all.
//!
//! Owns the order. It decides nothing that a module could decide by itself.

mod certificates;
mod cluster;
mod data_dir;
mod listen;
pub(crate) mod transforms;

pub use data_dir::DataDirError;
pub use listen::ListenError;

use crate::config::NodeConfig;
use crate::controller::{self, Controller, ProposeError};
use crate::group::{self, Groups};
use crate::http;
use crate::link::{self, Links};
use crate::metadata::View;
use crate::metadata::features::Supported;
use crate::partition::Registry;
use crate::partition::registry;
use crate::peer::{self, Peers};
use crate::replication::{self, Replication};
use crate::security::Authority;
use crate::security::store::SecurityStore;
use crate::server::{Server, Services, SessionSink, share_groups};
use crate::share::{self, Shares};
use crate::sys::task::{Failure, StillRunning};
use crate::sys::{Sys, net};
use crate::telemetry::{Gauge, Health, Metrics, health, names};
use crate::transaction::{self, Transactions};
use crate::transform::{self, DeadLetters, Transforms};
use crate::transport::{Dialer, Listener, quic};
use data_dir::DataDir;
use headwater_protocol::ids::NodeId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What every part of a node is built from. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    pub config: Arc<NodeConfig>,
    pub sys: Sys,
    pub metrics: Metrics,
    pub health: Health,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub peers: Peers,
}

/// The addresses that were really bound; None where a listener is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    pub tcp: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    pub quic: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// A running node. It runs until `stop`; dropped without it, nothing is lost, but the next start has to recover.
pub struct Node {
    core: Core,
    data_dir: DataDir,
    bound: Bound,
    server: Server,
    coordinators: Coordinators,
    transforms: Transforms,
    dead_letters: DeadLetters,
    replication: Replication,
    heartbeat: cluster::Heartbeat,
    _gauges: Vec<Gauge>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("metadata: {0}")]
    Controller(#[from] controller::OpenError),
    #[error("modules: {0}")]
    Modules(#[from] transform::StoreError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("this node cannot be registered: {0}")]
    Register(#[source] ProposeError),
    #[error(
        "cluster.id must be given: node {0} is none of the voters, and joins a cluster that others began (`headwater cluster \
         describe` tells its id)"
    )]
    ClusterId(NodeId),
}

/// Why a node did not stop in order. Nothing acknowledged is lost; the next start recovers.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error(transparent)]
    StillRunning(#[from] StillRunning),
    #[error("{0} partitions could not be synced")]
    NotSynced(usize),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// How long after draining the tasks that remain may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Node {
    /// Opens the data directory and starts everything. Returns when the node accepts requests: in a cluster of several
    /// nodes, when enough of its voters are there to agree on that.
    pub async fn start(config: NodeConfig, sys: Sys) -> Result<Self, StartError> {
        let started = sys.clock.now();
        let cluster_id = cluster::id(&config)?;
        let data_dir = DataDir::open(&sys, config.node_id, cluster_id.as_deref())?;
        let core = open(config, sys, &data_dir).await?;
        let gauges = describe(&core);

        let sockets = listen::bind(&core.config, &core.sys, &core.view, &data_dir.cluster_id).await?;
        let bound = sockets.bound;
        let coordinators = Coordinators::start(&core);
        let (sites, server) = listen_to_peers(&core, coordinators.clone(), sockets.quic);
        let me = cluster::describe(&core, bound, &data_dir.directory);
        let told = me.clone();
        let me = cluster::register(&core, me).await.map_err(StartError::Register)?;
        core.controller.show();
        cluster::follow(&core);
        cluster::report_failures(&core, &me);
        let replication = Replication::start(replication::Options {
            me: core.config.node_id,
            settings: core.config.replication.clone(),
            broker: core.config.broker.clone(),
            sys: core.sys.clone(),
            view: core.view.clone(),
            registry: core.registry.clone(),
            leaders: Arc::new(core.peers.clone()),
            metrics: core.metrics.clone(),
        });
        core.registry.reconciled(core.view.image().offset).await;
        let transforms = Transforms::start(transforms_of(&core, &coordinators.transactions)).await?;
        let dead_letters = dead_letters(&core);
        let above = Above {
            tcp: sockets.tcp,
            tls: sockets.tls,
            http: sockets.http,
            authority: sockets.authority,
            store: sockets.store,
            dead_letters: dead_letters.clone(),
        };
        serve(&core, above, &coordinators, &transforms, &sites, &server);
        let heartbeat = cluster::Heartbeat::start(&core, me, told);
        tracing::info!(
            node = %core.config.node_id,
            cluster = data_dir.cluster_id,
            clean = data_dir.was_clean,
            partitions = core.registry.list().len(),
            took_ms = u64::try_from(core.sys.clock.now().duration_since(started).as_millis()).unwrap_or(u64::MAX),
            "node started"
        );
        Ok(Self {
            core,
            data_dir,
            bound,
            server,
            coordinators,
            transforms,
            dead_letters,
            replication,
            heartbeat,
            _gauges: gauges,
        })
    }

    /// What was bound.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The handles that the parts of this node work with.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Returns when a part fails without which the node cannot go on.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.core.sys.tasks.failure();
        loop {
            if let Some(failure) = failure.borrow_and_update().clone() {
                return failure;
            }
            if failure.changed().await.is_err() {
                // The scope that reports failures is gone, and with it everything that could fail.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops accepting, finishes what is in flight, syncs every log, and marks the data directory clean.
    pub async fn stop(self) -> Result<(), StopError> {
        let Self {
            core,
            data_dir,
            server,
            coordinators,
            transforms,
            dead_letters,
            replication,
            heartbeat,
            ..
        } = self;
        tracing::info!("node is stopping");
        let patience = Duration::from_millis(u64::try_from(core.config.shutdown_timeout_ms).unwrap_or(0));
        heartbeat.leave(patience / 2).await;
        // Before the others find nobody who listens to what they propose.
        core.controller.abdicate().await;
        server.drain(patience).await;
        if let Err(error) = dead_letters.stop(patience).await {
            tracing::warn!(%error, "redrives are cut short");
        }
        if let Err(error) = transforms.stop(patience).await {
            // What they did not commit they do again: nothing is lost by it.
            tracing::warn!(%error, "transforms are cut short");
        }
        // Behind the transforms, whose transactions they end.
        coordinators.stop(patience).await;
        replication.stop().await;
        let unsynced = core.registry.stop(patience).await;
        core.sys.tasks.stop(&core.sys.clock, STOP_PATIENCE).await?;
        if unsynced > 0 {
            return Err(StopError::NotSynced(unsynced));
        }
        data_dir.mark_clean(&core.sys)?;
        tracing::info!("node stopped");
        Ok(())
    }
}

/// The stores and their owners: everything below the services.
async fn open(config: NodeConfig, sys: Sys, data_dir: &DataDir) -> Result<Core, StartError> {
    let (metrics, health) = (Metrics::default(), Health::default());
    let peers = Peers::new(peer::Parts {
        me: config.node_id,
        cluster_id: data_dir.cluster_id.clone(),
        directory: data_dir.directory.clone(),
        secret: peer::Secret::new(&config.cluster_secret),
        sys: sys.clone(),
        dialer: Dialer::new(sys.net.clone(), quic::Settings::default()),
    });
    let liveness = config.liveness;
    let (controller, view) = controller::start(controller::Options {
        me: config.node_id,
        cluster_id: data_dir.cluster_id.clone(),
        voters: cluster::voters(&config),
        broker: config.broker.clone(),
        timing: controller::Timing {
            election_timeout_ms: liveness.election_timeout_ms,
            heartbeat_ms: liveness.quorum_heartbeat_ms,
        },
        session_timeout: Duration::from_millis(liveness.session_timeout_ms),
        supported: Supported::up_to(&config.feature_levels_max),
        sys: sys.clone(),
        peers: peers.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    })
    .await?;
    let registry = Registry::start(registry::Options {
        me: data_dir.node_id,
        broker: config.broker.clone(),
        maintenance_interval_ms: config.retention_check_interval_ms,
        view: view.clone(),
        sys: sys.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        in_sync_sets: Arc::new(cluster::InSync {
            controller: controller.clone(),
            me: data_dir.node_id,
        }),
        replica_lag_max: config.replication.lag_max,
    });
    let config = Arc::new(config);
    Ok(Core {
        config,
        sys,
        metrics,
        health,
        view,
        controller,
        registry,
        peers,
    })
}

/// The services that coordinate, each for what this node leads. Cheap to clone.
#[derive(Clone)]
struct Coordinators {
    groups: Groups,
    transactions: Transactions,
    shares: Shares,
}

impl Coordinators {
    fn start(core: &Core) -> Self {
        let groups = coordinate(core);
        Self {
            transactions: coordinate_transactions(core),
            shares: deliver(core, &groups),
            groups,
        }
    }

    async fn stop(&self, patience: Duration) {
        self.groups.stop(patience).await;
        self.transactions.stop(patience).await;
        self.shares.stop(patience).await;
    }
}

/// The groups of this node: there are none before it is told what it leads.
fn coordinate(core: &Core) -> Groups {
    Groups::start(group::Parts {
        me: core.config.node_id,
        config: core.config.group.clone(),
        voters: core.config.voters.len(),
        sys: core.sys.clone(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        metrics: core.metrics.clone(),
    })
}

/// The transactions of this node; as with groups, there are none at first.
fn coordinate_transactions(core: &Core) -> Transactions {
    Transactions::start(transaction::Parts {
        me: core.config.node_id,
        config: core.config.transaction.clone(),
        voters: core.config.voters.len(),
        sys: core.sys.clone(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        peers: core.peers.clone(),
        metrics: core.metrics.clone(),
    })
}

/// The share groups of this node; as with groups, there are none at first.
fn deliver(core: &Core, groups: &Groups) -> Shares {
    Shares::start(share::Parts {
        me: core.config.node_id,
        config: core.config.share.clone(),
        broker: core.config.broker.clone(),
        voters: core.config.voters.len(),
        sys: core.sys.clone(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        peers: core.peers.clone(),
        knows: share_groups::known_by(groups, &core.peers, core.config.node_id),
        metrics: core.metrics.clone(),
    })
}

/// What the transforms of this node work with.
fn transforms_of(core: &Core, transactions: &Transactions) -> transform::Parts {
    transform::Parts {
        sys: core.sys.clone(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        metrics: core.metrics.clone(),
        node: core.config.node_id,
        folder: "modules".into(),
        replication_factor: core.config.transaction.topic_replication_factor,
        voters: core.config.voters.len(),
        outside: Arc::new(transforms::Cluster::new(around(core, transactions))),
    }
}

/// What the pipelines of transforms have around them.
fn around(core: &Core, transactions: &Transactions) -> transforms::Parts {
    transforms::Parts {
        me: core.config.node_id,
        clock: core.sys.clock.clone(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        peers: core.peers.clone(),
        broker: core.config.broker.clone(),
        transactions: transactions.clone(),
        transaction_timeout_max: core.config.transaction.timeout_max,
    }
}

/// The dead letters of this node's transforms.
fn dead_letters(core: &Core) -> DeadLetters {
    DeadLetters::new(transform::LetterParts {
        sys: core.sys.clone(),
        view: core.view.clone(),
        registry: core.registry.clone(),
        metrics: core.metrics.clone(),
    })
}

/// The edge towards the other nodes, without which no quorum comes about; clients wait.
fn listen_to_peers(
    core: &Core,
    coordinators: Coordinators,
    quic: Option<Listener>,
) -> (Arc<listen::Sites>, Server) {
    let Coordinators {
        groups,
        transactions,
        shares,
    } = coordinators;
    let services = Services {
        config: Arc::clone(&core.config),
        sys: core.sys.clone(),
        metrics: core.metrics.clone(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        groups,
        transactions,
        shares,
        peers: core.peers.clone(),
    };
    let sites = listen::Sites::new(&core.sys.tasks, core.peers.clone());
    let server = Server::new(services, Some(Arc::clone(&sites) as Arc<dyn SessionSink>));
    core.peers.serve_by(Arc::new(listen::PeerStreams(server.clone())));
    if let Some(listener) = quic {
        server.listen(listener);
    }
    (sites, server)
}

/// What is above the cluster: clients, people, sites.
struct Above {
    tcp: Option<Listener>,
    tls: Option<Listener>,
    http: Option<net::Listener>,
    authority: Arc<Authority>,
    store: SecurityStore,
    dead_letters: DeadLetters,
}

/// The services and the edge, each after those it uses. Nothing is served before everything is wired.
fn serve(
    core: &Core,
    above: Above,
    coordinators: &Coordinators,
    transforms: &Transforms,
    sites: &listen::Sites,
    server: &Server,
) {
    let links = Links::start(link::Parts {
        sys: core.sys.clone(),
        settings: link::Settings::default(),
        view: core.view.clone(),
        controller: core.controller.clone(),
        registry: core.registry.clone(),
        authority: Arc::clone(&above.authority),
        store: above.store,
        dialer: Dialer::new(core.sys.net.clone(), quic::Settings::default()),
        streams: Arc::new(listen::LinkStreams(server.clone())),
    });
    sites.open(links.clone());
    if let Some(listener) = above.http {
        http::serve(
            http::Parts {
                sys: core.sys.clone(),
                config: Arc::clone(&core.config),
                view: core.view.clone(),
                controller: core.controller.clone(),
                registry: core.registry.clone(),
                groups: coordinators.groups.clone(),
                transactions: coordinators.transactions.clone(),
                nodes: Arc::new(listen::AnyNode::new(
                    core.config.node_id,
                    server,
                    core.peers.clone(),
                )),
                transforms: transforms.clone(),
                dead_letters: above.dead_letters,
                links,
                authority: above.authority,
                metrics: core.metrics.clone(),
                health: core.health.clone(),
            },
            listener,
        );
    }
    for listener in [above.tcp, above.tls].into_iter().flatten() {
        server.listen(listener);
    }
    server.open();
    core.health.set("listeners", health::State::Ready);
}

/// What can be said of the node once and for all.
fn describe(core: &Core) -> Vec<Gauge> {
    let version = core
        .metrics
        .gauge(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]);
    version.set(1);
    let started = core.metrics.gauge(&names::START_TIME, &[]);
    started.set(core.sys.clock.unix_ms() / 1000);
    let (health, view) = (core.health.clone(), core.view.clone());
    core.metrics.on_scrape(move |scrape| {
        scrape.value(&names::READY, &[], u64::from(health.is_ready()));
        let image = view.image();
        scrape.value(&names::TOPICS, &[], image.topics.len() as u64);
        scrape.value(
            &names::METADATA_OFFSET,
            &[],
            u64::try_from(image.offset.value()).unwrap_or(0),
        );
    });
    vec![version, started]
}
