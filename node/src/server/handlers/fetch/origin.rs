//! Who fetches: a consumer, or a replica of the partitions.
//!
//! Owns the judgement whether somebody is the replica he says he is, and which follower a consumer is better served by.

use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::FetchRequest;
use headwater_protocol::primitives::Str;

use crate::partition::{Partition, ReplicaFetch};
use crate::server::request::Context;

/// From this version on a request names the replica by a field of its own, with its incarnation.
const REPLICA_STATE_SINCE: i16 = 15;
/// From this version on a consumer says where it stands, and may read from followers (KIP-392).
const RACK_SINCE: i16 = 11;

/// On whose behalf a fetch is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A consumer that knows leaders only.
    Consumer,
    /// One that may be sent to a follower that stands nearer.
    RackAware(Str),
    Replica {
        node: NodeId,
        epoch: Option<BrokerEpoch>,
    },
}

impl Origin {
    /// A node speaks for itself only, and only as its last registration.
    pub(super) fn of(context: &Context, request: &FetchRequest) -> Result<Self, ErrorCode> {
        let (named, epoch) = if context.version >= REPLICA_STATE_SINCE {
            let state = &request.replica_state;
            (state.replica_id, state.replica_epoch)
        } else {
            (request.replica_id, -1)
        };
        if named < 0 {
            return Ok(if context.version >= RACK_SINCE {
                Self::RackAware(request.rack_id.detached())
            } else {
                Self::Consumer
            });
        }
        let node = NodeId(named);
        if context.caller.peer.node != Some(node) {
            return Err(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
        }
        let epoch = (epoch >= 0).then_some(BrokerEpoch(epoch));
        let image = context.services().view.image();
        let registered = image.nodes.get(&node).map(|node| node.epoch);
        if epoch.is_some_and(|epoch| registered.is_some_and(|registered| epoch < registered)) {
            return Err(ErrorCode::STALE_BROKER_EPOCH);
        }
        Ok(Self::Replica { node, epoch })
    }

    pub(super) fn is_replica(&self) -> bool {
        match self {
            Self::Replica { .. } => true,
            Self::Consumer | Self::RackAware(_) => false,
        }
    }

    /// Which incarnation of a replica it is, if it says so.
    pub(super) fn incarnation(&self) -> Option<BrokerEpoch> {
        match self {
            Self::Replica { epoch, .. } => *epoch,
            Self::Consumer | Self::RackAware(_) => None,
        }
    }

    /// Whether a partition that this node only follows may answer.
    pub(super) fn may_read_from_follower(&self) -> bool {
        match self {
            Self::RackAware(_) => true,
            Self::Consumer | Self::Replica { .. } => false,
        }
    }

    /// The follower in the consumer's rack that has the offset, if the leader does not stand there itself.
    pub(super) fn preferred(
        &self,
        context: &Context,
        partition: &Partition,
        offset: Offset,
    ) -> Option<NodeId> {
        let Self::RackAware(rack) = self else { return None };
        if rack.is_empty() || !partition.is_leader() {
            return None;
        }
        let image = context.services().view.image();
        let stands_there = |node: NodeId| {
            let node = image.nodes.get(&node).filter(|node| node.is_active());
            node.is_some_and(|node| node.rack.as_deref() == Some(&**rack))
        };
        if stands_there(context.services().node_id()) {
            return None;
        }
        let leadership = partition.leadership();
        let has_it = |fetch: &ReplicaFetch| {
            let is_in_sync = leadership.isr.contains(&fetch.replica);
            is_in_sync && fetch.log_start <= offset && fetch.offset >= offset && stands_there(fetch.replica)
        };
        let fetches = partition.replica_fetches().into_iter().filter(has_it);
        fetches
            .max_by_key(|fetch| fetch.offset)
            .map(|fetch| fetch.replica)
    }
}
