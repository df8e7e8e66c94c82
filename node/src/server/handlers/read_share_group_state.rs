//! ReadShareGroupState (key 84, KIP-932): whoever leads a partition is to deliver by its state. Nodes ask each other so.

use headwater_protocol::kafka::read_share_group_state::{
    ReadShareGroupStateRequest, ReadShareGroupStateResponse,
};

use super::share;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ReadShareGroupStateRequest,
) -> ReadShareGroupStateResponse {
    share::answer_node(context, &request).await
}
