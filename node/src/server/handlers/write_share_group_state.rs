//! WriteShareGroupState (key 85, KIP-932): whoever leads a partition says what was delivered. Nodes ask each other so.

use headwater_protocol::kafka::write_share_group_state::{
    WriteShareGroupStateRequest, WriteShareGroupStateResponse,
};

use super::share;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: WriteShareGroupStateRequest,
) -> WriteShareGroupStateResponse {
    share::answer_node(context, &request).await
}
