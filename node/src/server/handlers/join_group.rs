//! JoinGroup (key 11): answered when the group's next generation begins.

use std::time::Duration;

use headwater_protocol::kafka::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use headwater_protocol::primitives::Str;

use super::groups;
use crate::group::{self, GroupError, Identity, Join, Joined, JoinedMember, Name, Protocol};
use crate::server::request::Context;

/// From these versions on a client takes its id before it is let in (KIP-394), understands an answer without a protocol,
/// and that a leader need not assign (KIP-814).
const TAKES_ID_FIRST_SINCE: i16 = 4;
const NO_PROTOCOL_SINCE: i16 = 7;
const SKIPS_ASSIGNMENT_SINCE: i16 = 9;

pub(in crate::server) async fn handle(context: &Context, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    let joined = match join(context, request) {
        Ok(join) => groups::patiently(context, context.services().groups.join(join)).await,
        Err(error) => Err(error),
    };
    match joined {
        Ok(joined) => accepted(joined),
        Err(error) => refused(context.version, member_id, error),
    }
}

fn join(context: &Context, request: JoinGroupRequest) -> Result<Join, GroupError> {
    let who: Identity = groups::identity(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_ref(),
    )?;
    let protocol = |protocol: headwater_protocol::kafka::join_group::JoinGroupRequestProtocol| {
        Ok(Protocol {
            name: group::name(&protocol.name)?,
            // A copy: the request's memory is not held for as long as the member stays.
            metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
        })
    };
    let protocols: Result<Vec<_>, GroupError> = request.protocols.into_iter().map(protocol).collect();
    let session_timeout = milliseconds(request.session_timeout_ms);
    let rebalance_timeout = if context.version >= 1 {
        milliseconds(request.rebalance_timeout_ms)
    } else {
        session_timeout
    };
    let client_id = context.client_id.as_ref().map_or("", Str::as_str);
    Ok(Join {
        who,
        client_id: group::name(client_id)?,
        // As Kafka writes it.
        client_host: Name::from(format!("/{}", context.caller.peer.address.ip())),
        protocol_type: group::name(&request.protocol_type)?,
        protocols: protocols?,
        session_timeout,
        rebalance_timeout,
        takes_id_first: context.version >= TAKES_ID_FIRST_SINCE,
        may_skip_assignment: context.version >= SKIPS_ASSIGNMENT_SINCE,
    })
}

fn milliseconds(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

fn accepted(joined: Joined) -> JoinGroupResponse {
    let member = |member: JoinedMember| JoinGroupResponseMember {
        member_id: Str::from(&*member.member),
        group_instance_id: member.instance.map(|instance| Str::from(&*instance)),
        metadata: member.metadata,
        ..JoinGroupResponseMember::default()
    };
    JoinGroupResponse {
        generation_id: joined.generation.0,
        protocol_type: joined.protocol_type.map(|kind| Str::from(&*kind)),
        protocol_name: Some(Str::from(&*joined.protocol.unwrap_or_default())),
        leader: Str::from(&*joined.leader),
        skip_assignment: joined.skip_assignment,
        member_id: Str::from(&*joined.member),
        members: joined.members.into_iter().map(member).collect(),
        ..JoinGroupResponse::default()
    }
}

fn refused(version: i16, member_id: Str, error: GroupError) -> JoinGroupResponse {
    let error_code = groups::code(&Err::<(), _>(error.clone()));
    let member_id = match error {
        GroupError::MemberIdRequired(id) => Str::from(&*id),
        // Whoever was turned away is to begin anew.
        GroupError::GroupFull => Str::default(),
        _ => member_id,
    };
    JoinGroupResponse {
        error_code,
        generation_id: -1,
        protocol_name: (version < NO_PROTOCOL_SINCE).then(Str::default),
        member_id,
        ..JoinGroupResponse::default()
    }
}
