//! SyncGroup (key 14): answered when the leader has assigned and that is kept.

use headwater_protocol::kafka::sync_group::{SyncGroupRequest, SyncGroupResponse};
use headwater_protocol::primitives::Str;

use super::groups;
use crate::group::{self, Generation, GroupError, Synced};
use crate::server::request::Context;

/// From this version on a client names the protocol it follows (KIP-559).
const NAMES_PROTOCOL_SINCE: i16 = 5;

pub(in crate::server) async fn handle(context: &Context, request: SyncGroupRequest) -> SyncGroupResponse {
    match sync(context, request).await {
        Ok(synced) => SyncGroupResponse {
            protocol_type: synced.protocol_type.map(|kind| Str::from(&*kind)),
            protocol_name: synced.protocol.map(|name| Str::from(&*name)),
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: groups::code(&Err::<(), _>(error)),
            ..SyncGroupResponse::default()
        },
    }
}

async fn sync(context: &Context, request: SyncGroupRequest) -> Result<Synced, GroupError> {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.version >= NAMES_PROTOCOL_SINCE && !names_protocol {
        return Err(GroupError::InconsistentProtocol);
    }
    let optional = |text: &Option<Str>| text.as_ref().map(|text| group::name(text)).transpose();
    let mut assignments = Vec::with_capacity(request.assignments.len());
    for given in &request.assignments {
        // A copy: the request's memory is not held for as long as the member stays.
        let assignment = bytes::Bytes::copy_from_slice(&given.assignment);
        assignments.push((group::name(&given.member_id)?, assignment));
    }
    let sync = group::SyncGroup {
        who: groups::identity(
            &request.group_id,
            &request.member_id,
            request.group_instance_id.as_ref(),
        )?,
        generation: Generation(request.generation_id),
        protocol_type: optional(&request.protocol_type)?,
        protocol: optional(&request.protocol_name)?,
        assignments,
    };
    groups::patiently(context, context.services().groups.sync(sync)).await
}
