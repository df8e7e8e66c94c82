//! Share groups (KIP-932): who is in them, where they start, and setting that anew.
//!
//! Owns the translation of these calls only.

use std::collections::BTreeMap;

use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use headwater_protocol::kafka::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic, AlterShareGroupOffsetsResponse,
};
use headwater_protocol::kafka::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic, DeleteShareGroupOffsetsResponse,
};
use headwater_protocol::kafka::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsResponse,
};
use headwater_protocol::kafka::share_group_describe::{
    DescribedGroup, Member, ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};
use headwater_protocol::primitives::Str;

use super::Admin;
use super::coordinator::Ask;
use super::groups::{GroupDescription, GroupKind, GroupMember, by_topic, place};
use super::topics::{accepted, unanswered};
use crate::consumer::TopicPartition;
use crate::error::Error;

/// Where a share group is in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareGroupOffset {
    /// All records before it are done with.
    pub start: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
    /// Records from there on that are not done with; None: nobody knows, or the broker does not say.
    pub lag: Option<i64>,
}

impl Admin {
    /// Where a share group starts, in each partition that it was delivered from or was told to begin in. A group that is not
    /// there, or of another kind, is refused.
    pub async fn share_group_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, ShareGroupOffset>, Error> {
        let what = format!("offsets of share group {group:?}");
        let request = DescribeShareGroupOffsetsRequest {
            groups: vec![DescribeShareGroupOffsetsRequestGroup {
                group_id: Str::from(group),
                topics: None,
                ..DescribeShareGroupOffsetsRequestGroup::default()
            }],
            ..DescribeShareGroupOffsetsRequest::default()
        };
        let read = |_, mut answer: DescribeShareGroupOffsetsResponse| {
            let group = answer.groups.pop().ok_or_else(|| unanswered(&what))?;
            accepted(&what, group.error_code, group.error_message.as_ref())?;
            let mut found = BTreeMap::new();
            for topic in group.topics {
                for it in topic.partitions {
                    accepted(&what, it.error_code, it.error_message.as_ref())?;
                    if it.start_offset < 0 {
                        continue;
                    }
                    let offset = ShareGroupOffset {
                        start: Offset(it.start_offset),
                        leader_epoch: Some(LeaderEpoch(it.leader_epoch)).filter(|epoch| epoch.0 >= 0),
                        lag: Some(it.lag).filter(|lag| *lag >= 0),
                    };
                    found.insert(place(&topic.topic_name, it.partition_index), offset);
                }
            }
            Ok(found)
        };
        self.ask_coordinator(&Ask::question(group, &what), &request, read)
            .await
    }

    /// Has a share group without members begin anew at these offsets: what became of records there is forgotten.
    pub async fn alter_share_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let what = format!("set offsets of share group {group:?}");
        let keys: Vec<TopicPartition> = offsets.keys().cloned().collect();
        let topics = by_topic(&keys).into_iter().map(|(name, partitions)| {
            let partition = |it: &&TopicPartition| AlterShareGroupOffsetsRequestPartition {
                partition_index: it.partition.0,
                start_offset: offsets[*it].0,
                ..AlterShareGroupOffsetsRequestPartition::default()
            };
            AlterShareGroupOffsetsRequestTopic {
                topic_name: Str::from(name),
                partitions: partitions.iter().map(partition).collect(),
                ..AlterShareGroupOffsetsRequestTopic::default()
            }
        });
        let request = AlterShareGroupOffsetsRequest {
            group_id: Str::from(group),
            topics: topics.collect(),
            ..AlterShareGroupOffsetsRequest::default()
        };
        let read = |_, answer: AlterShareGroupOffsetsResponse| {
            accepted(&what, answer.error_code, answer.error_message.as_ref())?;
            let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            partitions.try_for_each(|it| accepted(&what, it.error_code, it.error_message.as_ref()))
        };
        self.ask_coordinator(&Ask::change(group, &what), &request, read)
            .await
    }

    /// Forgets what was delivered of some topics to a share group without members, and where it starts in them.
    pub async fn delete_share_group_offsets(&self, group: &str, topics: &[&str]) -> Result<(), Error> {
        let what = format!("delete offsets of share group {group:?}");
        let topic = |name: &&str| DeleteShareGroupOffsetsRequestTopic {
            topic_name: Str::from(*name),
            ..DeleteShareGroupOffsetsRequestTopic::default()
        };
        let request = DeleteShareGroupOffsetsRequest {
            group_id: Str::from(group),
            topics: topics.iter().map(topic).collect(),
            ..DeleteShareGroupOffsetsRequest::default()
        };
        let read = |_, answer: DeleteShareGroupOffsetsResponse| {
            accepted(&what, answer.error_code, answer.error_message.as_ref())?;
            let mut topics = answer.responses.iter();
            topics.try_for_each(|it| accepted(&what, it.error_code, it.error_message.as_ref()))
        };
        self.ask_coordinator(&Ask::change(group, &what), &request, read)
            .await
    }

    pub(super) async fn describe_sharers(&self, group: &str) -> Result<GroupDescription, Error> {
        let what = format!("describe share group {group:?}");
        let request = ShareGroupDescribeRequest {
            group_ids: vec![Str::from(group)],
            ..ShareGroupDescribeRequest::default()
        };
        let read = |node, mut answer: ShareGroupDescribeResponse| {
            let group = answer.groups.pop().ok_or_else(|| unanswered(&what))?;
            accepted(&what, group.error_code, group.error_message.as_ref())?;
            Ok(described(node, group))
        };
        self.ask_coordinator(&Ask::question(group, &what), &request, read)
            .await
    }
}

fn described(coordinator: NodeId, group: DescribedGroup) -> GroupDescription {
    let member = |member: Member| {
        let topics = member.assignment.topic_partitions.iter();
        let assignment =
            topics.flat_map(|topic| topic.partitions.iter().map(|it| place(&topic.topic_name, *it)));
        GroupMember {
            assignment: assignment.collect(),
            member_id: member.member_id.into(),
            instance_id: None,
            client_id: member.client_id.into(),
            host: member.client_host.into(),
            epoch: Some(member.member_epoch),
        }
    };
    GroupDescription {
        group: group.group_id.into(),
        kind: GroupKind::Share,
        coordinator,
        state: group.group_state.into(),
        protocol_type: "share".to_owned(),
        assignor: group.assignor_name.into(),
        epoch: Some(group.group_epoch),
        members: group.members.into_iter().map(member).collect(),
    }
}
