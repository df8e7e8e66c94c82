//! Why a group refuses. Each says whose fault it is and whether asking again helps; only the edge turns it into a wire code.

use std::sync::Arc;

/// Why a request about a group came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Another node coordinates the group, or soon will: find the coordinator again.
    #[error("this node does not coordinate the group")]
    NotCoordinator,
    /// Ask again.
    #[error("the group's partition is being read")]
    Loading,
    /// Nothing could be written, or the group is being deleted: ask again.
    #[error("the group's coordinator cannot write at the moment")]
    NotAvailable,
    #[error("a group's id cannot be empty")]
    InvalidGroupId,
    #[error("a name of {bytes} bytes is longer than {max}")]
    NameTooLong { bytes: usize, max: usize },
    #[error(
        "the session timeout is outside of group.min.session.timeout.ms and group.max.session.timeout.ms"
    )]
    InvalidSessionTimeout,
    #[error("the group does not know the member")]
    UnknownMember,
    /// Another process has taken over the static member (KIP-345).
    #[error("another member has this instance id by now")]
    FencedInstance,
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the group's members have no protocol in common with this one")]
    InconsistentProtocol,
    /// Join again by the id that is told here (KIP-394).
    #[error("join again as {0}")]
    MemberIdRequired(Arc<str>),
    #[error("the group has as many members as it may have")]
    GroupFull,
    #[error("{0}")]
    InvalidRequest(&'static str),
    #[error("the assignor is none of group.consumer.assignors")]
    UnsupportedAssignor,
    #[error("the regular expression is not valid: {0}")]
    InvalidRegex(Arc<str>),
    /// The member is to give everything up and join again (KIP-848).
    #[error("the member's epoch is not the one that it was told")]
    FencedEpoch,
    /// The member is to learn its epoch by its next heartbeat, and ask again.
    #[error("the member has another epoch by now")]
    StaleEpoch,
    #[error("a static member that has not left has this instance id")]
    UnreleasedInstance,
    #[error("members of the consumer protocol commit by version 9 or newer")]
    CommitTooOld,
    #[error("the group's members use another protocol")]
    OtherProtocol,
    #[error("the transaction of the commit is over, or its producer was replaced")]
    Fenced,
    /// Ask again.
    #[error("commits of the partition wait for the end of their transaction")]
    Unstable,
    #[error("there is no such group")]
    GroupNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group's members are subscribed to the topic")]
    SubscribedToTopic,
    #[error("the metadata of the commit is larger than offset.metadata.max.bytes")]
    MetadataTooLarge,
    #[error("the commit is larger than the offsets topic takes")]
    CommitTooLarge,
    /// The members' subscriptions and assignments together are larger than the offsets topic takes.
    #[error("the group is larger than the offsets topic takes")]
    GroupTooLarge,
}

/// Why records of a group were not appended; nothing of them is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendRefused {
    /// It may go later: too few replicas in sync, or a full disk.
    NotNow,
    TooLarge,
    /// The transaction is over, or its producer was replaced.
    Fenced,
}
