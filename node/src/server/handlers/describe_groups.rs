//! DescribeGroups (key 15): members of groups of the classic protocol, and what each was assigned. Others are not there.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use headwater_protocol::primitives::Str;

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::group::{self, DescribedMember, Description, Stage};
use crate::server::errors;
use crate::server::request::Context;

/// From this version on a group that is not there is an error (KIP-1043); before, it is dead.
const NOT_FOUND_SINCE: i16 = 6;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = if request.include_authorized_operations {
        GROUP_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let mut described = describe(context, group).await;
        described.authorized_operations = operations;
        groups.push(described);
    }
    DescribeGroupsResponse {
        groups,
        ..DescribeGroupsResponse::default()
    }
}

async fn describe(context: &Context, group_id: Str) -> DescribedGroup {
    let described = match group::name(&group_id) {
        Ok(name) => context.services().groups.describe(name).await,
        Err(error) => Err(error),
    };
    match described {
        Ok(Some(description)) => found(description),
        Ok(None) if context.version >= NOT_FOUND_SINCE => DescribedGroup {
            error_code: ErrorCode::GROUP_ID_NOT_FOUND.0,
            error_message: Some(Str::from(format!(
                "there is no group {group_id:?} of the classic protocol"
            ))),
            group_state: Str::from_static(Stage::Dead.name()),
            group_id,
            ..DescribedGroup::default()
        },
        Ok(None) => DescribedGroup {
            group_state: Str::from_static(Stage::Dead.name()),
            group_id,
            ..DescribedGroup::default()
        },
        Err(error) => DescribedGroup {
            error_code: errors::of_group(&error).0,
            error_message: (context.version >= NOT_FOUND_SINCE).then(|| Str::from(error.to_string())),
            group_id,
            ..DescribedGroup::default()
        },
    }
}

fn found(description: Description) -> DescribedGroup {
    let member = |member: DescribedMember| DescribedGroupMember {
        member_id: Str::from(&*member.member),
        group_instance_id: member.instance.map(|instance| Str::from(&*instance)),
        client_id: Str::from(&*member.client_id),
        client_host: Str::from(&*member.client_host),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
        ..DescribedGroupMember::default()
    };
    DescribedGroup {
        group_id: Str::from(&*description.group),
        group_state: Str::from_static(description.stage.name()),
        protocol_type: Str::from(&*description.protocol_type),
        protocol_data: Str::from(&*description.protocol),
        members: description.members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}
