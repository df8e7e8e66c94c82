//! Which batches belong to transactions that were aborted, and which markers have nothing left to mark. Pure.
//!
//! Owns the rules, as Kafka has them: what was aborted is dropped like a record that was written again; a marker is needed
//! as long as a batch of its transaction may still be read. It must be shown every batch of a log, in order.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::ids::{Offset, ProducerId};
use headwater_protocol::record::{BatchHeader, ControlKind};

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    pub producer: ProducerId,
    /// Its first record.
    pub first: Offset,
    /// Its marker.
    pub last: Offset,
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// By their first offset, highest first: those to come.
    coming: Vec<Aborted>,
    /// Being aborted where the walk is, and whether one of its batches with records was met.
    aborting: BTreeMap<ProducerId, bool>,
    /// Producers of whose open transaction, not aborted, records were met.
    alive: BTreeSet<ProducerId>,
}

impl Transactions {
    pub(super) fn new(aborted: &[Aborted]) -> Self {
        let mut coming = aborted.to_vec();
        coming.sort_unstable_by_key(|it| std::cmp::Reverse(it.first));
        Self {
            coming,
            ..Self::default()
        }
    }

    /// Whether a batch with records is part of what was aborted.
    pub(super) fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        if !header.is_transactional() {
            return false;
        }
        while let Some(next) = self.coming.pop_if(|it| it.first <= header.last_offset()) {
            if next.last >= header.base_offset {
                self.aborting.insert(next.producer, false);
            }
        }
        match self.aborting.get_mut(&header.producer_id) {
            Some(was_met) => {
                *was_met = true;
                true
            }
            None => {
                self.alive.insert(header.producer_id);
                false
            }
        }
    }

    /// Takes the end of a transaction. Whether no record of it was met, so that its marker is not needed any more.
    pub(super) fn ended(&mut self, header: &BatchHeader, kind: ControlKind) -> bool {
        match kind {
            ControlKind::Abort => !self.aborting.remove(&header.producer_id).unwrap_or(false),
            ControlKind::Commit => !self.alive.remove(&header.producer_id),
        }
    }
}
