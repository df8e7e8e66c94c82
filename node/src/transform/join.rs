//! Joins: what a record of either of two sources meets, and what of both is kept until it is too late to meet anything.
//!
//! It owns the entries of a join, their layout in the changelog, and the time of both sides. It is pure: no clock, no guest, no
//! I/O. What comes of a record depends on the order of the records alone, not on how they are cut into batches.
//!
//! ```text
//! key                                                                            value
//! side, key's length (u32 BE), key                                               of a table: the latest value
//! side, key's length (u32 BE), key, timestamp (i64, order-preserving), offset    of a stream: `stream::Kept`
//! ```

mod stream;
mod table;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::Offset;
use headwater_protocol::record::Headers;

use self::stream::Stream;
use self::table::TableSide;
pub(crate) use self::value::{KeyAt, check_value, put_pair};
use super::changelog::ENTRY_BYTES_MAX;
use crate::metadata::{Join, JoinKind, JoinWith};

/// What an entry costs in memory beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// Times beyond it count as it, so that no bound overflows.
const TIME_MAX_MS: i64 = 1 << 60;

/// Which of the two sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Left, Self::Right];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Left => 0,
            Self::Right => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// As entries name it.
    const fn byte(self) -> u8 {
        match self {
            Self::Left => 1,
            Self::Right => 2,
        }
    }
}

/// A record of one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) side: Side,
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: i64,
    /// What it is joined by. None: it meets nothing.
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

/// What one side has in a pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Half<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) headers: Headers<'a>,
}

/// Two records that met, or one that did not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// The later of both.
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) left: Option<Half<'a>>,
    pub(crate) right: Option<Half<'a>>,
    /// The record that brought it about: the later one to be read, or the one that met nothing.
    pub(crate) of: (Side, Offset),
}

impl<'a> Pair<'a> {
    /// A record and what it met.
    fn new(given: &Given<'a>, own: Half<'a>, met: Option<Half<'a>>, timestamp_ms: i64) -> Self {
        let (left, right) = match given.side {
            Side::Left => (Some(own), met),
            Side::Right => (met, Some(own)),
        };
        Self {
            timestamp_ms,
            key: given.key,
            left,
            right,
            of: (given.side, given.offset),
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in the state, or in a pair, or both.
    Used,
    /// It met nothing and never will.
    Dropped,
    /// It came after everything that it could have met was forgotten.
    Late,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("it takes {bytes} bytes in the join's state, the limit is {ENTRY_BYTES_MAX}")]
    Entry { bytes: usize },
    #[error(
        "the join keeps more than {limit} bytes on this partition: take more partitions, a shorter time within, or a smaller table"
    )]
    State { limit: usize },
}

/// Whoever is told of pairs.
pub(crate) type Tell<'t> = &'t mut dyn FnMut(&Pair<'_>);

/// The join of one partition of both sides.
#[derive(Debug)]
pub(crate) struct Joiner {
    kind: JoinKind,
    with: With,
    store: Store,
    clock_ms: Option<i64>,
}

#[derive(Debug)]
enum With {
    Table(TableSide),
    Stream(Stream),
}

impl Joiner {
    /// Takes up where a committed state left off.
    pub(crate) fn restore(
        join: &Join,
        bytes_max: usize,
        clock_ms: Option<i64>,
        entries: impl IntoIterator<Item = (Arc<[u8]>, Arc<[u8]>)>,
    ) -> Self {
        let mut store = Store::new(bytes_max);
        let mut with = match join.with {
            JoinWith::Table => With::Table(TableSide),
            JoinWith::Stream { within_ms, grace_ms } => With::Stream(Stream::new(within_ms, grace_ms)),
        };
        for (key, value) in entries {
            if let With::Stream(stream) = &mut with {
                stream.remember(&key);
            }
            store.set(key, Some(value));
        }
        store.changes.clear();
        Self {
            kind: join.kind,
            with,
            store,
            clock_ms,
        }
    }

    /// Deals with a record: tells of what comes of it, and keeps what is needed later.
    pub(crate) fn take(&mut self, given: &Given<'_>, tell: Tell<'_>) -> Result<Taken, TakeError> {
        let timestamp_ms = given.timestamp_ms.clamp(-TIME_MAX_MS, TIME_MAX_MS);
        let given = &Given {
            timestamp_ms,
            ..*given
        };
        if let Some(key) = given.key {
            let bytes = key.len() + given.value.map_or(0, <[u8]>::len) + given.headers.encoded().len();
            if bytes + ENTRY_OVERHEAD_BYTES > ENTRY_BYTES_MAX {
                return Err(TakeError::Entry { bytes });
            }
        }
        self.clock_ms = self.clock_ms.max(Some(timestamp_ms));
        let taken = match &mut self.with {
            With::Table(table) => table.take(self.kind, &mut self.store, given, tell),
            With::Stream(stream) => {
                let clock_ms = self.clock_ms.unwrap_or(timestamp_ms);
                stream.take(self.kind, &mut self.store, clock_ms, given, tell)
            }
        };
        if self.store.bytes > self.store.bytes_max {
            let limit = self.store.bytes_max;
            return Err(TakeError::State { limit });
        }
        Ok(taken)
    }

    /// The latest timestamp of both sides. None before the first record.
    pub(crate) fn clock_ms(&self) -> Option<i64> {
        self.clock_ms
    }

    pub(crate) fn bytes(&self) -> usize {
        self.store.bytes
    }

    /// All that is to be kept.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.store.entries.iter()
    }

    /// What has changed since this was asked last.
    pub(crate) fn changes(&mut self) -> Changes {
        std::mem::take(&mut self.store.changes)
    }
}

/// Entries as they are to be kept from now on; none: gone.
pub(crate) type Changes = BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>;

/// The entries of a join.
///
/// - `bytes` counts what `entries` holds.
/// - `changes` has every key whose entry was set or removed since it was taken.
#[derive(Debug)]
struct Store {
    entries: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    changes: Changes,
    bytes: usize,
    bytes_max: usize,
}

impl Store {
    fn new(bytes_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            changes: Changes::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.entries.get(key)
    }

    fn set(&mut self, key: Arc<[u8]>, value: Option<Arc<[u8]>>) {
        let key_bytes = key.len();
        let old = match &value {
            Some(value) => {
                self.bytes += key_bytes + value.len() + ENTRY_OVERHEAD_BYTES;
                self.entries.insert(Arc::clone(&key), Arc::clone(value))
            }
            None => self.entries.remove(&key),
        };
        if let Some(old) = &old {
            self.bytes -= key_bytes + old.len() + ENTRY_OVERHEAD_BYTES;
        }
        if value.is_some() || old.is_some() {
            self.changes.insert(key, value);
        }
    }
}

/// What entries of a key begin with. No key's beginning is that of another one.
fn prefix(side: Side, key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(1 + 4 + key.len() + stream::PLACE_BYTES);
    prefix.push(side.byte());
    prefix.extend((key.len() as u32).to_be_bytes());
    prefix.extend_from_slice(key);
    prefix
}

#[cfg(test)]
mod tests;
