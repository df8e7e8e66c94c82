//! DeleteGroups (key 42): groups without members go, and all they have committed.

use headwater_protocol::kafka::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};

use super::groups;
use crate::group;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let result = match group::name(&group_id) {
            Ok(group) => context.services().groups.delete(group).await,
            Err(error) => Err(error),
        };
        results.push(DeletableGroupResult {
            group_id,
            error_code: groups::code(&result),
            ..DeletableGroupResult::default()
        });
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}
