//! ListGroups (key 16): the groups that this node coordinates; a client asks every node.

use headwater_protocol::kafka::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use headwater_protocol::primitives::Str;

use super::groups;
use crate::group::Listed;
use crate::server::request::Context;

/// From these versions on the answer has the state, and the type.
const STATE_SINCE: i16 = 4;
const TYPE_SINCE: i16 = 5;

pub(in crate::server) async fn handle(context: &Context, request: ListGroupsRequest) -> ListGroupsResponse {
    let (listed, complete) = context.services().groups.list().await;
    let named = |filter: &[Str], name: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let is_wanted = |group: &Listed| {
        named(&request.states_filter, group.stage.name()) && named(&request.types_filter, group.kind.name())
    };
    let wanted = listed.into_iter().filter(is_wanted);
    ListGroupsResponse {
        error_code: groups::code(&complete),
        groups: wanted.map(|group| told(context.version, &group)).collect(),
        ..ListGroupsResponse::default()
    }
}

fn told(version: i16, group: &Listed) -> ListedGroup {
    let text = |since: i16, text: &'static str| {
        if version >= since {
            Str::from_static(text)
        } else {
            Str::default()
        }
    };
    ListedGroup {
        group_id: Str::from(&*group.group),
        protocol_type: Str::from(&*group.protocol_type),
        group_state: text(STATE_SINCE, group.stage.name()),
        group_type: text(TYPE_SINCE, group.kind.name()),
        ..ListedGroup::default()
    }
}
