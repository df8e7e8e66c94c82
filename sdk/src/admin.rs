//! [`Admin`]: topics, their settings and their offsets, where replicas are, who is a member, consumer
//! groups, share groups and transactions.
//!
//! Owns nothing; it turns calls into requests to the right broker and tries again where that is harmless. A
//! change whose outcome is not known is never sent twice.

mod configs;
mod coordinator;
mod features;
mod groups;
mod members;
mod offsets;
mod producers;
mod reassignments;
mod shares;
mod topics;
mod transactions;

use std::time::Duration;

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::describe_cluster::DescribeClusterRequest;
use headwater_protocol::kafka::{ErrorCode, Request};

pub use self::configs::{ConfigChange, ConfigEntry, ConfigResource};
pub(crate) use self::coordinator::{Coordinated, find_coordinator};
pub use self::features::{FeatureDescription, FeatureLevels, FeatureUpdate, FeatureWay};
pub use self::groups::{CommittedOffset, GroupDescription, GroupKind, GroupListing, GroupMember};
pub(crate) use self::groups::{Committer, by_topic};
pub use self::members::{QuorumDescription, QuorumReplica};
pub(crate) use self::offsets::list_offsets;
pub use self::offsets::{Isolation, ListedOffset, OffsetSpec};
pub use self::producers::ActiveProducer;
pub use self::reassignments::{Election, OngoingReassignment, Reassignment};
pub use self::shares::ShareGroupOffset;
pub use self::topics::NewTopic;
pub use self::transactions::{
    OpenTransaction, ProducerIdentity, TransactionDescription, TransactionFilter, TransactionListing,
};
use crate::client::{Client, Target};
use crate::door;
use crate::error::Error;
use crate::routing::Broker;

/// Administers a cluster. Cheap to clone.
///
/// - A call takes no longer than the client's request timeout, retries included.
/// - A dropped future leaves a change made or not made.
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

/// The brokers of a cluster and who controls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    pub cluster_id: String,
    pub controller: Option<NodeId>,
    pub brokers: Vec<(NodeId, Broker)>,
}

/// Whether a request may be sent again when its outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Question,
    Change,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Who is in the cluster, as it says itself.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let request = DescribeClusterRequest {
            endpoint_type: 1,
            ..Default::default()
        };
        self.ask(
            Kind::Question,
            Target::Any,
            "describe cluster",
            &request,
            |answer| {
                if answer.error_code != ErrorCode::NONE.0 {
                    return Err(Error::refused(
                        "describe cluster",
                        answer.error_code,
                        answer.error_message.as_deref(),
                    ));
                }
                let brokers = answer.brokers.iter().filter_map(|broker| {
                    let port = u16::try_from(broker.port).ok()?;
                    let rack = broker.rack.as_ref().map(ToString::to_string);
                    Some((
                        NodeId(broker.broker_id),
                        Broker {
                            host: broker.host.to_string(),
                            port,
                            rack,
                        },
                    ))
                });
                Ok(ClusterDescription {
                    cluster_id: answer.cluster_id.to_string(),
                    controller: (answer.controller_id >= 0).then_some(NodeId(answer.controller_id)),
                    brokers: brokers.collect(),
                })
            },
        )
        .await
    }

    /// Sends any request of the protocol to some broker, once: the way to what this type has no word for.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, Error> {
        self.client.call(Target::Any, request, self.timeout()).await
    }

    /// As [`Admin::call`], to one broker.
    pub async fn call_node<R: Request>(&self, node: NodeId, request: &R) -> Result<R::Response, Error> {
        self.client
            .call(Target::Node(node), request, self.timeout())
            .await
    }

    fn timeout(&self) -> Duration {
        self.client.config().request_timeout
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout().as_millis()).unwrap_or(i32::MAX)
    }

    /// Asks until `read` accepts the answer, the failure is final, or the time is up.
    async fn ask<R: Request, T>(
        &self,
        kind: Kind,
        target: Target,
        what: &str,
        request: &R,
        mut read: impl FnMut(R::Response) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let timeout = self.timeout();
        let deadline = door::now() + timeout;
        for failures in 1.. {
            let left = deadline.saturating_duration_since(door::now());
            let failure = match self.client.call(target, request, left).await.and_then(&mut read) {
                Ok(done) => return Ok(done),
                Err(failure) if !may_try_again(kind, &failure) => return Err(failure),
                Err(failure) => failure,
            };
            self.rest(what, failure, failures, deadline).await?;
        }
        unreachable!("a call ends with an answer or with its time")
    }

    /// Waits before the next attempt; the last failure, if there is no time for one.
    async fn rest(
        &self,
        what: &str,
        failure: Error,
        failures: u32,
        deadline: door::Instant,
    ) -> Result<(), Error> {
        let pause = self.client.config().backoff.pause(failures, door::random_u64());
        if door::now() + pause >= deadline {
            return Err(Error::TimedOut {
                what: what.to_owned(),
                timeout: self.timeout(),
                last: failure.to_string(),
            });
        }
        door::sleep_until(door::now() + pause).await;
        // The controller may have moved. When nobody can be reached the next attempt says so.
        let _ = self.client.metadata().refresh().await;
        Ok(())
    }
}

fn may_try_again(kind: Kind, failure: &Error) -> bool {
    let known_undone = match failure {
        Error::Call(_) | Error::TimedOut { .. } => false,
        // The controller knows every topic: what it does not know will not come by asking again.
        Error::Refused { code, .. }
            if *code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && kind == Kind::Change =>
        {
            false
        }
        Error::Refused { code, .. } => *code != ErrorCode::REQUEST_TIMED_OUT,
        _ => true,
    };
    failure.is_retriable() && (known_undone || kind == Kind::Question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{CallError, CloseReason};

    #[test]
    fn a_change_is_not_sent_twice_unless_the_first_surely_did_nothing() {
        let lost = Error::Call(CallError::Closed(CloseReason::EndOfStream));
        let moved = Error::refused("x", ErrorCode::NOT_CONTROLLER.0, None);
        let late = Error::refused("x", ErrorCode::REQUEST_TIMED_OUT.0, None);
        let exists = Error::refused("x", ErrorCode::TOPIC_ALREADY_EXISTS.0, None);
        let unknown = Error::refused("x", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0, None);
        let check = |failure: &Error, question, change| {
            assert_eq!(may_try_again(Kind::Question, failure), question, "{failure}");
            assert_eq!(may_try_again(Kind::Change, failure), change, "{failure}");
        };
        check(&lost, true, false);
        check(&moved, true, true);
        check(&late, true, false);
        check(&exists, false, false);
        check(&unknown, true, false);
    }
}
