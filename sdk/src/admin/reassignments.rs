//! Where replicas are: moving them (KIP-455), who leads (KIP-460), how many bytes each takes.
//!
//! Owns the translation of these calls only.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::{NodeId, PartitionIndex};
use headwater_protocol::kafka::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignableTopic,
};
use headwater_protocol::kafka::describe_log_dirs::DescribeLogDirsRequest;
use headwater_protocol::kafka::elect_leaders::{ElectLeadersRequest, ElectLeadersResponse, TopicPartitions};
use headwater_protocol::kafka::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, OngoingPartitionReassignment,
};
use headwater_protocol::primitives::Str;

use super::topics::{accepted, unanswered};
use super::{Admin, Kind};
use crate::client::Target;
use crate::consumer::TopicPartition;
use crate::error::Error;

/// Where a partition's replicas are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    pub topic: String,
    pub partition: PartitionIndex,
    /// The first one preferred as leader. `None` takes back the reassignment that is under way.
    pub replicas: Option<Vec<NodeId>>,
}

impl Reassignment {
    /// Moves a partition to these nodes.
    pub fn to(topic: impl Into<String>, partition: i32, nodes: impl IntoIterator<Item = i32>) -> Self {
        Self {
            topic: topic.into(),
            partition: PartitionIndex(partition),
            replicas: Some(nodes.into_iter().map(NodeId).collect()),
        }
    }
}

/// A reassignment that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OngoingReassignment {
    pub topic: String,
    pub partition: PartitionIndex,
    /// Everybody who holds the partition, those that are to go as well.
    pub replicas: Vec<NodeId>,
    /// Those that catch up.
    pub adding: Vec<NodeId>,
    /// Those that leave once all that are added are in sync.
    pub removing: Vec<NodeId>,
}

/// Which leader is to be elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first of the replicas, where it is in sync.
    Preferred,
    /// Anybody who is there, where nobody leads. Records may be lost by it.
    Unclean,
}

impl Election {
    const fn code(self) -> i8 {
        match self {
            Self::Preferred => 0,
            Self::Unclean => 1,
        }
    }
}

impl Admin {
    /// Starts, replaces and takes back reassignments. Returns when the cluster has taken them, partition by partition
    /// and in the order asked; the data moves afterwards ([`Admin::list_partition_reassignments`] shows it).
    ///
    /// ```no_run
    /// # use headwater_sdk::{Client, Reassignment};
    /// # async fn story(client: Client) -> Result<(), headwater_sdk::Error> {
    /// let moves = [Reassignment::to("flights", 0, [2, 3])];
    /// for taken in client.admin().alter_partition_reassignments(&moves).await? {
    ///     taken?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_partition_reassignments(
        &self,
        moves: &[Reassignment],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for wanted in moves {
            let ids = |nodes: &Vec<NodeId>| nodes.iter().map(|node| node.value()).collect();
            let partition = ReassignablePartition {
                partition_index: wanted.partition.value(),
                replicas: wanted.replicas.as_ref().map(ids),
                ..Default::default()
            };
            topics.entry(&wanted.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| ReassignableTopic {
            name: Str::from(name),
            partitions,
            ..Default::default()
        });
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: topics.collect(),
            ..Default::default()
        };
        let what = "alter partition reassignments";
        self.ask(Kind::Change, Target::Controller, what, &request, |answer| {
            accepted(what, answer.error_code, answer.error_message.as_ref())?;
            Ok(by_move(moves, &answer))
        })
        .await
    }

    /// The reassignments that are under way.
    ///
    /// ```no_run
    /// # async fn story(admin: headwater_sdk::Admin) -> Result<(), headwater_sdk::Error> {
    /// for moving in admin.list_partition_reassignments().await? {
    ///     println!("{} {}: waiting for {:?}", moving.topic, moving.partition, moving.adding);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_partition_reassignments(&self) -> Result<Vec<OngoingReassignment>, Error> {
        let request = ListPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: None,
            ..Default::default()
        };
        let what = "list partition reassignments";
        self.ask(Kind::Question, Target::Controller, what, &request, |answer| {
            accepted(what, answer.error_code, answer.error_message.as_ref())?;
            let of_topic = answer.topics.into_iter().flat_map(|topic| {
                let name = topic.name.to_string();
                let partitions = topic.partitions.into_iter();
                partitions.map(move |partition| ongoing(name.clone(), &partition))
            });
            Ok(of_topic.collect())
        })
        .await
    }

    /// Elects leaders, for some partitions or (`None`) wherever it is needed, and tells what became of each.
    /// `ELECTION_NOT_NEEDED` says that a partition is led as it should be already.
    ///
    /// ```no_run
    /// # use headwater_sdk::{Admin, Election};
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// for (partition, outcome) in admin.elect_leaders(Election::Preferred, None).await? {
    ///     println!("{partition}: {outcome:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), Error>>, Error> {
        let topics = partitions.map(|partitions| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for TopicPartition { topic, partition } in partitions {
                topics.entry(topic).or_default().push(partition.value());
            }
            let topics = topics.into_iter().map(|(topic, partitions)| TopicPartitions {
                topic: Str::from(topic),
                partitions,
                ..Default::default()
            });
            topics.collect()
        });
        let request = ElectLeadersRequest {
            election_type: election.code(),
            topic_partitions: topics,
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        let what = "elect leaders";
        self.ask(Kind::Change, Target::Controller, what, &request, |answer| {
            accepted(what, answer.error_code, None)?;
            Ok(elected(answer))
        })
        .await
    }

    /// How many bytes each replica on a node takes.
    ///
    /// ```no_run
    /// # use headwater_sdk::{Admin, NodeId};
    /// # async fn story(admin: Admin) -> Result<(), headwater_sdk::Error> {
    /// let bytes: u64 = admin.replica_sizes(NodeId(1)).await?.values().sum();
    /// # Ok(())
    /// # }
    /// ```
    pub async fn replica_sizes(&self, node: NodeId) -> Result<BTreeMap<TopicPartition, u64>, Error> {
        let request = DescribeLogDirsRequest {
            topics: None,
            ..Default::default()
        };
        let what = format!("sizes of the replicas on node {node}");
        self.ask(Kind::Question, Target::Node(node), &what, &request, |answer| {
            accepted(&what, answer.error_code, None)?;
            let mut sizes = BTreeMap::new();
            for folder in answer.results {
                accepted(&what, folder.error_code, None)?;
                for topic in folder.topics {
                    for partition in topic.partitions {
                        let at = at(&topic.name, partition.partition_index);
                        *sizes.entry(at).or_insert(0) += u64::try_from(partition.partition_size).unwrap_or(0);
                    }
                }
            }
            Ok(sizes)
        })
        .await
    }
}

fn at(topic: &Str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: Arc::from(topic.as_str()),
        partition: PartitionIndex(partition),
    }
}

fn by_move(moves: &[Reassignment], answer: &AlterPartitionReassignmentsResponse) -> Vec<Result<(), Error>> {
    let mut answers = BTreeMap::new();
    for topic in &answer.responses {
        for partition in &topic.partitions {
            answers.insert((topic.name.as_str(), partition.partition_index), partition);
        }
    }
    let became = |wanted: &Reassignment| {
        let what = format!("move {} partition {}", wanted.topic, wanted.partition);
        let found = answers.get(&(wanted.topic.as_str(), wanted.partition.value()));
        let found = found.ok_or_else(|| unanswered(&what))?;
        accepted(&what, found.error_code, found.error_message.as_ref())
    };
    moves.iter().map(became).collect()
}

fn ongoing(topic: String, partition: &OngoingPartitionReassignment) -> OngoingReassignment {
    let nodes = |ids: &[i32]| ids.iter().copied().map(NodeId).collect();
    OngoingReassignment {
        topic,
        partition: PartitionIndex(partition.partition_index),
        replicas: nodes(&partition.replicas),
        adding: nodes(&partition.adding_replicas),
        removing: nodes(&partition.removing_replicas),
    }
}

fn elected(answer: ElectLeadersResponse) -> BTreeMap<TopicPartition, Result<(), Error>> {
    let mut outcomes = BTreeMap::new();
    for topic in answer.replica_election_results {
        for result in topic.partition_result {
            let what = format!(
                "elect a leader of {} partition {}",
                topic.topic, result.partition_id
            );
            let outcome = accepted(&what, result.error_code, result.error_message.as_ref());
            outcomes.insert(at(&topic.topic, result.partition_id), outcome);
        }
    }
    outcomes
}
