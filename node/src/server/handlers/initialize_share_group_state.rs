//! InitializeShareGroupState (key 83, KIP-932): a share group begins anew in some partitions. Nodes ask each other so.

use headwater_protocol::kafka::initialize_share_group_state::{
    InitializeShareGroupStateRequest, InitializeShareGroupStateResponse,
};

use super::share;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: InitializeShareGroupStateRequest,
) -> InitializeShareGroupStateResponse {
    share::answer_node(context, &request).await
}
