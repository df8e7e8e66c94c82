//! Transactions of one partition: which are open, where the last stable offset lies, which were aborted. Pure.
//!
//! Owns the rules of KIP-98 that a single partition can follow by itself. It decides no transaction: a marker says how one
//! ended, and a marker is true.

use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::ControlKind;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A transaction without its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// The epoch of its last batch.
    pub epoch: ProducerEpoch,
    /// Its first record here.
    pub first: Offset,
}

/// A transaction that ended here, as long as its marker may still be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) producer: ProducerId,
    pub(super) first: Offset,
    pub(super) marker: Offset,
}

/// A transaction whose records no `read_committed` consumer may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    pub producer: ProducerId,
    pub first: Offset,
    /// The marker that says so.
    pub marker: Offset,
    /// The first record of what was open beside it: whatever ends later begins here or behind it.
    pub(super) stable: Offset,
}

/// What the partition knows of its transactions.
///
/// - `starts` holds the first offset of every one in `open` and in `ended`.
/// - `ended` is in the order of markers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transactions {
    open: BTreeMap<ProducerId, Open>,
    starts: BTreeSet<(Offset, ProducerId)>,
    ended: VecDeque<Ended>,
    /// Aborted since `take_aborted`, in the order of markers.
    aborted: Vec<Aborted>,
}

/// What `record` or `end` changed, to be put back if the append does not happen after all.
#[derive(Debug, Clone, Copy)]
pub(super) enum Undo {
    Nothing,
    Opened(ProducerId),
    Epoch(ProducerId, ProducerEpoch),
    Ended { producer: ProducerId, open: Open },
}

impl Transactions {
    pub fn open_of(&self, producer: ProducerId) -> Option<Open> {
        self.open.get(&producer).copied()
    }

    pub fn is_open(&self, producer: ProducerId) -> bool {
        self.open.contains_key(&producer)
    }

    pub fn open(&self) -> impl Iterator<Item = (ProducerId, Open)> {
        self.open.iter().map(|(producer, open)| (*producer, *open))
    }

    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Where the first transaction begins that has no end, or one that may still be lost. None: all is stable.
    pub fn first_unstable(&self) -> Option<Offset> {
        self.starts.first().map(|(first, _)| *first)
    }

    /// A transactional batch lies at `first`.
    pub(super) fn record(&mut self, producer: ProducerId, epoch: ProducerEpoch, first: Offset) -> Undo {
        match self.open.get_mut(&producer) {
            Some(open) if open.epoch == epoch => Undo::Nothing,
            Some(open) => Undo::Epoch(producer, std::mem::replace(&mut open.epoch, epoch)),
            None => {
                self.open.insert(producer, Open { epoch, first });
                self.starts.insert((first, producer));
                Undo::Opened(producer)
            }
        }
    }

    /// A marker of this producer lies at `marker`. Where nothing is open, it ends nothing.
    pub(super) fn end(&mut self, producer: ProducerId, marker: Offset, kind: ControlKind) -> Undo {
        let Some(open) = self.open.remove(&producer) else {
            return Undo::Nothing;
        };
        self.ended.push_back(Ended {
            producer,
            first: open.first,
            marker,
        });
        if kind == ControlKind::Abort {
            let others = self.open.values().map(|open| open.first);
            self.aborted.push(Aborted {
                producer,
                first: open.first,
                marker,
                stable: others.min().unwrap_or_else(|| marker.plus(1)),
            });
        }
        Undo::Ended { producer, open }
    }

    /// Takes back what was noted last.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::Opened(producer) => {
                if let Some(open) = self.open.remove(&producer) {
                    self.starts.remove(&(open.first, producer));
                }
            }
            Undo::Epoch(producer, epoch) => {
                if let Some(open) = self.open.get_mut(&producer) {
                    open.epoch = epoch;
                }
            }
            Undo::Ended { producer, open } => {
                let ended = self.ended.pop_back();
                self.open.insert(producer, open);
                self.aborted
                    .pop_if(|last| ended.is_some_and(|ended| ended.marker == last.marker));
            }
        }
    }

    /// Markers below the high watermark are there to stay.
    pub fn committed(&mut self, high_watermark: Offset) {
        while let Some(ended) = self.ended.pop_front_if(|ended| ended.marker < high_watermark) {
            self.starts.remove(&(ended.first, ended.producer));
        }
    }

    /// Lets go of what was aborted and has no marker any more.
    pub fn retain_aborted(&mut self, has_marker: impl FnMut(&Aborted) -> bool) {
        self.aborted.retain(has_marker);
    }

    /// What was aborted since this was asked last.
    pub fn take_aborted(&mut self) -> Vec<Aborted> {
        std::mem::take(&mut self.aborted)
    }

    pub(super) fn ended(&self) -> impl ExactSizeIterator<Item = &Ended> {
        self.ended.iter()
    }

    /// As it was written down.
    pub(super) fn restore(
        open: impl IntoIterator<Item = (ProducerId, Open)>,
        ended: VecDeque<Ended>,
        aborted: Vec<Aborted>,
    ) -> Self {
        let open: BTreeMap<ProducerId, Open> = open.into_iter().collect();
        let starts = open.iter().map(|(producer, open)| (open.first, *producer));
        let ending = ended.iter().map(|ended| (ended.first, ended.producer));
        Self {
            starts: starts.chain(ending).collect(),
            open,
            ended,
            aborted,
        }
    }
}

/// All transactions of a log that were aborted, in the order of their markers.
///
/// About 40 bytes each in memory, for as long as their markers are in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AbortedIndex {
    entries: VecDeque<Aborted>,
}

impl AbortedIndex {
    pub fn extend(&mut self, aborted: Vec<Aborted>) {
        self.entries.extend(aborted);
    }

    /// Those that have records between two offsets, whether or not their marker lies there, too.
    pub fn overlapping(&self, from: Offset, until: Offset) -> Vec<Aborted> {
        let first = self.entries.partition_point(|entry| entry.marker < from);
        let mut found = Vec::new();
        for entry in self.entries.range(first..) {
            if entry.first < until {
                found.push(*entry);
            }
            // All that comes later begins there or behind it.
            if entry.stable >= until {
                break;
            }
        }
        found
    }

    /// What lies before `start` is gone from the log.
    pub fn trim(&mut self, start: Offset) {
        let gone = self.entries.partition_point(|entry| entry.marker < start);
        self.entries.drain(..gone);
    }

    /// Compaction has let go of these markers, which are in order, and of all that they ended. A reader would wait for the marker of
    /// a transaction that it is told of, and pass over whatever else the producer wrote until then.
    pub fn forget(&mut self, markers: &[Offset]) {
        self.entries
            .retain(|entry| markers.binary_search(&entry.marker).is_err());
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Aborted> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests;
