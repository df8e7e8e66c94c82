//! What is not there any more, or not as it was written: how a read that fails says so.
//!
//! Owns the judgement what is damage, what a failing device, and what the source left out. It must never call a gap that
//! was appended a loss.

use std::io;
use std::sync::Arc;

use headwater_protocol::ids::Offset;

use super::error::{Damaged, ReadError};
use super::scan::Damage;
use super::segment::Segment;

/// Between two segments offsets are missing only where an append left out nearly as many as a segment can span; see
/// `Log::must_roll`. Anything less is a loss.
const GAP_MIN: i64 = 1 << 30;

/// The loss of what should lie between `from` and `until`, if it is one.
pub(super) fn loss(from: Offset, until: Offset) -> Option<Damaged> {
    let is_loss = from < until && until.since(from) < GAP_MIN;
    is_loss.then(|| Damaged {
        from,
        until,
        position: 0,
        reason: "the records are missing".to_owned(),
    })
}

/// The loss of what should lie behind the last batch of a segment, if there is one.
pub(super) fn behind(segment: &Segment) -> Result<Option<Damaged>, ReadError> {
    let end = segment.stored_end().map_err(|cause| failed(segment, cause))?;
    Ok(loss(end, segment.next()))
}

/// A call failed: for want of good bytes, or by the device.
pub(super) fn failed(segment: &Segment, cause: io::Error) -> ReadError {
    match cause.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound => corrupt(segment, (0, cause)),
        _ => ReadError::Io {
            segment: segment.base(),
            cause: Arc::new(cause),
        },
    }
}

/// A segment holds something else than what was written.
pub(super) fn corrupt(segment: &Segment, found: impl Into<Found>) -> ReadError {
    ReadError::Corrupt(damaged(segment, found))
}

pub(super) fn damaged(segment: &Segment, found: impl Into<Found>) -> Damaged {
    let Found { position, reason } = found.into();
    Damaged {
        from: segment.base(),
        until: segment.next(),
        position,
        reason,
    }
}

/// Where in a file, and what.
pub(super) struct Found {
    position: u64,
    reason: String,
}

impl From<Damage> for Found {
    fn from(Damage { position, reason }: Damage) -> Self {
        Self { position, reason }
    }
}

impl<T: ToString> From<(u64, T)> for Found {
    fn from((position, reason): (u64, T)) -> Self {
        let reason = reason.to_string();
        Self { position, reason }
    }
}
