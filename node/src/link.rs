//! Links between sites and a core: enrolment, the connection that the edge keeps up, and the flows that travel over it.
//!
//! The edge dials out; whichever side is to store a copy pulls. A flow is an ordinary Fetch over a stream of the link's
//! one QUIC connection, appended at the copy under the offsets it had: the copy's own end is where it goes on.
//!
//! It owns connections, boards and the one-time tokens. It never serves a request itself (`StreamServer` does), never
//! truncates or deletes a copy, and never decides by anything but the metadata and the logs.

mod board;
mod control;
mod copies;
mod core;
mod edge;
mod enrol;
mod fetcher;
mod holds;
mod mapping;
mod marks;
mod pulse;
mod report;
mod resume;
mod session;
mod token;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_protocol::ids::PartitionIndex;

pub use self::control::FlowState;
pub use self::core::{Invitation, InviteError, Invited, RevokeError};
pub use self::edge::{EnrolError, Enrolled};
pub use self::enrol::Refusal;
pub use self::mapping::matches;
pub use self::report::{FlowReport, LinkReport, LinkState, PartitionReport, SiteReport};
pub use self::token::{Token, TokenError};

use self::board::{Board, FlowKey, Side};
use self::control::{Copied, Message};
use self::holds::Holds;
use self::session::Declaration;
use crate::controller::{Change, Controller};
use crate::metadata::{Flow, GapPolicy, LinkRole, View};
use crate::partition::Registry;
use crate::security::Authority;
use crate::security::store::SecurityStore;
use crate::sys::Sys;
use crate::sys::task::{Kind, Tasks};
use crate::transport::{Dialer, Peer, Session, Stream};

/// What links may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most one fetch brings per partition. Two of them may be in memory per partition that flows.
    pub fetch_bytes_max: usize,
    /// The longest time between two attempts to reach the core while the link is down. Each attempt costs a metered
    /// uplink about 1,200 bytes; the time is also the most that the link's return can go unnoticed.
    pub redial_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fetch_bytes_max: 4 << 20,
            redial_max: Duration::from_millis(600),
        }
    }
}

/// Serves a stream that the other end of a link opened, as a listener's would be. The node wires the server in.
pub trait StreamServer: Send + Sync + 'static {
    /// Begins to serve; goes on until the stream ends or the node drains. Does not block.
    fn serve(&self, stream: Stream, peer: Peer);
}

/// What links are made of. One per node.
pub struct Parts {
    pub sys: Sys,
    pub settings: Settings,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub authority: Arc<Authority>,
    pub store: SecurityStore,
    pub dialer: Dialer,
    pub streams: Arc<dyn StreamServer>,
}

/// A handle to this node's links. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    sys: Sys,
    tasks: Tasks,
    settings: Settings,
    view: View,
    controller: Controller,
    registry: Registry,
    authority: Arc<Authority>,
    store: SecurityStore,
    dialer: Dialer,
    streams: Arc<dyn StreamServer>,
    boards: Mutex<BTreeMap<String, Arc<Board>>>,
    /// The scope of each link's connection, so that a newer one can end it.
    current: Mutex<BTreeMap<String, Tasks>>,
    enrolling: tokio::sync::Mutex<()>,
    holds: Holds,
}

impl Links {
    /// Starts dialling wherever the metadata names an upstream. Everything ends with `parts.sys.tasks`.
    pub fn start(parts: Parts) -> Self {
        let tasks = parts.sys.tasks.child("link");
        let shared = Arc::new(Shared {
            tasks: tasks.clone(),
            sys: parts.sys,
            settings: parts.settings,
            view: parts.view,
            controller: parts.controller,
            registry: parts.registry,
            authority: parts.authority,
            store: parts.store,
            dialer: parts.dialer,
            streams: parts.streams,
            boards: Mutex::new(BTreeMap::new()),
            current: Mutex::new(BTreeMap::new()),
            enrolling: tokio::sync::Mutex::new(()),
            holds: Holds::default(),
        });
        tasks.spawn(
            "upstreams",
            Kind::Critical,
            edge::keep_upstreams(Arc::clone(&shared)),
        );
        tasks.spawn("holds", Kind::Critical, keep_holds(Arc::clone(&shared)));
        tasks.spawn(
            "revocations",
            Kind::Critical,
            core::keep_revocations(Arc::clone(&shared)),
        );
        Self { shared }
    }

    /// Invites a site: makes a token that works once. On the core.
    pub async fn invite(&self, invitation: Invitation) -> Result<Invited, InviteError> {
        core::invite(&self.shared, invitation).await
    }

    /// Refuses a site's certificate from now on, and ends its connection.
    pub async fn revoke(&self, site: &str) -> Result<(), RevokeError> {
        core::revoke(&self.shared, site).await
    }

    /// Enrols this node with the core that the token names, and links it. On the edge. If the future is dropped, the
    /// site may be enrolled; the same call may then be made again until the token expires.
    pub async fn enrol(&self, token: &str, link: Option<&str>) -> Result<Enrolled, EnrolError> {
        edge::enrol(&self.shared, token, link).await
    }

    /// Takes a session of a peer that has no certificate yet and wants one. Returns when it is answered.
    pub async fn accept_enrolment(&self, session: Session) {
        core::accept_enrolment(&self.shared, session).await;
    }

    /// Takes a session whose certificate names a site, and serves it until it ends.
    pub async fn accept_site(&self, session: Session) {
        core::accept_site(&self.shared, session).await;
    }

    /// The sites that were invited here.
    pub fn sites(&self) -> Vec<SiteReport> {
        report::sites(&self.shared)
    }

    /// Every link and how it is doing.
    pub async fn links(&self) -> Vec<LinkReport> {
        report::links(&self.shared).await
    }

    /// Moves the connections to new sockets: the network under this machine has changed.
    pub fn rebind(&self) -> std::io::Result<()> {
        self.shared.dialer.rebind()
    }
}

impl Shared {
    fn board(&self, link: &str) -> Arc<Board> {
        let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        let board = boards
            .entry(link.to_owned())
            .or_insert_with(|| Arc::new(Board::new(self.sys.clock.unix_ms())));
        Arc::clone(board)
    }

    /// Makes `scope` the link's connection; answers the one that was before.
    fn take_over(&self, link: &str, scope: &Tasks) -> Option<Tasks> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.insert(link.to_owned(), scope.clone())
    }

    fn current(&self, link: &str) -> Option<Tasks> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(link)
            .cloned()
    }

    fn flows_message(&self, declaration: &Declaration) -> Message {
        Message::Flows {
            version: control::VERSION,
            cluster_id: self.view.image().cluster_id.clone(),
            revision: declaration.revision,
            flows: declaration.flows.clone(),
            paused: declaration.paused,
        }
    }

    /// Keeps what the core declared, so that this edge knows after a restart what it must hold back from deletion.
    async fn keep_declaration(&self, link: &str, declared: &Declaration) {
        let Some(mut known) = self
            .view
            .image()
            .links
            .get(link)
            .map(|link| link.as_ref().clone())
        else {
            return;
        };
        if known.flows == declared.flows && known.paused == declared.paused {
            return;
        }
        known.flows = declared.flows.clone();
        known.paused = declared.paused;
        if let Err(error) = self.controller.propose(Change::PutLink(known)).await {
            tracing::warn!(link, %error, "the link's declaration could not be stored");
        }
    }

    /// The other end says how far its copies are: for the board, and for what may be deleted here.
    fn note_copied(
        &self,
        link: &str,
        board: &Board,
        role: LinkRole,
        flows: &[Flow],
        partitions: Vec<Copied>,
    ) {
        let now_ms = self.sys.clock.unix_ms();
        let image = self.view.image();
        for copied in partitions {
            let Some(topic) = image.topics.get(copied.topic.as_str()) else {
                continue;
            };
            let Some(flow) = mapping::sends(role, flows, topic) else {
                continue;
            };
            let Some(here) = self
                .registry
                .get_by_id(topic.id, PartitionIndex(copied.partition))
            else {
                continue;
            };
            let held = self
                .holds
                .copied((topic.id, PartitionIndex(copied.partition)), link, copied.copied);
            here.hold(held.from, held.bytes_max);
            let key = FlowKey {
                side: Side::Sent,
                topic: copied.topic,
                partition: copied.partition,
            };
            let copy = format!("{}{}", flow.prefix, key.topic);
            board.cell(&key, &copy).update(|progress| {
                if copied.copied > progress.copied {
                    progress.last_progress_ms = Some(now_ms);
                }
                progress.copied = copied.copied;
                progress.state = copied.state;
                progress.detail = copied.detail;
            });
        }
    }
}

/// Sees to it that nothing is deleted which a flow still has to carry, from the moment the node knows of the flow: until
/// the other end has said how far it is, everything is held.
async fn keep_holds(shared: Arc<Shared>) {
    let cancelled = shared.tasks.cancelled();
    let mut reconciled = shared.registry.watch();
    let mut images = shared.view.watch();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        reconciled.mark_unchanged();
        for partition in shared.registry.list() {
            let name = partition.name();
            let Some(topic) = image.topics.get(&*name.topic) else {
                continue;
            };
            let holding = image.links.values().filter_map(|link| {
                let flow = mapping::sends(link.role, &link.flows, topic)?;
                match flow.on_gap {
                    GapPolicy::Hold { bytes } => Some((link.name.as_str(), bytes)),
                    GapPolicy::MarkGap => None,
                }
            });
            let held = shared.holds.set((name.topic_id, name.index), &holding.collect());
            partition.hold(held.from, held.bytes_max);
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
            changed = reconciled.changed() => if changed.is_err() { return },
        }
    }
}
