//! Heartbeat (key 12): a member is there, and hears whether it has to join again.

use headwater_protocol::kafka::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::groups;
use crate::group::{self, Generation};
use crate::server::request::Context;

pub(in crate::server) async fn handle(context: &Context, request: HeartbeatRequest) -> HeartbeatResponse {
    let who = groups::identity(
        &request.group_id,
        &request.member_id,
        request.group_instance_id.as_ref(),
    );
    let result = match who {
        Ok(who) => {
            let generation = Generation(request.generation_id);
            let beat = group::Heartbeat { who, generation };
            context.services().groups.heartbeat(beat).await
        }
        Err(error) => Err(error),
    };
    HeartbeatResponse {
        error_code: groups::code(&result),
        ..HeartbeatResponse::default()
    }
}
