//! The way of outputs to their sinks, wherever those are led: kept for a transaction, or sent at once.
//!
//! It owns the check that comes before anything of a step is sent or counts: what is kept must be taken later.

use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::PartitionIndex;

use super::outbox::{Append, Sink};
use super::outside::{Outside, OutsideError, Sending};
use crate::partition::PartitionName;

/// A sink and the partitions behind it, in order.
#[derive(Clone)]
pub(crate) struct SinkPartitions {
    pub(crate) sink: Sink,
    pub(crate) partitions: Vec<PartitionName>,
}

/// Outputs for one partition that it would take.
pub(crate) struct Held {
    pub(crate) sink: usize,
    pub(crate) partition: PartitionIndex,
    pub(crate) to: PartitionName,
    pub(crate) batches: Bytes,
}

/// The sinks of a pipeline. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sinks {
    sinks: Arc<[SinkPartitions]>,
    outside: Arc<dyn Outside>,
}

impl Sinks {
    pub(crate) fn new(sinks: Vec<SinkPartitions>, outside: Arc<dyn Outside>) -> Self {
        Self {
            sinks: sinks.into(),
            outside,
        }
    }

    /// Keeps outputs, or says why a sink would not take them. May take long: some have to be looked into.
    pub(crate) fn hold(&self, appends: Vec<Append>) -> Result<Vec<Held>, OutsideError> {
        let held = appends.into_iter().map(|append| {
            let to = self.partition(&append);
            self.outside.check(&to, &append.batches)?;
            Ok(Held {
                sink: append.sink,
                partition: append.partition,
                to,
                batches: append.batches,
            })
        });
        held.collect()
    }

    /// Sends what was kept. Where one is refused all the same, those before it are on their way.
    pub(crate) async fn send(&self, held: Vec<Held>) -> Result<Vec<Sending>, OutsideError> {
        let mut sent = Vec::with_capacity(held.len());
        for Held { to, batches, .. } in held {
            sent.push(self.outside.send(to, batches).await?);
        }
        Ok(sent)
    }

    fn partition(&self, append: &Append) -> PartitionName {
        let index = usize::try_from(append.partition.value()).ok();
        let partition = index.and_then(|index| self.sinks[append.sink].partitions.get(index));
        partition
            .expect("outputs are routed among the partitions of their sink")
            .clone()
    }
}
