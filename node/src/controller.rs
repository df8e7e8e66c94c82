//! The one who changes the cluster's metadata: a change is proposed, checked against the image, turned into records,
//! made durable in the quorum's log, folded, and published.
//!
//! Owns the metadata log. Nobody else appends to it; everybody reads the outcome through `metadata::View`.

pub mod change;
mod decide;
pub mod error;
mod objects;
mod placement;
mod quorum;
mod service;
mod snapshot;
mod topics;

pub use change::{Change, NewTopic};
pub use error::ProposeError;
pub use quorum::OpenError;
pub use topics::check_name;

use crate::config::BrokerConfig;
use crate::metadata::{Image, Module, Record, Topic, View};
use crate::sys::Sys;
use crate::sys::mailbox::{Sender, mailbox};
use crate::sys::task::Kind;
use crate::telemetry::{Health, Metrics};
use headwater_protocol::ids::{Offset, ProducerId};
use quorum::Quorum;
use service::{Parts, Service};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Proposals that wait; beyond it `propose` waits.
const MAILBOX_PROPOSALS: usize = 256;

/// A handle to propose changes with. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    proposals: Sender<Proposal>,
}

/// A change on its way to the task, and who waits for it.
struct Proposal {
    change: Change,
    reply: oneshot::Sender<Result<Applied, ProposeError>>,
}

/// What became of a change: durable, folded, and visible in this node's view.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The last record of the change; the image's own offset if it changed nothing.
    pub offset: Offset,
    pub outcome: Outcome,
}

#[derive(Debug, Clone)]
pub enum Outcome {
    Done,
    /// The topic as it is now; as it would be, if the change was to be validated only.
    Topic(Arc<Topic>),
    Module(Arc<Module>),
    ProducerIds(ProducerIdBlock),
}

/// Producer ids that nobody else is given, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdBlock {
    pub first: ProducerId,
    pub count: i64,
}

/// What a controller works with.
pub struct Options {
    /// The cluster the data directory belongs to.
    pub cluster_id: String,
    /// This node's own defaults.
    pub broker: BrokerConfig,
    pub sys: Sys,
    pub health: Health,
    pub metrics: Metrics,
}

/// Reads the metadata, begins it if it is new, and starts the controller of a quorum of one.
pub async fn start(options: Options) -> Result<(Controller, View), OpenError> {
    let Options {
        cluster_id,
        broker,
        sys,
        health,
        metrics,
    } = options;
    let tasks = sys.tasks.child("controller");
    let (mut quorum, mut image) = Quorum::open(&sys, &tasks).await?;
    if image.offset < Offset::ZERO {
        begin(&mut quorum, &mut image, &cluster_id).await?;
    }
    if image.cluster_id != cluster_id {
        return Err(OpenError::OtherCluster {
            found: image.cluster_id,
            expected: cluster_id,
        });
    }
    let (publisher, view) = View::new(image);
    let (proposals, mailbox) = mailbox(MAILBOX_PROPOSALS);
    let image = view.image();
    let service = Service::new(
        Parts {
            sys,
            broker,
            publisher,
            health,
            metrics,
        },
        quorum,
        image,
    );
    let cancel = tasks.cancelled();
    drop(tasks.spawn("service", Kind::Critical, service.run(mailbox, cancel)));
    Ok((Controller { proposals }, view))
}

/// Writes the first record of a new cluster.
async fn begin(quorum: &mut Quorum, image: &mut Image, cluster_id: &str) -> Result<(), OpenError> {
    let first = Record::Cluster {
        cluster_id: cluster_id.to_owned(),
    };
    quorum
        .commit(&[vec![first.clone()]])
        .await
        .map_err(OpenError::First)?;
    image.apply(Offset::ZERO, &first);
    Ok(())
}

impl Controller {
    /// Proposes a change. Returns when it is durable and this node's view shows it, or with the reason why it was
    /// refused. Waits while too many proposals are queued. If the future is dropped, the change may have happened.
    pub async fn propose(&self, change: Change) -> Result<Applied, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { change, reply };
        self.proposals
            .send(proposal)
            .await
            .map_err(|_| ProposeError::Stopped)?;
        answer.await.map_err(|_| ProposeError::Stopped)?
    }
}

#[cfg(test)]
mod tests;
