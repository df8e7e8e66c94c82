//! What was written down becomes a delivery again.

use super::super::request::{KeptBatch, KeptState};
use super::{Delivery, Phase, Run, WriteNumber, length};
use headwater_protocol::ids::Offset;
use std::collections::BTreeMap;

impl Delivery {
    /// Of batches that make no sense together, what is left is sound.
    pub(in crate::share) fn restored(start: Offset, batches: &[KeptBatch]) -> Self {
        let mut delivery = Self {
            start,
            end: start,
            runs: BTreeMap::new(),
            in_flight: 0,
            looked_at: None,
            next_write: WriteNumber(0),
            kept_start: start,
            pending: None,
            is_dirty: false,
        };
        let mut batches = batches.to_vec();
        batches.sort_by_key(|batch| batch.first);
        for batch in batches {
            let first = batch.first.max(delivery.end);
            if batch.last < first {
                continue;
            }
            if first > delivery.end {
                // Nobody has said anything of those.
                delivery.put(delivery.end, first.plus(-1), 0, KeptState::Available);
            }
            delivery.put(first, batch.last, batch.count.max(0), batch.state);
        }
        delivery.move_start();
        delivery
    }

    fn put(&mut self, first: Offset, last: Offset, count: i16, state: KeptState) {
        let phase = match state {
            KeptState::Available => Phase::Available,
            KeptState::Acknowledged | KeptState::Archived => Phase::Done(state),
        };
        self.in_flight += if phase.is_done() { 0 } else { length(first, last) };
        self.runs.insert(first, Run { last, count, phase });
        self.end = last.plus(1);
        self.join_between(first, last);
    }
}
