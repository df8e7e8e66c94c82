//! DeleteShareGroupState (key 86, KIP-932): what was delivered to a share group is forgotten. Nodes ask each other so.

use headwater_protocol::kafka::delete_share_group_state::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse,
};

use super::share;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DeleteShareGroupStateRequest,
) -> DeleteShareGroupStateResponse {
    share::answer_node(context, &request).await
}
