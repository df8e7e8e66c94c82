//! Groups: which there are and who is in them; of consumer groups what they have committed, and setting that anew.
//!
//! Owns the translation of these calls only.

use std::collections::BTreeMap;

use headwater_protocol::consumer_protocol::{Assignment, PROTOCOL_TYPE};
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::consumer_group_describe::{self, ConsumerGroupDescribeRequest};
use headwater_protocol::kafka::delete_groups::DeleteGroupsRequest;
use headwater_protocol::kafka::describe_groups::{
    DescribeGroupsRequest, DescribedGroup, DescribedGroupMember,
};
use headwater_protocol::kafka::list_groups::ListGroupsRequest;
use headwater_protocol::kafka::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use headwater_protocol::kafka::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use headwater_protocol::kafka::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use headwater_protocol::primitives::Str;

use super::coordinator::Ask;
use super::{Admin, Isolation, Kind};
use crate::client::Target;
use crate::consumer::TopicPartition;
use crate::error::Error;

/// The last versions in which one group is asked for, and topics go by name.
const FETCH_ONE_UNTIL: i16 = 7;
const COMMIT_BY_NAME_UNTIL: i16 = 9;

/// A group, as its coordinator lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    pub group: String,
    /// `consumer` for groups of consumers, `share` for share groups; empty where only offsets were ever committed.
    pub protocol_type: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`; in the consumer protocol (KIP-848)
    /// `Empty`, `Assigning`, `Reconciling`, `Stable` or `Dead`; a share group is `Empty`, `Stable` or `Dead`.
    pub state: String,
    /// The name of its [`GroupKind`]; empty where the broker does not say.
    pub kind: String,
}

/// How the members of a group read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Each partition by one of them, as one of them divides them.
    Classic,
    /// Each partition by one of them, as the coordinator deals them out (KIP-848).
    Consumer,
    /// Several of them from one partition, record by record (KIP-932).
    Share,
}

impl GroupKind {
    /// As brokers list it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Share => "share",
        }
    }
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: String,
    pub kind: GroupKind,
    pub coordinator: NodeId,
    pub state: String,
    pub protocol_type: String,
    /// How partitions are assigned; empty unless the group is stable.
    pub assignor: String,
    /// The group's epoch; None in the classic protocol.
    pub epoch: Option<i32>,
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub member_id: String,
    /// Set for static members (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// The member's epoch; None in the classic protocol.
    pub epoch: Option<i32>,
    /// What it was assigned; empty unless the group is stable and its members are consumers. Members of a share group may
    /// have the same.
    pub assignment: Vec<TopicPartition>,
}

/// What a group has committed of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Where its reader goes on.
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
    pub metadata: String,
}

/// Whom a commit comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committer {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) generation: i32,
}

/// Nobody: groups without members take it.
impl Default for Committer {
    fn default() -> Self {
        Self {
            member_id: String::new(),
            instance_id: None,
            generation: -1,
        }
    }
}

impl Admin {
    /// The groups of all brokers, by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        self.client.refresh().await?;
        let brokers: Vec<NodeId> = self.client.cluster().brokers.keys().copied().collect();
        let mut groups = Vec::new();
        for broker in brokers {
            let (request, what) = (ListGroupsRequest::default(), "list groups");
            let read = |answer: headwater_protocol::kafka::list_groups::ListGroupsResponse| {
                check(what, answer.error_code)?;
                Ok(answer.groups)
            };
            let target = Target::Node(broker);
            let listed = self.ask(Kind::Question, target, what, &request, read).await?;
            groups.extend(listed.into_iter().map(|group| GroupListing {
                group: group.group_id.into(),
                protocol_type: group.protocol_type.into(),
                state: group.group_state.into(),
                kind: group.group_type.into(),
            }));
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    /// Who is in a group of whichever kind, and what each was assigned. A group that is not there is refused.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        match self.describe_classic(group).await {
            Err(unknown) if unknown.code() == Some(ErrorCode::GROUP_ID_NOT_FOUND) => {
                // Brokers that do not know the other kinds have no such groups.
                match self.describe_consumers(group).await {
                    Ok(described) => Ok(described),
                    Err(_) => self.describe_sharers(group).await.map_err(|_| unknown),
                }
            }
            described => described,
        }
    }

    async fn describe_consumers(&self, group: &str) -> Result<GroupDescription, Error> {
        let what = format!("describe group {group:?}");
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![Str::from(group)],
            ..ConsumerGroupDescribeRequest::default()
        };
        let read = |node, mut answer: consumer_group_describe::ConsumerGroupDescribeResponse| {
            let group = answer
                .groups
                .pop()
                .ok_or_else(|| super::topics::unanswered(&what))?;
            check(&what, group.error_code)?;
            Ok(described_consumers(node, group))
        };
        self.ask_coordinator(&Ask::question(group, &what), &request, read)
            .await
    }

    async fn describe_classic(&self, group: &str) -> Result<GroupDescription, Error> {
        let what = format!("describe group {group:?}");
        let request = DescribeGroupsRequest {
            groups: vec![Str::from(group)],
            ..DescribeGroupsRequest::default()
        };
        let read = |node, mut answer: headwater_protocol::kafka::describe_groups::DescribeGroupsResponse| {
            let group = answer
                .groups
                .pop()
                .ok_or_else(|| super::topics::unanswered(&what))?;
            check(&what, group.error_code)?;
            if &*group.group_state == "Dead" {
                // Brokers that know no error for it say so.
                return Err(Error::refused(&*what, ErrorCode::GROUP_ID_NOT_FOUND.0, None));
            }
            Ok(described(node, group))
        };
        self.ask_coordinator(&Ask::question(group, &what), &request, read)
            .await
    }

    /// What a group has committed. A group that is not there has committed nothing.
    pub async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        self.offsets_of(group, None, Isolation::ReadUncommitted).await
    }

    /// As [`Admin::group_offsets`], of some partitions. Those without a commit are absent. Readers of what is committed
    /// wait until no transaction has a commit of them open (KIP-447).
    pub(crate) async fn offsets_of(
        &self,
        group: &str,
        wanted: Option<&[TopicPartition]>,
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, Error> {
        let what = format!("committed offsets of {group:?}");
        let topics = wanted.map(|wanted| {
            by_topic(wanted)
                .into_iter()
                .map(|(name, partitions)| OffsetFetchRequestTopic {
                    name: Str::from(name),
                    partition_indexes: partitions.iter().map(|it| it.partition.0).collect(),
                    ..OffsetFetchRequestTopic::default()
                })
                .collect()
        });
        // A version of one group, which every broker has.
        let request = OffsetFetchRequest {
            group_id: Str::from(group),
            topics,
            require_stable: isolation == Isolation::ReadCommitted,
            ..OffsetFetchRequest::default()
        };
        let read = |_, answer: headwater_protocol::kafka::offset_fetch::OffsetFetchResponse| {
            check(&what, answer.error_code)?;
            let mut found = BTreeMap::new();
            for topic in answer.topics {
                for it in topic.partitions.into_iter() {
                    check(&what, it.error_code)?;
                    if it.committed_offset >= 0 {
                        let committed = CommittedOffset {
                            offset: Offset(it.committed_offset),
                            leader_epoch: Some(LeaderEpoch(it.committed_leader_epoch)).filter(|it| it.0 >= 0),
                            metadata: it.metadata.map(String::from).unwrap_or_default(),
                        };
                        found.insert(place(&topic.name, it.partition_index), committed);
                    }
                }
            }
            Ok(found)
        };
        self.ask_coordinator(
            &Ask::question(group, &what).up_to(FETCH_ONE_UNTIL),
            &request,
            read,
        )
        .await
    }

    /// Sets what a group without members has committed: where its readers go on.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let what = format!("set offsets of group {group:?}");
        self.commit_as(&Committer::default(), &what, group, offsets).await
    }

    /// Commits offsets as a member, or as nobody.
    pub(crate) async fn commit_as(
        &self,
        who: &Committer,
        what: &str,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let keys: Vec<TopicPartition> = offsets.keys().cloned().collect();
        let topics = by_topic(&keys).into_iter().map(|(name, partitions)| {
            let partition = |it: &&TopicPartition| OffsetCommitRequestPartition {
                partition_index: it.partition.0,
                committed_offset: offsets[*it].0,
                committed_leader_epoch: -1,
                committed_metadata: Some(Str::default()),
                ..OffsetCommitRequestPartition::default()
            };
            OffsetCommitRequestTopic {
                name: Str::from(name),
                partitions: partitions.iter().map(partition).collect(),
                ..OffsetCommitRequestTopic::default()
            }
        });
        let request = OffsetCommitRequest {
            group_id: Str::from(group),
            generation_id_or_member_epoch: who.generation,
            member_id: Str::from(&*who.member_id),
            group_instance_id: who.instance_id.as_deref().map(Str::from),
            topics: topics.collect(),
            ..OffsetCommitRequest::default()
        };
        let read = |_, answer: headwater_protocol::kafka::offset_commit::OffsetCommitResponse| {
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.try_for_each(|partition| check(what, partition.error_code))
        };
        // The same offsets set twice are set.
        self.ask_coordinator(
            &Ask::question(group, what).up_to(COMMIT_BY_NAME_UNTIL),
            &request,
            read,
        )
        .await
    }

    /// Forgets what a group has committed of partitions that none of its members is subscribed to.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<(), Error> {
        let what = format!("delete offsets of group {group:?}");
        let topics = by_topic(partitions).into_iter().map(|(name, partitions)| {
            let partition = |it: &&TopicPartition| OffsetDeleteRequestPartition {
                partition_index: it.partition.0,
            };
            OffsetDeleteRequestTopic {
                name: Str::from(name),
                partitions: partitions.iter().map(partition).collect(),
            }
        });
        let request = OffsetDeleteRequest {
            group_id: Str::from(group),
            topics: topics.collect(),
        };
        let read = |_, answer: headwater_protocol::kafka::offset_delete::OffsetDeleteResponse| {
            check(&what, answer.error_code)?;
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.try_for_each(|partition| check(&what, partition.error_code))
        };
        self.ask_coordinator(&Ask::question(group, &what), &request, read)
            .await
    }

    /// Deletes a group without members, and all it has committed or was delivered.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let what = format!("delete group {group:?}");
        let request = DeleteGroupsRequest {
            groups_names: vec![Str::from(group)],
            ..DeleteGroupsRequest::default()
        };
        let read = |_, answer: headwater_protocol::kafka::delete_groups::DeleteGroupsResponse| {
            let result = answer.results.first();
            check(
                &what,
                result.ok_or_else(|| super::topics::unanswered(&what))?.error_code,
            )
        };
        self.ask_coordinator(&Ask::change(group, &what), &request, read)
            .await
    }
}

fn check(what: &str, code: i16) -> Result<(), Error> {
    super::topics::accepted(what, code, None)
}

pub(crate) fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&str, Vec<&TopicPartition>> {
    let mut topics: BTreeMap<&str, Vec<&TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition);
    }
    topics
}

pub(super) fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.into(),
        partition: PartitionIndex(partition),
    }
}

fn described(coordinator: NodeId, group: DescribedGroup) -> GroupDescription {
    GroupDescription {
        group: group.group_id.into(),
        kind: GroupKind::Classic,
        coordinator,
        state: group.group_state.into(),
        protocol_type: group.protocol_type.into(),
        assignor: group.protocol_data.into(),
        epoch: None,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn described_consumers(
    coordinator: NodeId,
    group: consumer_group_describe::DescribedGroup,
) -> GroupDescription {
    let member = |member: consumer_group_describe::Member| {
        let topics = member.assignment.topic_partitions.iter();
        let assignment =
            topics.flat_map(|topic| topic.partitions.iter().map(|it| place(&topic.topic_name, *it)));
        GroupMember {
            assignment: assignment.collect(),
            member_id: member.member_id.into(),
            instance_id: member.instance_id.map(String::from),
            client_id: member.client_id.into(),
            host: member.client_host.into(),
            epoch: Some(member.member_epoch),
        }
    };
    GroupDescription {
        group: group.group_id.into(),
        kind: GroupKind::Consumer,
        coordinator,
        state: group.group_state.into(),
        protocol_type: PROTOCOL_TYPE.to_owned(),
        assignor: group.assignor_name.into(),
        epoch: Some(group.group_epoch),
        members: group.members.into_iter().map(member).collect(),
    }
}

fn member(member: DescribedGroupMember) -> GroupMember {
    let assigned = Assignment::decode(member.member_assignment).unwrap_or_default();
    let topics = assigned.partitions.iter();
    let assignment = topics.flat_map(|topic| topic.partitions.iter().map(|it| place(&topic.topic, *it)));
    GroupMember {
        assignment: assignment.collect(),
        member_id: member.member_id.into(),
        instance_id: member.group_instance_id.map(String::from),
        client_id: member.client_id.into(),
        host: member.client_host.into(),
        epoch: None,
    }
}
