//! ReadShareGroupStateSummary (key 87, KIP-932): where a share group is. Nodes ask each other so.

use headwater_protocol::kafka::read_share_group_state_summary::{
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse,
};

use super::share;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: ReadShareGroupStateSummaryRequest,
) -> ReadShareGroupStateSummaryResponse {
    share::answer_node(context, &request).await
}
