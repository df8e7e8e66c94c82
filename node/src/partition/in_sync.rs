//! Changes of the in-sync set, as a leader proposes them. The seam to the cluster's controller: it decides, by comparing
//! the partition's epoch (KIP-497) and the replicas' incarnations (KIP-903).
//!
//! Owns the words of the proposal. It must never decide anything.

use crate::metadata::PartitionState;
use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, TopicId};
use std::future::Future;
use std::pin::Pin;

/// One replica of a proposed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// The incarnation that the leader knows to be in sync; None: the leader has not heard of it in this reign.
    pub broker_epoch: Option<BrokerEpoch>,
}

/// What a leader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSyncChange {
    pub topic: TopicId,
    pub index: PartitionIndex,
    /// Who asks: the leader.
    pub leader: NodeId,
    pub leader_epoch: LeaderEpoch,
    /// What the change is made on top of.
    pub partition_epoch: i32,
    /// The whole set as it should be.
    pub in_sync: Vec<Member>,
}

/// Why there is no answer that the set is as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InSyncRefused {
    /// Somebody else leads, or the partition has changed: the metadata will say.
    #[error("the partition has changed: {0}")]
    Stale(String),
    /// A member may not be in sync now: it is fenced, stopping, or of another incarnation.
    #[error("a replica may not be in sync: {0}")]
    Ineligible(String),
    /// It may have happened or may still happen. The leader asks again, and counts the set as in force meanwhile.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// An answer on its way.
pub type Proposing = Pin<Box<dyn Future<Output = Result<PartitionState, InSyncRefused>> + Send>>;

/// Who decides about in-sync sets.
pub trait InSyncSets: Send + Sync + 'static {
    /// Asks for a change. The answer is the partition's state with the change in it. A proposal is never given up
    /// because the future is dropped: it may still happen.
    fn propose(&self, change: InSyncChange) -> Proposing;
}

/// For a node that leads nothing that others hold: sets never change.
pub struct FixedSets;

impl InSyncSets for FixedSets {
    fn propose(&self, _: InSyncChange) -> Proposing {
        let refused = InSyncRefused::Ineligible("in-sync sets do not change here".to_owned());
        Box::pin(std::future::ready(Err(refused)))
    }
}
