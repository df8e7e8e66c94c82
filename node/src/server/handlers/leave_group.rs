//! LeaveGroup (key 13): members go, one by itself or several at the hand of an operator (KIP-345).

use headwater_protocol::kafka::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};

use super::groups;
use crate::group::{self, GroupError};
use crate::server::request::Context;

/// From this version on several leave at once.
const BATCHED_SINCE: i16 = 3;

pub(in crate::server) async fn handle(context: &Context, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let leaving = if context.version >= BATCHED_SINCE {
        request.members
    } else {
        vec![MemberIdentity {
            member_id: request.member_id,
            ..MemberIdentity::default()
        }]
    };
    let members = leaving.iter().map(|member| {
        groups::identity(
            &request.group_id,
            &member.member_id,
            member.group_instance_id.as_ref(),
        )
    });
    let results = match members.collect::<Result<Vec<_>, _>>() {
        Ok(members) => leave(context, &request.group_id, members).await,
        Err(error) => Err(error),
    };
    match results {
        Ok(results) if context.version >= BATCHED_SINCE => LeaveGroupResponse {
            members: leaving
                .into_iter()
                .zip(results)
                .map(|(member, result)| MemberResponse {
                    member_id: member.member_id,
                    group_instance_id: member.group_instance_id,
                    error_code: groups::code(&result),
                    ..MemberResponse::default()
                })
                .collect(),
            ..LeaveGroupResponse::default()
        },
        Ok(results) => LeaveGroupResponse {
            error_code: results.first().map_or(0, groups::code),
            ..LeaveGroupResponse::default()
        },
        Err(error) => LeaveGroupResponse {
            error_code: groups::code(&Err::<(), _>(error)),
            ..LeaveGroupResponse::default()
        },
    }
}

async fn leave(
    context: &Context,
    group: &str,
    members: Vec<group::Identity>,
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let group = group::name(group)?;
    context.services().groups.leave(group, members).await
}
