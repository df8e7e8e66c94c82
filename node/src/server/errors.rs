//! What went wrong below, in the codes of the protocol. The only place where the edge maps errors.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::ErrorCode;

use crate::controller::ProposeError;
use crate::group::GroupError;
use crate::metadata::{Topic, View};
use crate::partition::{AppendError, EpochError, LookupError, ReadError, TicketError, Unavailable};
use crate::share::ShareError;

/// Why there is no partition to ask here, by what the metadata says of it.
pub(super) fn absent(topic: Option<&Topic>, index: i32, me: NodeId) -> ErrorCode {
    let state = topic.and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?));
    match state {
        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        // It leads here and is not opened yet: clients ask again.
        Some(state) if state.leader == me => ErrorCode::LEADER_NOT_AVAILABLE,
        Some(_) => ErrorCode::NOT_LEADER_OR_FOLLOWER,
    }
}

/// As `absent`, for a topic by name.
pub(super) fn absent_name(view: &View, topic: &str, index: i32, me: NodeId) -> ErrorCode {
    absent(view.topic(topic).as_deref(), index, me)
}

/// Whether the client should go to another node, which the answer may name.
pub(super) fn is_elsewhere(code: ErrorCode) -> bool {
    code == ErrorCode::NOT_LEADER_OR_FOLLOWER || code == ErrorCode::FENCED_LEADER_EPOCH
}

fn of_epoch(error: &EpochError) -> ErrorCode {
    match error {
        EpochError::Fenced { .. } => ErrorCode::FENCED_LEADER_EPOCH,
        EpochError::Unknown { .. } => ErrorCode::UNKNOWN_LEADER_EPOCH,
    }
}

pub(super) fn of_append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader | AppendError::Stopped => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        AppendError::Epoch(epoch) => of_epoch(epoch),
        AppendError::Corrupt { .. } => ErrorCode::CORRUPT_MESSAGE,
        AppendError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        AppendError::UnsupportedFormat { .. } | AppendError::InvalidRecord { .. } => {
            ErrorCode::INVALID_RECORD
        }
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
        AppendError::InvalidTimestamp { .. } => ErrorCode::INVALID_TIMESTAMP,
        AppendError::UnsupportedCompression { .. } => ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        AppendError::InvalidTransaction(_) => ErrorCode::INVALID_TXN_STATE,
        AppendError::CoordinatorFenced { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NOT_ENOUGH_REPLICAS,
        AppendError::ReadOnlyMirror { .. } => ErrorCode::POLICY_VIOLATION,
        AppendError::Internal => ErrorCode::INVALID_TOPIC_EXCEPTION,
        AppendError::NotContiguous { .. } => ErrorCode::UNKNOWN_SERVER_ERROR,
        AppendError::DiskFull | AppendError::Offline { .. } | AppendError::Unread { .. } => {
            ErrorCode::KAFKA_STORAGE_ERROR
        }
        AppendError::Unacknowledged(ticket) => of_ticket(ticket),
    }
}

fn of_ticket(error: &TicketError) -> ErrorCode {
    match error {
        TicketError::NotEnoughReplicas => ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        TicketError::Offline { .. } => ErrorCode::KAFKA_STORAGE_ERROR,
        TicketError::NotLeader | TicketError::Stopped => ErrorCode::NOT_LEADER_OR_FOLLOWER,
    }
}

pub(super) fn of_unavailable(error: &Unavailable) -> ErrorCode {
    match error {
        Unavailable::NotLeader | Unavailable::Stopped => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        Unavailable::Epoch(epoch) => of_epoch(epoch),
        Unavailable::Offline { .. } => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

pub(super) fn of_read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::Unavailable(why) => of_unavailable(why),
        ReadError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        ReadError::NotYet { .. } => ErrorCode::OFFSET_NOT_AVAILABLE,
        // A client gives up on CORRUPT_MESSAGE, and comes back after a storage error: the record is repaired meanwhile.
        ReadError::Corrupt { .. } => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

pub(super) fn of_lookup(error: &LookupError) -> ErrorCode {
    match error {
        LookupError::Unavailable(why) => of_unavailable(why),
        LookupError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        LookupError::NotAvailable => ErrorCode::OFFSET_NOT_AVAILABLE,
        LookupError::Refused(_) => ErrorCode::POLICY_VIOLATION,
    }
}

pub(super) fn of_propose(error: &ProposeError) -> ErrorCode {
    match error {
        ProposeError::TopicExists(_) => ErrorCode::TOPIC_ALREADY_EXISTS,
        ProposeError::InvalidTopicName { .. } => ErrorCode::INVALID_TOPIC_EXCEPTION,
        ProposeError::InvalidPartitions(_) => ErrorCode::INVALID_PARTITIONS,
        ProposeError::InvalidReplicationFactor { .. } => ErrorCode::INVALID_REPLICATION_FACTOR,
        ProposeError::InvalidAssignment(_) => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
        ProposeError::NoReassignment(_) => ErrorCode::NO_REASSIGNMENT_IN_PROGRESS,
        ProposeError::UnknownTopic(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ProposeError::UnknownTopicId(_) => ErrorCode::UNKNOWN_TOPIC_ID,
        ProposeError::InvalidConfig(_) => ErrorCode::INVALID_CONFIG,
        ProposeError::Unknown { .. } => ErrorCode::RESOURCE_NOT_FOUND,
        ProposeError::Exists { .. } => ErrorCode::DUPLICATE_RESOURCE,
        ProposeError::InvalidLevel { .. } => ErrorCode::INVALID_UPDATE_VERSION,
        ProposeError::UnsupportedVersion(_) => ErrorCode::UNSUPPORTED_VERSION,
        ProposeError::InUse { .. } | ProposeError::Refused(_) => ErrorCode::POLICY_VIOLATION,
        ProposeError::NotController | ProposeError::Stopped => ErrorCode::NOT_CONTROLLER,
        ProposeError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        ProposeError::TimedOut(_) => ErrorCode::REQUEST_TIMED_OUT,
        ProposeError::StaleNode { .. } => ErrorCode::STALE_BROKER_EPOCH,
        ProposeError::StaleLeader { .. } => ErrorCode::FENCED_LEADER_EPOCH,
        ProposeError::StalePartition { .. } => ErrorCode::INVALID_UPDATE_VERSION,
        ProposeError::IneligibleReplica(_) => ErrorCode::INELIGIBLE_REPLICA,
    }
}

pub(super) fn of_share(error: &ShareError) -> ErrorCode {
    match error {
        ShareError::SessionNotFound => ErrorCode::SHARE_SESSION_NOT_FOUND,
        ShareError::InvalidSessionEpoch => ErrorCode::INVALID_SHARE_SESSION_EPOCH,
        ShareError::SessionLimit => ErrorCode::SHARE_SESSION_LIMIT_REACHED,
        ShareError::InvalidState => ErrorCode::INVALID_RECORD_STATE,
        ShareError::NotLeader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ShareError::NotAvailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ShareError::NoGroup => ErrorCode::GROUP_ID_NOT_FOUND,
    }
}

pub(super) fn of_group(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::NotCoordinator => ErrorCode::NOT_COORDINATOR,
        GroupError::Loading => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        GroupError::NotAvailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        GroupError::InvalidGroupId => ErrorCode::INVALID_GROUP_ID,
        GroupError::NameTooLong { .. } => ErrorCode::INVALID_REQUEST,
        GroupError::InvalidSessionTimeout => ErrorCode::INVALID_SESSION_TIMEOUT,
        GroupError::UnknownMember => ErrorCode::UNKNOWN_MEMBER_ID,
        GroupError::FencedInstance => ErrorCode::FENCED_INSTANCE_ID,
        GroupError::IllegalGeneration => ErrorCode::ILLEGAL_GENERATION,
        GroupError::RebalanceInProgress => ErrorCode::REBALANCE_IN_PROGRESS,
        GroupError::InconsistentProtocol => ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        GroupError::MemberIdRequired(_) => ErrorCode::MEMBER_ID_REQUIRED,
        GroupError::GroupFull => ErrorCode::GROUP_MAX_SIZE_REACHED,
        GroupError::InvalidRequest(_) => ErrorCode::INVALID_REQUEST,
        GroupError::UnsupportedAssignor => ErrorCode::UNSUPPORTED_ASSIGNOR,
        GroupError::InvalidRegex(_) => ErrorCode::INVALID_REGULAR_EXPRESSION,
        GroupError::FencedEpoch => ErrorCode::FENCED_MEMBER_EPOCH,
        GroupError::StaleEpoch => ErrorCode::STALE_MEMBER_EPOCH,
        GroupError::UnreleasedInstance => ErrorCode::UNRELEASED_INSTANCE_ID,
        GroupError::CommitTooOld => ErrorCode::UNSUPPORTED_VERSION,
        GroupError::OtherProtocol => ErrorCode::GROUP_ID_NOT_FOUND,
        GroupError::Fenced => ErrorCode::INVALID_PRODUCER_EPOCH,
        GroupError::Unstable => ErrorCode::UNSTABLE_OFFSET_COMMIT,
        GroupError::GroupNotFound => ErrorCode::GROUP_ID_NOT_FOUND,
        GroupError::NonEmptyGroup => ErrorCode::NON_EMPTY_GROUP,
        GroupError::SubscribedToTopic => ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC,
        GroupError::MetadataTooLarge => ErrorCode::OFFSET_METADATA_TOO_LARGE,
        GroupError::CommitTooLarge => ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
        GroupError::GroupTooLarge => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}
