//! ConsumerGroupDescribe (key 69, KIP-848): groups of the consumer protocol, their members, and what each has and is to have.

use headwater_protocol::kafka::consumer_group_describe as wire;
use headwater_protocol::kafka::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup, Member, TopicPartitions,
};
use headwater_protocol::primitives::Str;

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::group::{self, Assignment, ConsumerDescription, DescribedConsumer, GroupError};
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;

/// What Kafka calls a member of the consumer protocol.
const CONSUMER: i8 = 1;
/// In this version the answer says so.
const TYPE_SINCE: i16 = 1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = if request.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group in request.group_ids {
        let mut described = describe(context, group).await;
        described.authorized_operations = operations;
        groups.push(described);
    }
    ConsumerGroupDescribeResponse {
        groups,
        ..ConsumerGroupDescribeResponse::default()
    }
}

async fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let described = match group::name(&group_id) {
        Ok(name) if name.is_empty() => Err(GroupError::InvalidGroupId),
        Ok(name) => context.services().groups.describe_consumers(name).await,
        Err(error) => Err(error),
    };
    match described.and_then(|found| found.ok_or(GroupError::GroupNotFound)) {
        Ok(description) => found(context, group_id, description),
        Err(error) => DescribedGroup {
            error_code: errors::of_group(&error).0,
            error_message: Some(Str::from(format!("group {group_id:?}: {error}"))),
            group_id,
            ..DescribedGroup::default()
        },
    }
}

fn found(context: &Context, group_id: Str, description: ConsumerDescription) -> DescribedGroup {
    let image = context.services().view.image();
    let members = description.members.into_iter();
    DescribedGroup {
        group_id,
        group_state: Str::from_static(description.stage.name()),
        group_epoch: description.epoch.0,
        assignment_epoch: description.assignment_epoch.0,
        assignor_name: Str::from_static(description.assignor.name()),
        members: members.map(|it| member(context.version, &image, it)).collect(),
        ..DescribedGroup::default()
    }
}

fn member(version: i16, image: &Image, described: DescribedConsumer) -> Member {
    let text = |name: Option<group::Name>| name.map(|name| Str::from(&*name));
    let topics = described.topics.iter();
    let member = Member {
        member_id: Str::from(&*described.member),
        instance_id: text(described.instance),
        rack_id: text(described.rack),
        member_epoch: described.epoch.0,
        client_id: Str::from(&*described.client_id),
        client_host: Str::from(&*described.client_host),
        subscribed_topic_names: topics.map(|topic| Str::from(&**topic)).collect(),
        subscribed_topic_regex: text(described.regex),
        assignment: assignment(image, &described.assigned),
        target_assignment: assignment(image, &described.target),
        ..Member::default()
    };
    Member {
        member_type: if version >= TYPE_SINCE {
            CONSUMER
        } else {
            member.member_type
        },
        ..member
    }
}

/// Topics that are gone have no name to be told by.
fn assignment(image: &Image, assignment: &Assignment) -> wire::Assignment {
    let topics = assignment.topics().iter();
    let topics = topics.filter_map(|(id, indexes)| {
        Some(TopicPartitions {
            topic_id: (*id).into(),
            topic_name: Str::from(&*image.topic_by_id(*id)?.name),
            partitions: indexes.iter().map(|index| index.value()).collect(),
            ..TopicPartitions::default()
        })
    });
    wire::Assignment {
        topic_partitions: topics.collect(),
        ..wire::Assignment::default()
    }
}
