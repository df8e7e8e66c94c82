//! ShareGroupDescribe (key 77, KIP-932): share groups, their members, and what each reads.

use headwater_protocol::kafka::share_group_describe as wire;
use headwater_protocol::kafka::share_group_describe::{
    DescribedGroup, Member, ShareGroupDescribeRequest, ShareGroupDescribeResponse, TopicPartitions,
};
use headwater_protocol::primitives::Str;

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::group::{self, Assignment, DescribedSharer, GroupError, SHARE_ASSIGNOR, ShareDescription};
use crate::metadata::Image;
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
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
    ShareGroupDescribeResponse {
        groups,
        ..ShareGroupDescribeResponse::default()
    }
}

async fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let described = match group::name(&group_id) {
        Ok(name) if name.is_empty() => Err(GroupError::InvalidGroupId),
        Ok(name) => context.services().groups.describe_sharers(name).await,
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

fn found(context: &Context, group_id: Str, description: ShareDescription) -> DescribedGroup {
    let image = context.services().view.image();
    let members = description.members.into_iter();
    DescribedGroup {
        group_id,
        group_state: Str::from_static(description.stage.name()),
        group_epoch: description.epoch.0,
        assignment_epoch: description.assignment_epoch.0,
        assignor_name: Str::from_static(SHARE_ASSIGNOR),
        members: members.map(|it| member(&image, it)).collect(),
        ..DescribedGroup::default()
    }
}

fn member(image: &Image, described: DescribedSharer) -> Member {
    let topics = described.topics.iter();
    Member {
        member_id: Str::from(&*described.member),
        rack_id: described.rack.map(|rack| Str::from(&*rack)),
        member_epoch: described.epoch.0,
        client_id: Str::from(&*described.client_id),
        client_host: Str::from(&*described.client_host),
        subscribed_topic_names: topics.map(|topic| Str::from(&**topic)).collect(),
        assignment: assignment(image, &described.assigned),
        ..Member::default()
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
