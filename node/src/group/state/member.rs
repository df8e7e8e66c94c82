//! A member of a group.

use super::super::request::{Join, JoinedMember, Name, Protocol};
use super::super::store::MemberMetadata;
use super::CallId;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// - `id` is its key in the group.
/// - At most one of `joining` and `syncing` is set.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: Name,
    pub(super) instance: Option<Name>,
    pub(super) client_id: Name,
    pub(super) client_host: Name,
    /// The one it likes best first.
    pub(super) protocols: Vec<Protocol>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) assignment: Bytes,
    /// It waits for its generation to begin.
    pub(super) joining: Option<CallId>,
    /// It waits for its assignment.
    pub(super) syncing: Option<CallId>,
    /// It has not been told yet that it is a member.
    pub(super) is_new: bool,
    /// When it must have been heard of again.
    pub(super) deadline: Option<Instant>,
    /// When that is looked at: never behind `deadline`.
    pub(super) looked_at: Option<Instant>,
}

impl Member {
    pub(super) fn joining(join: &Join, id: Name, call: CallId) -> Self {
        Self {
            id,
            instance: join.who.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            protocols: join.protocols.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            assignment: Bytes::new(),
            joining: Some(call),
            syncing: None,
            is_new: true,
            deadline: None,
            looked_at: None,
        }
    }

    pub(super) fn restored(kept: MemberMetadata, protocol: Option<&Name>) -> Self {
        let protocol = protocol.map(|name| Protocol {
            name: name.clone(),
            metadata: kept.subscription,
        });
        Self {
            id: kept.member,
            instance: kept.instance,
            client_id: kept.client_id,
            client_host: kept.client_host,
            protocols: protocol.into_iter().collect(),
            session_timeout: milliseconds(kept.session_timeout_ms),
            rebalance_timeout: milliseconds(kept.rebalance_timeout_ms),
            assignment: kept.assignment,
            joining: None,
            syncing: None,
            is_new: false,
            deadline: None,
            looked_at: None,
        }
    }

    /// As it is kept, with `assignment` in place of its own.
    pub(super) fn kept(&self, protocol: Option<&Name>, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: whole_ms(self.rebalance_timeout),
            session_timeout_ms: whole_ms(self.session_timeout),
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    /// For the leader, which assigns.
    pub(super) fn shown(&self, protocol: Option<&Name>) -> JoinedMember {
        JoinedMember {
            member: self.id.clone(),
            instance: self.instance.clone(),
            metadata: self.metadata(protocol),
        }
    }

    /// What it says for a protocol.
    pub(super) fn metadata(&self, protocol: Option<&Name>) -> Bytes {
        let found = self
            .protocols
            .iter()
            .find(|supported| Some(&supported.name) == protocol);
        found.map(|found| found.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols
            .iter()
            .any(|supported| &*supported.name == protocol)
    }

    /// Whether it cannot be expected to be heard of: we owe it an answer. One that was never told of its membership
    /// may be gone all the same.
    pub(super) fn is_owed(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }
}

fn milliseconds(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

fn whole_ms(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
