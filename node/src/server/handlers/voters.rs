//! What AddRaftVoter and RemoveRaftVoter (KIP-853) share: who is meant, and the change.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::primitives::{Str, Uuid};

use super::refusal::Refusal;
use crate::controller::{MemberChange, ProposeError};
use crate::server::request::Context;

/// The voter that a request names.
pub(super) struct Named {
    pub(super) cluster_id: Option<Str>,
    pub(super) node: NodeId,
    /// Zero: any.
    pub(super) directory: Uuid,
}

/// Whether the request is meant for this cluster and for that process's data directory.
pub(super) fn check(context: &Context, named: &Named) -> Result<(), Refusal> {
    let image = context.services().view.image();
    if let Some(cluster) = &named.cluster_id
        && **cluster != *image.cluster_id
    {
        let message = format!("this is cluster {:?}", image.cluster_id);
        return Err(Refusal::new(ErrorCode::INCONSISTENT_CLUSTER_ID, message));
    }
    let known = image.nodes.get(&named.node).map(|node| node.directory.as_str());
    match known {
        Some(directory) if !named.directory.is_zero() && directory.parse() != Ok(named.directory) => {
            let message = format!("node {} runs on data directory {directory}", named.node);
            Err(Refusal::new(ErrorCode::INVALID_VOTER_KEY, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Only who leads the quorum knows whether there is anything to change.
pub(super) async fn change(context: &Context, change: MemberChange) -> Result<(), Refusal> {
    let changed = context.services().controller.change_members(change.clone()).await;
    changed.map_err(|error| match (error, change) {
        (ProposeError::Exists { .. }, MemberChange::AddVoter(node)) => Refusal::new(
            ErrorCode::DUPLICATE_VOTER,
            format!("node {node} is a voter already"),
        ),
        (ProposeError::Unknown { .. }, MemberChange::RemoveVoter(node)) => {
            Refusal::new(ErrorCode::VOTER_NOT_FOUND, format!("node {node} is no voter"))
        }
        (error, _) => Refusal::from(error),
    })
}
