//! Why a log refuses. Each error says whether trying again can help; none knows a wire code.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use headwater_protocol::ids::{LeaderEpoch, Offset};

/// A write or a sync failed in a way that leaves the file's content in doubt. Nothing is appended any more
/// until the log is opened anew, which finds out what is really there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("log is not trusted any more since its {action} failed: {cause}")]
pub struct Broken {
    pub action: &'static str,
    pub cause: Arc<io::Error>,
}

/// A part of a log that is not what was written there: a segment, or the place of one that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Where the segment begins, and what follows it.
    pub from: Offset,
    pub until: Offset,
    /// Where in the file.
    pub position: u64,
    pub reason: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            until,
            position,
            reason,
        } = self;
        write!(
            f,
            "offsets {from} to {until} are damaged at position {position}: {reason}"
        )
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {action} {path}: {cause}")]
    Io {
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
}

/// Why nothing was appended. The log is as it was before the call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Try again when there is room: reads go on, and nothing else is needed.
    #[error("disk full: {bytes} bytes not appended")]
    Full { bytes: u64 },
    #[error("leader epoch {asked} is over, the log has reached {current}")]
    StaleEpoch {
        asked: LeaderEpoch,
        current: LeaderEpoch,
    },
    #[error("a copy must go on at {expected}, the batch starts at {found}")]
    NotContiguous { expected: Offset, found: Offset },
    #[error("{bytes} bytes do not fit any segment")]
    TooLarge { bytes: u64 },
    #[error(transparent)]
    Broken(#[from] Arc<Broken>),
}

/// Why nothing was read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("offset {asked} is outside of {start} to {end}")]
    OutOfRange {
        asked: Offset,
        start: Offset,
        end: Offset,
    },
    /// What lies there is not what was written. The records behind it are still there.
    #[error("{0}")]
    Corrupt(Damaged),
    #[error("cannot read segment {segment}: {cause}")]
    Io { segment: Offset, cause: Arc<io::Error> },
    /// The node is going down.
    #[error("the read was given up")]
    Stopped,
}

/// Why the log's range could not be changed. After `Broken`, open it anew.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    #[error("offset {asked} is outside of {start} to {end}")]
    OutOfRange {
        asked: Offset,
        start: Offset,
        end: Offset,
    },
    /// Try again when there is room.
    #[error("disk full")]
    Full,
    #[error(transparent)]
    Broken(#[from] Arc<Broken>),
}

impl ChangeError {
    /// Of a write that a change begins with: it appends nothing, so only a lack of room keeps it from a log that is whole.
    pub(super) fn of(error: AppendError) -> Self {
        match error {
            AppendError::Broken(broken) => Self::Broken(broken),
            _ => Self::Full,
        }
    }
}
