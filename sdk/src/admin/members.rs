//! Who is a member of the cluster, and who votes in its quorum (KIP-853).
//!
//! Owns the translation of these calls only.

use headwater_protocol::ids::{NodeId, Offset};
use headwater_protocol::kafka::add_raft_voter::AddRaftVoterRequest;
use headwater_protocol::kafka::describe_quorum::{
    DescribeQuorumRequest, ReplicaState, RequestPartitionData, RequestTopicData,
};
use headwater_protocol::kafka::remove_raft_voter::RemoveRaftVoterRequest;
use headwater_protocol::kafka::unregister_broker::UnregisterBrokerRequest;
use headwater_protocol::primitives::{Str, Uuid};

use super::topics::{accepted, unanswered};
use super::{Admin, Kind};
use crate::client::Target;
use crate::error::Error;

/// What Kafka calls the quorum's log.
const QUORUM: &str = "__cluster_metadata";

/// The quorum that holds the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    pub leader: Option<NodeId>,
    pub leader_epoch: i32,
    pub high_watermark: Offset,
    pub voters: Vec<QuorumReplica>,
    /// Members that hold the metadata and do not vote.
    pub observers: Vec<QuorumReplica>,
}

/// One member of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    pub node: NodeId,
    /// The data directory it runs on; zero when it is not told.
    pub directory: Uuid,
    /// How far its log goes; `None` when the leader does not know yet.
    pub log_end: Option<Offset>,
}

impl Admin {
    /// Who leads the metadata quorum, who takes part, and how far each is.
    ///
    /// ```no_run
    /// # async fn story(admin: headwater_sdk::Admin) -> Result<(), headwater_sdk::Error> {
    /// let quorum = admin.describe_quorum().await?;
    /// println!("{:?} leads {} voters", quorum.leader, quorum.voters.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, Error> {
        let request = DescribeQuorumRequest {
            topics: vec![RequestTopicData {
                topic_name: Str::from_static(QUORUM),
                partitions: vec![RequestPartitionData::default()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let what = "describe the quorum";
        self.ask(Kind::Question, Target::Any, what, &request, |answer| {
            accepted(what, answer.error_code, answer.error_message.as_ref())?;
            let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
            let quorum = partitions.next().ok_or_else(|| unanswered(what))?;
            accepted(what, quorum.error_code, quorum.error_message.as_ref())?;
            Ok(QuorumDescription {
                leader: (quorum.leader_id >= 0).then_some(NodeId(quorum.leader_id)),
                leader_epoch: quorum.leader_epoch,
                high_watermark: Offset(quorum.high_watermark),
                voters: quorum.current_voters.iter().map(replica).collect(),
                observers: quorum.observers.iter().map(replica).collect(),
            })
        })
        .await
    }

    /// Gives a member of the cluster a vote. It must run, and hold nearly all of the metadata.
    ///
    /// ```no_run
    /// # use headwater_sdk::{Admin, NodeId};
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// admin.add_voter(NodeId(2)).await?;
    /// admin.add_voter(NodeId(3)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add_voter(&self, node: NodeId) -> Result<(), Error> {
        let request = AddRaftVoterRequest {
            cluster_id: None,
            timeout_ms: self.timeout_ms(),
            voter_id: node.value(),
            ..Default::default()
        };
        let what = format!("give node {node} a vote");
        self.ask(Kind::Change, Target::Controller, &what, &request, |answer| {
            accepted(&what, answer.error_code, answer.error_message.as_ref())
        })
        .await
    }

    /// Takes a node's vote away. It stays a member of the cluster.
    ///
    /// ```no_run
    /// # use headwater_sdk::{Admin, NodeId};
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// admin.remove_voter(NodeId(3)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_voter(&self, node: NodeId) -> Result<(), Error> {
        let request = RemoveRaftVoterRequest {
            cluster_id: None,
            voter_id: node.value(),
            ..Default::default()
        };
        let what = format!("take the vote of node {node} away");
        self.ask(Kind::Change, Target::Controller, &what, &request, |answer| {
            accepted(&what, answer.error_code, answer.error_message.as_ref())
        })
        .await
    }

    /// Takes a node out of the cluster. It must hold no replica and have no vote; if it runs, it stops.
    ///
    /// ```no_run
    /// # use headwater_sdk::{Admin, NodeId};
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// admin.unregister_broker(NodeId(4)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn unregister_broker(&self, node: NodeId) -> Result<(), Error> {
        let request = UnregisterBrokerRequest {
            broker_id: node.value(),
            ..Default::default()
        };
        let what = format!("take node {node} out of the cluster");
        // Any but the one that goes: it would not live to tell.
        let cluster = self.client.cluster();
        let other = cluster.brokers.keys().copied().find(|id| *id != node);
        let target = other.map_or(Target::Any, Target::Node);
        self.ask(Kind::Change, target, &what, &request, |answer| {
            accepted(&what, answer.error_code, answer.error_message.as_ref())
        })
        .await?;
        self.client.metadata().invalidate();
        Ok(())
    }
}

fn replica(state: &ReplicaState) -> QuorumReplica {
    QuorumReplica {
        node: NodeId(state.replica_id),
        directory: state.replica_directory_id,
        log_end: (state.log_end_offset >= 0).then_some(Offset(state.log_end_offset)),
    }
}
