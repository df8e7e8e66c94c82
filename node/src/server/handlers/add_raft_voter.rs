//! AddRaftVoter (key 80, KIP-853): a node that holds the metadata gets a vote.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse};

use super::refusal::Refusal;
use super::voters::{self, Named};
use crate::controller::MemberChange;
use crate::server::request::Context;

/// Where the voter is reached is known by its registration: the listeners that the request names are passed over.
pub(in crate::server) async fn handle(
    context: &Context,
    request: AddRaftVoterRequest,
) -> AddRaftVoterResponse {
    let named = Named {
        cluster_id: request.cluster_id,
        node: NodeId(request.voter_id),
        directory: request.voter_directory_id,
    };
    let (error_code, error_message) = match add(context, &named).await {
        Ok(()) => (ErrorCode::NONE.0, None),
        Err(refusal) => (refusal.code.0, refusal.text()),
    };
    AddRaftVoterResponse {
        error_code,
        error_message,
        ..AddRaftVoterResponse::default()
    }
}

async fn add(context: &Context, named: &Named) -> Result<(), Refusal> {
    voters::check(context, named)?;
    voters::change(context, MemberChange::AddVoter(named.node)).await
}
