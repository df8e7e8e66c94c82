//! One batch of a produce on the way to its answer.
//!
//! A leader that was cut off, and does not know of its successor yet, would refuse a batch as out of sequence that follows what the
//! successor acknowledged, and its producer would take records for lost. So it says that only when the quorum says that it leads still.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use headwater_protocol::ids::{LeaderEpoch, PartitionIndex, TopicId};
use headwater_protocol::primitives::Str;

use super::topic_of;
use crate::partition::{AppendError, Appended, Pending};
use crate::server::Services;
use crate::server::request::Context;

/// A batch that has its place in the order.
pub(super) struct Waiting {
    stage: Stage,
    /// Whoever judged it led in this epoch or a later one.
    epoch: LeaderEpoch,
}

enum Stage {
    Appending(Pending),
    Refused {
        error: AppendError,
        asking: Pin<Box<dyn Future<Output = bool> + Send>>,
    },
}

/// The partition that a batch is for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a Str,
    /// Zero where the client went by the name.
    pub(super) topic_id: TopicId,
    pub(super) index: PartitionIndex,
}

impl Waiting {
    pub(super) fn new(pending: Pending, epoch: LeaderEpoch) -> Self {
        Self {
            stage: Stage::Appending(pending),
            epoch,
        }
    }

    /// Whether it is acknowledged or refused.
    pub(super) fn poll(
        &mut self,
        cx: &mut TaskContext<'_>,
        context: &Context,
        place: Place<'_>,
    ) -> Poll<Result<Appended, AppendError>> {
        loop {
            match &mut self.stage {
                Stage::Appending(pending) => match ready!(Pin::new(pending).poll(cx)) {
                    Err(error @ AppendError::OutOfOrderSequence { .. }) => {
                        let asking = Box::pin(leads_still(context.services(), place, self.epoch));
                        self.stage = Stage::Refused { error, asking };
                    }
                    answer => return Poll::Ready(answer),
                },
                Stage::Refused { error, asking } => {
                    let leads = ready!(asking.as_mut().poll(cx));
                    let error = if leads {
                        error.clone()
                    } else {
                        AppendError::NotLeader
                    };
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

/// Whether this node leads a partition in `epoch`, by all that was decided before this was asked. No, where the quorum does not answer.
fn leads_still(
    services: &Services,
    place: Place<'_>,
    epoch: LeaderEpoch,
) -> impl Future<Output = bool> + Send + use<> {
    let services = services.clone();
    let (topic, topic_id, index) = (place.topic.clone(), place.topic_id, place.index);
    async move {
        if let Err(error) = services.controller.up_to_date().await {
            tracing::debug!(%error, "a batch is not refused: it is not known who leads");
            return false;
        }
        let image = services.view.image();
        let state = topic_of(&image, &topic, topic_id).and_then(|topic| topic.partition(index));
        state.is_some_and(|state| state.leader == services.node_id() && state.leader_epoch == epoch)
    }
}
