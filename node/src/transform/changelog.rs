//! The state of one partition of a transform as records of its changelog topic, and back.
//! A commit is a run of changes followed by one commit record; a run without its commit record never happened. Each pipeline
//! writes by an epoch of its own, so that a run which one left unfinished is not taken for the beginning of the next one's.
//! It owns that format. It is pure: batches in, state out.
//!
//! ```text
//! key 0                     value JSON Commit     position, watermark; makes the changes before it count
//! key 1, start i64 BE, key  value accumulator     a window's group; no value: it is gone. Of sliding windows a byte of
//!                                                 flags stands before the accumulator; a session has the time of its
//!                                                 last record in the key, and its start (i64 LE) before the accumulator
//! key 2, key                value                 an entry of the keyed store; no value: it is gone. When it was written
//!                                                 (i64 LE) stands before the value if the commit says so
//! key 3, key                value                 an entry of a join (`join` says what is in it); no value: it is gone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId, TopicId};
use headwater_protocol::record::{
    self, BatchBuilder, BatchOptions, BatchView, NewRecord, RECORDS_BYTES_MAX, RecordRef,
};
use serde::{Deserialize, Serialize};

use super::windows::GroupKey;
use crate::metadata::{Join, WindowShape};

const COMMIT: u8 = 0;
const GROUP: u8 = 1;
const ENTRY: u8 = 2;
const JOIN: u8 = 3;
const VERSION: u32 = 1;
/// Changes are cut into batches of about this size.
const BATCH_BYTES: usize = 512 << 10;

/// What one accumulator or entry may take with its key, so that the changelog can hold it.
pub(crate) const ENTRY_BYTES_MAX: usize = 8 << 20;
/// The largest batch that is ever written: one record of that size, or several that are smaller.
pub(crate) const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + BATCH_BYTES + (64 << 10);

/// What a commit says beside its changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) version: u32,
    /// The source: a topic created again by the same name is another log.
    pub(crate) source: TopicId,
    /// The first offset that is not processed.
    pub(crate) position: Offset,
    pub(crate) watermark_ms: Option<i64>,
    /// Whose accumulators these are: another module, or windows of another size, cannot go on with them.
    pub(crate) owner: Owner,
    /// The state is what this commit's changes say, and nothing from before.
    pub(crate) is_whole: bool,
    /// Entries of the keyed store have the time of their writing in front.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_stamped: bool,
    /// The time of the keyed store, where it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock_ms: Option<i64>,
    /// How far the second source is dealt with, where there is one. Only nodes of a level that knows joins are given any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) right: Option<Right>,
}

/// Where a join is in its right side, and whose entries it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Right {
    pub(crate) source: TopicId,
    /// The first offset that is not processed.
    pub(crate) position: Offset,
    /// The latest timestamp of both sides.
    pub(crate) clock_ms: Option<i64>,
    pub(crate) join: Join,
}

/// Who wrote the accumulators and entries of a state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) module: String,
    pub(crate) window_ms: Option<i64>,
    /// Windows that are not tumbling ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<WindowShape>,
}

impl Commit {
    pub(crate) fn new(source: TopicId, position: Offset, watermark_ms: Option<i64>, owner: Owner) -> Self {
        Self {
            version: VERSION,
            source,
            position,
            watermark_ms,
            owner,
            is_whole: false,
            is_stamped: false,
            clock_ms: None,
            right: None,
        }
    }

    /// Both as one: where the later one has got, and the whole state if the earlier one has it.
    pub(crate) fn followed_by(self, later: Self) -> Self {
        Self {
            is_whole: self.is_whole,
            ..later
        }
    }
}

/// What changed since the commit before. Later changes of the same key replace earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) groups: BTreeMap<GroupKey, Option<Arc<[u8]>>>,
    pub(crate) entries: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
    pub(crate) joins: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
}

impl Changes {
    /// Adds what came after.
    pub(crate) fn extend(&mut self, later: Self) {
        self.groups.extend(later.groups);
        self.entries.extend(later.entries);
        self.joins.extend(later.joins);
    }
}

/// The state that a changelog holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) commit: Option<Commit>,
    pub(crate) groups: BTreeMap<GroupKey, Arc<[u8]>>,
    pub(crate) entries: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    pub(crate) joins: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
}

/// The changelog cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangelogError {
    #[error("the state topic has a batch that cannot be read: {0}")]
    Batch(#[from] record::Error),
    #[error("the state topic has a record of an unknown kind at offset {offset}")]
    UnknownRecord { offset: Offset },
    #[error("the state was written by a newer version ({version})")]
    Newer { version: u32 },
}

/// Writes one commit as batches to be appended in one go.
pub(crate) fn encode(changes: &Changes, commit: &Commit, timestamp_ms: i64) -> Result<Bytes, record::Error> {
    let mut batches = Writer {
        builder: BatchBuilder::new(BatchOptions::PLAIN),
        done: Vec::new(),
        timestamp_ms,
    };
    let mut name = Vec::new();
    for ((start_ms, key), state) in &changes.groups {
        name.clear();
        name.push(GROUP);
        name.extend(start_ms.to_be_bytes());
        name.extend_from_slice(key);
        batches.push(&name, state.as_deref())?;
    }
    for (kind, entries) in [(ENTRY, &changes.entries), (JOIN, &changes.joins)] {
        for (key, value) in entries {
            name.clear();
            name.push(kind);
            name.extend_from_slice(key);
            batches.push(&name, value.as_deref())?;
        }
    }
    let value = serde_json::to_vec(commit).expect("a commit has only string keys");
    batches.push(&[COMMIT], Some(&value))?;
    batches.finish()
}

/// A batch that changes nothing: from it on the changelog is its writer's alone.
pub(crate) fn fence(timestamp_ms: i64) -> Result<Bytes, record::Error> {
    let mut batches = Writer {
        builder: BatchBuilder::new(BatchOptions::PLAIN),
        done: Vec::new(),
        timestamp_ms,
    };
    // No window begins there, and that it is gone was known before, too.
    let mut name = vec![GROUP];
    name.extend(i64::MIN.to_be_bytes());
    batches.push(&name, None)?;
    batches.finish()
}

struct Writer {
    builder: BatchBuilder,
    done: Vec<u8>,
    timestamp_ms: i64,
}

impl Writer {
    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), record::Error> {
        if self.builder.plain_bytes() > BATCH_BYTES {
            self.done
                .extend_from_slice(&self.builder.build()?.unwrap_or_default());
        }
        self.builder.append(&NewRecord {
            timestamp_ms: self.timestamp_ms,
            key: Some(key),
            value,
            headers: &[],
        })
    }

    fn finish(mut self) -> Result<Bytes, record::Error> {
        let last = self.builder.build()?.unwrap_or_default();
        if self.done.is_empty() {
            return Ok(last);
        }
        self.done.extend_from_slice(&last);
        Ok(self.done.into())
    }
}

/// Reads a changelog from its beginning.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    restored: Restored,
    /// Changes that no commit record followed yet, and who wrote them.
    pending: Changes,
    writer: Option<(ProducerId, ProducerEpoch)>,
}

impl Replay {
    pub(crate) fn batch(&mut self, batch: &BatchView) -> Result<(), ChangelogError> {
        let header = batch.header();
        let writer = (header.producer_id, header.producer_epoch);
        if self.writer.replace(writer) != Some(writer) {
            self.pending = Changes::default();
        }
        for record in &batch.records(RECORDS_BYTES_MAX)? {
            let record = record?;
            let offset = batch.base_offset().plus(i64::from(record.offset_delta));
            self.record(&record)
                .map_err(|error| error.unwrap_or(ChangelogError::UnknownRecord { offset }))?;
        }
        Ok(())
    }

    fn record(&mut self, record: &RecordRef<'_>) -> Result<(), Option<ChangelogError>> {
        let (kind, key) = record.key.and_then(<[u8]>::split_first).ok_or(None)?;
        let value: Option<Arc<[u8]>> = record.value.map(Into::into);
        match *kind {
            COMMIT => {
                let commit: Commit =
                    serde_json::from_slice(record.value.unwrap_or_default()).map_err(|_| None)?;
                if commit.version > VERSION {
                    return Err(Some(ChangelogError::Newer {
                        version: commit.version,
                    }));
                }
                self.commit(commit);
            }
            GROUP => {
                let (start, key) = key.split_first_chunk::<8>().ok_or(None)?;
                self.pending
                    .groups
                    .insert((i64::from_be_bytes(*start), key.into()), value);
            }
            ENTRY => {
                self.pending.entries.insert(key.into(), value);
            }
            JOIN => {
                self.pending.joins.insert(key.into(), value);
            }
            _ => return Err(None),
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) {
        let Restored {
            groups,
            entries,
            joins,
            ..
        } = &mut self.restored;
        if commit.is_whole {
            groups.clear();
            entries.clear();
            joins.clear();
        }
        let changes = std::mem::take(&mut self.pending);
        for (key, state) in changes.groups {
            match state {
                Some(state) => groups.insert(key, state),
                None => groups.remove(&key),
            };
        }
        for (kept, changed) in [(entries, changes.entries), (joins, changes.joins)] {
            for (key, value) in changed {
                match value {
                    Some(value) => kept.insert(key, value),
                    None => kept.remove(&key),
                };
            }
        }
        self.restored.commit = Some(commit);
    }

    /// The state as of the last commit.
    pub(crate) fn finish(self) -> Restored {
        self.restored
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::record::Batches;
    use proptest::prelude::*;

    use super::*;
    use crate::transform::stamp;

    fn bytes(value: u8) -> Arc<[u8]> {
        Arc::from([value])
    }

    fn changes(groups: &[(i64, u8, Option<u8>)], entries: &[(u8, Option<u8>)]) -> Changes {
        Changes {
            groups: groups
                .iter()
                .map(|(at, key, value)| ((*at, bytes(*key)), value.map(bytes)))
                .collect(),
            entries: entries
                .iter()
                .map(|(key, value)| (bytes(*key), value.map(bytes)))
                .collect(),
            // Of the same names, to be told apart by their kind.
            joins: entries
                .iter()
                .map(|(key, value)| (bytes(*key), value.map(|value| bytes(value ^ 1))))
                .collect(),
        }
    }

    fn commit(position: i64) -> Commit {
        Commit::new(
            TopicId([3; 16]),
            Offset(position),
            Some(position - 100),
            Owner::default(),
        )
    }

    fn replay(log: &[Bytes]) -> Restored {
        let mut replay = Replay::default();
        for batches in log {
            Batches::new(batches.clone()).for_each(|batch| replay.batch(&batch.unwrap()).unwrap());
        }
        replay.finish()
    }

    #[test]
    fn a_commit_counts_and_what_follows_it_does_not() {
        let first = encode(
            &changes(&[(-10, 1, Some(7)), (0, 1, Some(8))], &[(4, Some(5))]),
            &commit(3),
            0,
        )
        .unwrap();
        let second = encode(&changes(&[(-10, 1, None)], &[(4, None)]), &commit(6), 0).unwrap();
        let restored = replay(&[first.clone(), second]);
        assert_eq!(restored.commit, Some(commit(6)));
        assert_eq!(
            restored.groups.into_iter().collect::<Vec<_>>(),
            [((0, bytes(1)), bytes(8))]
        );
        assert!(restored.entries.is_empty());

        // Many changes go into several batches; without the last one, nothing of them counts.
        let large: Arc<[u8]> = vec![1; 400_000].into();
        let many = Changes {
            entries: (0..5).map(|key| (bytes(key), Some(Arc::clone(&large)))).collect(),
            ..Changes::default()
        };
        let torn = encode(&many, &commit(9), 0).unwrap();
        let all: Vec<_> = Batches::new(torn)
            .map(|batch| batch.unwrap().into_bytes())
            .collect();
        assert!(all.len() > 1);
        let restored = replay(&[&[first.clone()][..], &all[..all.len() - 1]].concat());
        assert_eq!(restored.commit, Some(commit(3)));
        assert_eq!(restored.entries.len(), 1);

        // Nor does another writer's commit make them count.
        let by = |log: Bytes, epoch| {
            let stamped = stamp::alone(log, ProducerId(9), ProducerEpoch(epoch), &mut 0);
            stamped.unwrap()
        };
        let left = by(all[..all.len() - 1].concat().into(), 0);
        let next = encode(&Changes::default(), &commit(9), 0).unwrap();
        let entries = |epoch| {
            let all = [&[first.clone()][..], &left, &by(next.clone(), epoch)].concat();
            replay(&all).entries.len()
        };
        assert!(entries(0) > 1, "its own commit would");
        assert_eq!(entries(1), 1);
    }

    #[test]
    fn a_whole_commit_replaces_everything() {
        let first = encode(&changes(&[(0, 1, Some(7))], &[(4, Some(5))]), &commit(3), 0).unwrap();
        let whole = Commit {
            is_whole: true,
            ..commit(4)
        };
        let second = encode(&changes(&[(9, 1, Some(7))], &[]), &whole, 0).unwrap();
        let restored = replay(&[first, second]);
        assert_eq!(restored.groups.into_keys().collect::<Vec<_>>(), [(9, bytes(1))]);
        assert!(restored.entries.is_empty());
    }

    #[test]
    fn what_a_node_of_before_wrote_is_read_and_written_alike() {
        let before = r#"{"version":1,"source":"AwMDAwMDAwMDAwMDAwMDAw","position":3,"watermark_ms":5,"owner":{"module":"m","window_ms":10},"is_whole":false}"#;
        let commit: Commit = serde_json::from_str(before).unwrap();
        assert_eq!(
            (commit.owner.window, commit.clock_ms, commit.is_stamped),
            (None, None, false)
        );
        assert_eq!(serde_json::to_string(&commit).unwrap(), before);
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused() {
        let newer = Commit {
            version: VERSION + 1,
            ..commit(3)
        };
        let batch = BatchView::parse(encode(&Changes::default(), &newer, 0).unwrap()).unwrap();
        assert_eq!(
            Replay::default().batch(&batch),
            Err(ChangelogError::Newer { version: VERSION + 1 })
        );
    }

    proptest! {
        #[test]
        fn merging_commits_changes_nothing(
            all in prop::collection::vec(
                (
                    prop::collection::vec((0i64..3, 0u8..3, prop::option::of(any::<u8>())), 0..5),
                    prop::collection::vec((0u8..3, prop::option::of(any::<u8>())), 0..5),
                ),
                1..8,
            ),
        ) {
            let each: Vec<_> = all.iter().map(|(groups, entries)| changes(groups, entries)).collect();
            let log: Vec<_> = each.iter().map(|changes| encode(changes, &commit(1), 0).unwrap()).collect();
            let mut merged = Changes::default();
            each.into_iter().for_each(|changes| merged.extend(changes));
            prop_assert_eq!(replay(&log), replay(&[encode(&merged, &commit(1), 0).unwrap()]));
        }
    }
}
