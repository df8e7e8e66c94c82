//! A lookup table in memory: the latest value of each key of a compacted topic, shared by every transform that
//! joins with it.
//! It owns the bound on its size. Readers never wait for anything but a writer's short turn.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use headwater_protocol::record::{self, BatchView, RECORDS_BYTES_MAX};

/// What an entry costs in memory beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Why a batch was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    #[error("lookup table {topic:?} needs more than {limit} bytes")]
    TooLarge { topic: String, limit: usize },
    #[error("lookup table {topic:?} has a batch that cannot be read: {error}")]
    Batch { topic: String, error: record::Error },
}

/// The entries of one topic.
///
/// - `bytes` counts what the entries hold and never passes `bytes_max`.
#[derive(Debug)]
pub(crate) struct Table {
    topic: String,
    bytes_max: usize,
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
pub(crate) struct Entries {
    by_key: HashMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
}

impl Table {
    pub(crate) fn new(topic: &str, bytes_max: usize) -> Self {
        Self {
            topic: topic.to_owned(),
            bytes_max,
            entries: RwLock::default(),
        }
    }

    /// The entries as they are now. Hold it for one batch, not longer: the reader of the topic waits.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the records of a batch: the last value of a key counts, no value removes it. Records without a key
    /// are passed over.
    pub(crate) fn apply(&self, batch: &BatchView) -> Result<(), TableError> {
        if batch.header().is_control() {
            return Ok(());
        }
        let malformed = |error| TableError::Batch {
            topic: self.topic.clone(),
            error,
        };
        let records = batch.records(RECORDS_BYTES_MAX).map_err(malformed)?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for record in &records {
            let record = record.map_err(malformed)?;
            let Some(key) = record.key else { continue };
            entries.set(key, record.value);
            if entries.bytes > self.bytes_max {
                return Err(TableError::TooLarge {
                    topic: self.topic.clone(),
                    limit: self.bytes_max,
                });
            }
        }
        Ok(())
    }
}

impl Entries {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.by_key.get(key).map(|value| &**value)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = match value {
            Some(value) => {
                self.bytes += key.len() + value.len() + ENTRY_OVERHEAD_BYTES;
                self.by_key.insert(key.into(), value.into())
            }
            None => self.by_key.remove(key),
        };
        if let Some(old) = old {
            self.bytes -= key.len() + old.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::record::{BatchBuilder, BatchOptions, NewRecord};

    use super::*;

    fn batch(entries: &[(&[u8], Option<&[u8]>)]) -> BatchView {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for (key, value) in entries {
            builder
                .append(&NewRecord {
                    key: Some(key),
                    value: *value,
                    ..NewRecord::default()
                })
                .unwrap();
        }
        builder
            .append(&NewRecord {
                value: Some(b"no key"),
                ..NewRecord::default()
            })
            .unwrap();
        BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
    }

    #[test]
    fn the_last_value_counts_and_a_tombstone_removes() {
        let table = Table::new("airports", 1_000);
        table
            .apply(&batch(&[
                (b"JFK", Some(b"old")),
                (b"SFO", Some(b"x")),
                (b"JFK", Some(b"new")),
            ]))
            .unwrap();
        assert_eq!(table.read().get(b"JFK"), Some(&b"new"[..]));
        assert_eq!(table.read().by_key.len(), 2);
        table.apply(&batch(&[(b"JFK", None), (b"SFO", None)])).unwrap();
        assert_eq!((table.read().get(b"JFK"), table.read().bytes()), (None, 0));
    }

    #[test]
    fn it_does_not_grow_past_its_bound() {
        let table = Table::new("airports", 150);
        let error = table.apply(&batch(&[
            (b"a", Some(b"1")),
            (b"b", Some(b"2")),
            (b"c", Some(b"3")),
        ]));
        assert_eq!(
            error.unwrap_err().to_string(),
            "lookup table \"airports\" needs more than 150 bytes"
        );
    }
}
