//! Which batches belong to transactions that were aborted, and which markers have nothing left to mark. Pure.
//!
//! Owns the rules, as Kafka has them: what was aborted is dropped like a record that was written again; a marker is needed
//! as long as a batch of its transaction may still be read. It must be shown the batches of a log in order; whoever only asks
//! what was aborted need not show markers.

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

#[derive(Debug, Clone, Copy)]
struct Aborting {
    /// Its marker.
    last: Offset,
    /// One of its batches with records was met.
    was_met: bool,
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// By their first offset, highest first: those to come.
    coming: Vec<Aborted>,
    /// Those that began where the walk is or in front of it. One of them is over behind its marker, which may not be there any
    /// more, nor be shown.
    aborting: BTreeMap<ProducerId, Aborting>,
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
                let (last, was_met) = (next.last, false);
                self.aborting.insert(next.producer, Aborting { last, was_met });
            }
        }
        match self.aborting.get_mut(&header.producer_id) {
            Some(aborting) if header.base_offset < aborting.last => {
                aborting.was_met = true;
                true
            }
            Some(_) | None => {
                self.alive.insert(header.producer_id);
                false
            }
        }
    }

    /// Takes the end of a transaction. Whether no record of it was met, so that its marker is not needed any more.
    pub(super) fn ended(&mut self, header: &BatchHeader, kind: ControlKind) -> bool {
        match kind {
            ControlKind::Abort => {
                let ended = self.aborting.remove(&header.producer_id);
                let was_met = ended.is_some_and(|it| it.was_met && it.last == header.base_offset);
                // Records that nobody said are aborted need their marker, too.
                let was_alive = self.alive.remove(&header.producer_id);
                !was_met && !was_alive
            }
            ControlKind::Commit => !self.alive.remove(&header.producer_id),
        }
    }
}
