//! The way to whoever coordinates a group or a transactional id.
//!
//! Owns finding it, again where it has moved. It must never ask a broker for what that does not coordinate.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::Str;

use super::{Admin, Kind, may_try_again};
use crate::client::{Client, Target};
use crate::door;
use crate::error::Error;

/// The last version in which one coordinator is asked for.
const FIND_ONE_UNTIL: i16 = 3;

/// What a coordinator coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coordinated {
    Group,
    Transaction,
}

impl Coordinated {
    const fn code(self) -> i8 {
        match self {
            Self::Group => 0,
            Self::Transaction => 1,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Transaction => "transactional id",
        }
    }
}

/// What a coordinator is asked.
pub(super) struct Ask<'a> {
    kind: Kind,
    coordinated: Coordinated,
    key: &'a str,
    what: &'a str,
    /// The newest version that has the shape of the request.
    newest: i16,
}

impl<'a> Ask<'a> {
    /// Of a group; it may be sent twice.
    pub(super) fn question(group: &'a str, what: &'a str) -> Self {
        Self {
            kind: Kind::Question,
            coordinated: Coordinated::Group,
            key: group,
            what,
            newest: i16::MAX,
        }
    }

    /// Of a group, and once.
    pub(super) fn change(group: &'a str, what: &'a str) -> Self {
        Self {
            kind: Kind::Change,
            ..Self::question(group, what)
        }
    }

    /// Of a transactional id; it may be sent twice.
    pub(super) fn of_transaction(id: &'a str, what: &'a str) -> Self {
        Self {
            coordinated: Coordinated::Transaction,
            ..Self::question(id, what)
        }
    }

    pub(super) fn up_to(self, newest: i16) -> Self {
        Self { newest, ..self }
    }
}

impl Admin {
    /// Asks the coordinator, and whoever it is then, until `read` accepts the answer, the failure is final, or the time is up.
    pub(super) async fn ask_coordinator<R: Request, T>(
        &self,
        ask: &Ask<'_>,
        request: &R,
        mut read: impl FnMut(NodeId, R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = door::now() + self.timeout();
        for failures in 1.. {
            let left = deadline.saturating_duration_since(door::now());
            let failure = match find_coordinator(&self.client, ask.coordinated, ask.key).await {
                Ok(node) => {
                    let target = Target::Node(node);
                    let answer = self.client.call_up_to(ask.newest, target, request, left).await;
                    match answer.and_then(|answer| read(node, answer)) {
                        Ok(done) => return Ok(done),
                        Err(failure) if !may_try_again(ask.kind, &failure) => return Err(failure),
                        Err(failure) => failure,
                    }
                }
                Err(failure) if !failure.is_retriable() => return Err(failure),
                Err(failure) => failure,
            };
            self.rest(ask.what, failure, failures, deadline).await?;
        }
        unreachable!("a call ends with an answer or with its time")
    }
}

/// The broker that coordinates something, by the word of any.
pub(crate) async fn find_coordinator(
    client: &Client,
    coordinated: Coordinated,
    key: &str,
) -> Result<NodeId, Error> {
    let request = FindCoordinatorRequest {
        key: Str::from(key),
        key_type: coordinated.code(),
        ..FindCoordinatorRequest::default()
    };
    let timeout = client.config().request_timeout;
    let answer = client
        .call_up_to(FIND_ONE_UNTIL, Target::Any, &request, timeout)
        .await?;
    let what = format!("coordinator of {} {key:?}", coordinated.name());
    if answer.error_code != ErrorCode::NONE.0 {
        return Err(Error::refused(
            what,
            answer.error_code,
            answer.error_message.as_deref(),
        ));
    }
    Ok(NodeId(answer.node_id))
}
