//! RemoveRaftVoter (key 81, KIP-853): a voter goes on as an observer.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::remove_raft_voter::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::refusal::Refusal;
use super::voters::{self, Named};
use crate::controller::MemberChange;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let named = Named {
        cluster_id: request.cluster_id,
        node: NodeId(request.voter_id),
        directory: request.voter_directory_id,
    };
    let (error_code, error_message) = match remove(context, &named).await {
        Ok(()) => (ErrorCode::NONE.0, None),
        Err(refusal) => (refusal.code.0, refusal.text()),
    };
    RemoveRaftVoterResponse {
        error_code,
        error_message,
        ..RemoveRaftVoterResponse::default()
    }
}

async fn remove(context: &Context, named: &Named) -> Result<(), Refusal> {
    voters::check(context, named)?;
    voters::change(context, MemberChange::RemoveVoter(named.node)).await
}
