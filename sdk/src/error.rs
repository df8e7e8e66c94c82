//! What a client, a consumer or an admin call can fail with.
//!
//! Owns the words: each error says what happened, to what, and what to do. It must never hide whether the
//! broker may have acted.

use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use thiserror::Error;

use crate::config::ConfigError;
use crate::connection::CallError;
use crate::transport::DialError;

/// A call of the client failed.
#[derive(Debug, Clone, Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no broker could be reached: {}", list(.0))]
    Unreachable(Vec<DialError>),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Call(#[from] CallError),
    /// The broker understood and refused.
    #[error("{what}: {code}{}", explained(.message))]
    Refused {
        what: String,
        code: ErrorCode,
        message: Option<String>,
    },
    #[error(
        "topic {0:?} does not exist; create it with Admin::create_topic, or set Config::auto_create_topics"
    )]
    UnknownTopic(String),
    #[error("topic {topic:?} has {count} partitions, there is no partition {partition}")]
    UnknownPartition {
        topic: String,
        partition: PartitionIndex,
        count: usize,
    },
    #[error("partition {partition} of {topic:?} has no leader at the moment")]
    NoLeader {
        topic: String,
        partition: PartitionIndex,
    },
    #[error("{what} did not succeed within {} ms; last: {last}", timeout.as_millis())]
    TimedOut {
        what: String,
        timeout: Duration,
        last: String,
    },
    /// The position is not in the log any more, or not yet, and the policy is to say so.
    #[error(
        "offset {offset} of {topic:?} partition {partition} is out of range; seek, or choose a reset policy"
    )]
    OffsetOutOfRange {
        topic: String,
        partition: PartitionIndex,
        offset: Offset,
    },
    /// A batch does not match its checksum, or is malformed. Reading stays before it.
    #[error("the batch at offset {offset} of {topic:?} partition {partition} is corrupt: {cause}")]
    Corrupt {
        topic: String,
        partition: PartitionIndex,
        offset: Offset,
        cause: headwater_protocol::record::Error,
    },
    #[error("{0}")]
    Usage(&'static str),
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Dial(_) | Self::NoLeader { .. } | Self::TimedOut { .. } => true,
            Self::Call(cause) => cause.is_retriable(),
            Self::Refused { code, .. } => code.is_retriable(),
            Self::Config(_)
            | Self::UnknownTopic(_)
            | Self::UnknownPartition { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::Corrupt { .. }
            | Self::Usage(_)
            | Self::Closed => false,
        }
    }

    /// The broker's code, if a broker refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn refused(what: impl Into<String>, code: i16, message: Option<&str>) -> Self {
        Self::Refused {
            what: what.into(),
            code: ErrorCode(code),
            message: message.filter(|message| !message.is_empty()).map(str::to_owned),
        }
    }
}

fn list(causes: &[DialError]) -> String {
    causes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn explained(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"))
}
