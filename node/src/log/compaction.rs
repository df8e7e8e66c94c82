//! Compaction: of the records with one key the last one stays, at the offset it has.
//!
//! Owns one pass of the cleaner over a log, in steps that whoever calls spaces out. First it notes the newest offset of
//! each key in what is not compacted yet, as far as its memory reaches. Then it reads the log from its front up to there,
//! writes what stays into new files, several small segments into one, and hands each of them over to take its place.
//!
//! ```text
//! <base>.cleaned   written, synced, read again; its indexes beside it    a crash: removed at the next start
//! <base>.swap      the same; from here on it counts                     a crash: put in place at the next start
//! <base>.log ...   of the segments it replaces -> .deleted                   the same
//! <base>.swap      -> <base>.log, and its indexes                         done, with a sync of the folder
//! ```
//!
//! It touches whole segments only: none that is appended to, that was not synced, or that holds anything not committed.
//! The rules for records are `judge`'s.

mod judge;
mod map;
mod pass;
mod swap;
mod transactions;
mod writer;

pub use pass::Cleaning;
pub use swap::Replacement;
pub use transactions::Aborted;

pub(super) use swap::{Clean, finish};

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use headwater_protocol::ids::{Offset, ProducerId};
use headwater_protocol::record::{BatchHeader, HEADER_BYTES};

use super::damage::{corrupt, failed};
use super::error::ReadError;
use super::reader::LogReader;
use super::segment::Segment;

/// One step reads about as much.
const STEP_BYTES: u64 = 1 << 20;

/// How much of a log is not compacted, of what may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirt {
    /// Where it begins, and where it ends.
    pub from: Offset,
    pub until: Offset,
    pub clean_bytes: u64,
    pub dirty_bytes: u64,
    /// A record has stayed uncompacted for as long as it may.
    pub is_overdue: bool,
}

/// What decides how much may be compacted.
#[derive(Debug, Clone, Copy)]
pub struct DirtRules {
    /// Nothing at this offset or behind it: it is not committed, or not stable.
    pub until: Offset,
    /// `min.compaction.lag.ms`
    pub lag_min_ms: i64,
    /// `max.compaction.lag.ms`. `None`: for ever.
    pub lag_max_ms: Option<i64>,
}

/// What a pass works with.
#[derive(Debug, Clone)]
pub struct CleanOptions {
    /// Memory for keys, 24 bytes each.
    pub map_bytes: usize,
    /// Files are put together up to this size.
    pub segment_bytes: u64,
    /// `delete.retention.ms`: how long tombstones stay once they are the last of their keys.
    pub delete_retention_ms: i64,
    /// The last record of each producer that is remembered.
    pub producers: BTreeMap<ProducerId, Offset>,
    /// What is dropped whatever its key is.
    pub aborted: Vec<Aborted>,
}

/// Why a pass has ended early. The log is as it was, or as the last replacement left it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CleanError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Begin again.
    #[error("the log was cut, trimmed or repaired meanwhile")]
    Changed,
    /// Try again when there is room.
    #[error("disk full: {bytes} bytes are needed to compact")]
    Full { bytes: u64 },
    #[error("cannot write what is left of segment {base}: {cause}")]
    Write { base: Offset, cause: Arc<io::Error> },
    #[error("the batch at offset {at} cannot be read: {reason}")]
    Batch { at: Offset, reason: String },
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Up to here the log is compacted once the last replacement is in place.
    pub until: Offset,
    /// Of the segments that were read to be written anew, and what is left of them.
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub records_before: u64,
    pub records_after: u64,
}

/// How far a pass is.
#[derive(Debug)]
pub enum Progress {
    /// So many bytes were read.
    Working(u64),
    /// For [`super::Log::replace`].
    Ready(Box<Replacement>),
    /// For [`super::Log::note_clean`], if everything was put in place.
    Over(Summary),
}

impl Dirt {
    /// How much of it is dirty, in millionths.
    pub fn ratio_millionths(&self) -> u32 {
        let all = u128::from(self.clean_bytes) + u128::from(self.dirty_bytes);
        let ratio = (u128::from(self.dirty_bytes) * 1_000_000).checked_div(all);
        ratio.map_or(0, |ratio| ratio as u32)
    }
}

impl LogReader {
    /// How dirty the log is. May read an index of each dirty segment.
    pub fn dirt(&self, rules: &DirtRules) -> Result<Dirt, ReadError> {
        let shared = &self.shared;
        let _uncut = shared.uncut();
        let segments = shared.segments.load();
        let (now_ms, from) = (
            shared.logs.clock.unix_ms(),
            shared.clean.until().max(self.start()),
        );
        let mut dirt = Dirt {
            from,
            until: from,
            clean_bytes: 0,
            dirty_bytes: 0,
            is_overdue: false,
        };
        let bound = rules.until.min(self.recovery_point());
        let closed = &segments[..segments.len() - 1];
        for segment in closed.iter().take_while(|segment| segment.next() <= bound) {
            if segment.next() <= from {
                dirt.clean_bytes += segment.bytes();
                continue;
            }
            let failed = |cause| failed(segment, cause);
            if rules.lag_min_ms > 0
                && segment.max_timestamp().map_err(failed)? > now_ms.saturating_sub(rules.lag_min_ms)
            {
                break;
            }
            if let Some(lag_max_ms) = rules.lag_max_ms
                && segment.bytes() > 0
            {
                let first = first_header(segment)?;
                let age = now_ms.saturating_sub(first.max_timestamp);
                dirt.is_overdue |= first.max_timestamp >= 0 && age > lag_max_ms;
            }
            dirt.dirty_bytes += segment.bytes();
            dirt.until = segment.next();
        }
        Ok(dirt)
    }

    /// Up to here the log is compacted, at least in part: a record before it may be gone for the sake of another one that
    /// lies before it.
    pub fn compacted_until(&self) -> Offset {
        self.shared.clean.reached()
    }

    /// Whether a batch at `offset` may not be what was appended there: the log was compacted, and not only behind it.
    pub fn may_be_compacted(&self, offset: Offset) -> bool {
        let shared = &self.shared;
        let active = shared.segments.load().last().map(|segment| segment.base());
        shared.clean.is_noted() && active.is_some_and(|active| offset < active)
    }
}

fn first_header(segment: &Segment) -> Result<BatchHeader, ReadError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let file = segment.file().map_err(|cause| failed(segment, cause))?;
    file.read_at(0, &mut bytes, HEADER_BYTES)
        .map_err(|cause| failed(segment, cause))?;
    BatchHeader::parse(&bytes).map_err(|error| corrupt(segment, (0, error)))
}
