//! Whether there is a share group, asked of its coordinator: here, or on another node.
//!
//! `share` does not know who is in a group, and `group` does not know what was delivered: the edge knows both.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::share_group_describe::ShareGroupDescribeRequest;
use headwater_protocol::primitives::Str;

use crate::group::{GroupError, Groups, Name};
use crate::peer::Peers;
use crate::share::Knows;

/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What share groups ask before they keep anything of a group.
pub fn known_by(groups: &Groups, peers: &Peers, me: NodeId) -> Knows {
    let (groups, peers) = (groups.clone(), peers.clone());
    Arc::new(move |name| {
        let (groups, peers) = (groups.clone(), peers.clone());
        Box::pin(async move { is_known(&groups, &peers, me, name).await })
    })
}

async fn is_known(groups: &Groups, peers: &Peers, me: NodeId, name: Name) -> Option<bool> {
    let node = groups.coordinator_of(&name).await.ok()?;
    if node == me {
        return match groups.describe_sharers(name).await {
            Ok(found) => Some(found.is_some()),
            Err(GroupError::OtherProtocol | GroupError::GroupNotFound) => Some(false),
            Err(error) => {
                tracing::debug!(%error, "whether there is a share group is not known");
                None
            }
        };
    }
    let request = ShareGroupDescribeRequest {
        group_ids: vec![Str::from(&*name)],
        ..ShareGroupDescribeRequest::default()
    };
    let client_id = Str::from_static("headwater-share");
    let answer = peers.ask(node, &request, 1, &client_id, PATIENCE).await;
    let answer = answer.inspect_err(|error| {
        tracing::debug!(%node, %error, "whether there is a share group is not known");
    });
    match ErrorCode(answer.ok()?.groups.first()?.error_code) {
        ErrorCode::NONE => Some(true),
        ErrorCode::GROUP_ID_NOT_FOUND => Some(false),
        _ => None,
    }
}
