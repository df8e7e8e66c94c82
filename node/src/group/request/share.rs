//! What members of share groups say and are told (KIP-932): values without wire formats.

use super::{Assignment, Epoch, Name, Stage};
use crate::group::error::GroupError;
use std::collections::BTreeSet;

/// How partitions are dealt out in share groups, as Kafka calls it: there is one way only.
pub const SHARE_ASSIGNOR: &str = "simple";

/// A member is there. What is absent has not changed since it was said last.
#[derive(Debug, Clone)]
pub struct ShareHeartbeat {
    pub group: Name,
    /// Chosen by the client.
    pub member: Name,
    pub epoch: Epoch,
    pub rack: Option<Name>,
    pub client_id: Name,
    pub client_host: Name,
    pub topics: Option<BTreeSet<Name>>,
}

impl ShareHeartbeat {
    /// Whether it may be asked at all, whatever the group.
    pub(in crate::group) fn check(&self) -> Result<(), GroupError> {
        let blank = |text: &str| text.trim().is_empty();
        let wrong = if blank(&self.member) {
            "a member id is needed"
        } else if blank(&self.group) {
            "a group id is needed"
        } else if self.rack.as_deref().is_some_and(blank) {
            "a rack cannot be empty"
        } else if self.epoch == Epoch::JOINING && self.topics.as_ref().is_none_or(BTreeSet::is_empty) {
            "who joins says what it subscribes to"
        } else if self.epoch < Epoch::LEAVING {
            "there is no such epoch"
        } else {
            return Ok(());
        };
        Err(GroupError::InvalidRequest(wrong))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareDescription {
    pub group: Name,
    pub stage: Stage,
    pub epoch: Epoch,
    pub assignment_epoch: Epoch,
    pub members: Vec<DescribedSharer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedSharer {
    pub member: Name,
    pub rack: Option<Name>,
    pub epoch: Epoch,
    pub client_id: Name,
    pub client_host: Name,
    pub topics: BTreeSet<Name>,
    pub assigned: Assignment,
}
