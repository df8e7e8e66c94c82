//! [`Aborted`]: which batches a reader of committed records does not see.
//!
//! Pure. Owns the transactions known to have been aborted and not yet read past. It must never hide a batch
//! that no answer called aborted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{BatchView, ControlKind, EndTransaction};
use crate::ids::{Offset, ProducerId};

/// The aborted transactions that one answer of a partition names: all that overlap its batches.
///
/// - A producer is in `open` from the first offset of its aborted transaction to the marker that ends it.
#[derive(Debug, Default)]
pub struct Aborted {
    announced: BTreeMap<ProducerId, VecDeque<Offset>>,
    open: BTreeSet<ProducerId>,
}

impl Aborted {
    /// Of transactions by their producer and the offset of their first record.
    pub fn new(transactions: impl IntoIterator<Item = (ProducerId, Offset)>) -> Self {
        let mut firsts: Vec<_> = transactions.into_iter().collect();
        firsts.sort_unstable();
        let mut aborted = Self::default();
        for (id, first) in firsts {
            aborted.announced.entry(id).or_default().push_back(first);
        }
        aborted
    }

    /// Whether `batch` belongs to a transaction that was aborted. Batches are shown in order of offset,
    /// those with markers too.
    pub fn hides(&mut self, batch: &BatchView) -> bool {
        let header = batch.header();
        if !header.is_transactional() {
            return false;
        }
        self.begin(header.producer_id, header.last_offset());
        let hidden = self.open.contains(&header.producer_id);
        if header.is_control() && is_abort(batch) {
            self.open.remove(&header.producer_id);
        }
        hidden
    }

    /// Opens the transactions of a producer that were announced to begin at `offset` or before.
    fn begin(&mut self, id: ProducerId, offset: Offset) {
        let Some(firsts) = self.announced.get_mut(&id) else {
            return;
        };
        while firsts.front().is_some_and(|first| *first <= offset) {
            firsts.pop_front();
            self.open.insert(id);
        }
    }
}

fn is_abort(batch: &BatchView) -> bool {
    let Ok(records) = batch.records(batch.bytes().len()) else {
        return false;
    };
    let marker = records.iter().next().and_then(Result::ok);
    let marker = marker.and_then(|record| EndTransaction::parse(&record).ok().flatten());
    marker.is_some_and(|marker| marker.kind == ControlKind::Abort)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaderEpoch, ProducerEpoch};
    use crate::record::{BatchBuilder, BatchOptions, NewRecord, ProducerStamp};

    fn batch(offset: i64, producer: i64, marker: Option<ControlKind>) -> BatchView {
        let mut builder = BatchBuilder::new(BatchOptions {
            transactional: true,
            control: marker.is_some(),
            base_offset: Offset(offset),
            leader_epoch: LeaderEpoch(0),
            producer: ProducerStamp {
                id: ProducerId(producer),
                epoch: ProducerEpoch(0),
                base_sequence: 0,
            },
            ..BatchOptions::PLAIN
        });
        let end = EndTransaction {
            kind: marker.unwrap_or(ControlKind::Commit),
            coordinator_epoch: 0,
        };
        let (key, value) = (end.key(), end.value());
        builder
            .append(&NewRecord {
                key: Some(&key),
                value: Some(&value),
                ..Default::default()
            })
            .unwrap();
        BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
    }

    #[test]
    fn hides_from_the_first_offset_to_the_marker() {
        let named = (ProducerId(7), Offset(2));
        let mut aborted = Aborted::new([named, named]);
        assert!(!aborted.hides(&batch(1, 7, None)), "a transaction before");
        assert!(aborted.hides(&batch(2, 7, None)));
        assert!(!aborted.hides(&batch(3, 8, None)), "another producer");
        assert!(aborted.hides(&batch(4, 7, None)));
        assert!(aborted.hides(&batch(5, 7, Some(ControlKind::Abort))));
        assert!(!aborted.hides(&batch(6, 7, None)), "a transaction after");
    }
}
