//! The one who changes the cluster's metadata: a change is proposed, checked against the image, turned into records,
//! made durable in the quorum's log, folded, and published.
//!
//! Owns the metadata log. Nobody else appends to it; everybody reads the outcome through `metadata::View`.

pub mod change;
mod decide;
pub mod error;
mod objects;
pub mod placement;
mod topics;

pub use change::{Change, NewTopic};
pub use error::ProposeError;
pub use topics::check_name;

use crate::metadata::{Module, Topic};
use headwater_protocol::ids::{Offset, ProducerId};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// A handle to propose changes with. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    proposals: mpsc::Sender<Proposal>,
}

/// A change on its way to the task, and who waits for it.
pub(crate) struct Proposal {
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Result<Applied, ProposeError>>,
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

impl Controller {
    pub(crate) fn new(proposals: mpsc::Sender<Proposal>) -> Self {
        Self { proposals }
    }

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
