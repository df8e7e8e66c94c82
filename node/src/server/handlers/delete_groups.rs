//! DeleteGroups (key 42): groups without members go, and all they have committed, or all that was delivered to them.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use headwater_protocol::primitives::Str;

use super::share;
use crate::group::{self, GroupError};
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let code = delete(context, &group_id).await.err().unwrap_or(ErrorCode::NONE);
        results.push(DeletableGroupResult {
            group_id,
            error_code: code.0,
            ..DeletableGroupResult::default()
        });
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}

/// Of a share group, what was delivered goes first: a group that is made again by the name must not find it.
async fn delete(context: &Context, group_id: &Str) -> Result<(), ErrorCode> {
    let name = group::name(group_id).map_err(|error| errors::of_group(&error))?;
    let groups = &context.services().groups;
    let described = groups.describe_sharers(group::Name::clone(&name)).await;
    match described {
        Ok(Some(_)) => {
            let name = share::empty_group(context, group_id).await?;
            forget(context, &name).await?;
        }
        // What a fetch has brought about while its group was deleted goes now.
        Ok(None) => forget(context, &name).await?,
        Err(GroupError::OtherProtocol) => {}
        Err(error) => return Err(errors::of_group(&error)),
    }
    let deleted = groups.delete(name).await;
    deleted.map_err(|error| errors::of_group(&error))
}

async fn forget(context: &Context, group: &group::Name) -> Result<(), ErrorCode> {
    let forgotten = context.services().shares.forget(group, None).await;
    forgotten.map_err(|error| errors::of_share(&error))
}
