//! Offsets that were committed in a transaction: they are in the log, and seen once a marker there says that the transaction is
//! committed.
//!
//! Which of several commits of a partition holds is told by their order in the log, not by that of the markers. A marker ends
//! what lies in front of it, so that the same one may be told of again.

use super::super::request::{Committed, Name, Offsets, TopicPartition};
use super::super::store;
use super::State;
use headwater_protocol::ids::{Offset, ProducerId};
use headwater_protocol::record::ControlKind;
use std::collections::BTreeMap;

/// One commit that waits for its marker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    /// Where it lies in the log.
    at: Offset,
    committed: Committed,
}

/// All commits that wait for a marker.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_producer: BTreeMap<ProducerId, BTreeMap<(Name, TopicPartition), Waiting>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    pub(super) fn concerns(&self, group: &str) -> bool {
        let keys = self.by_producer.values().flat_map(BTreeMap::keys);
        keys.into_iter().any(|(name, _)| &**name == group)
    }

    fn waits_for(&self, group: &Name, partition: &TopicPartition) -> bool {
        let key = (group.clone(), partition.clone());
        self.by_producer
            .values()
            .any(|waiting| waiting.contains_key(&key))
    }

    pub(super) fn add(
        &mut self,
        producer: ProducerId,
        group: Name,
        at: Offset,
        offsets: impl IntoIterator<Item = (TopicPartition, Committed)>,
    ) {
        let waiting = self.by_producer.entry(producer).or_default();
        for (partition, committed) in offsets {
            waiting.insert((group.clone(), partition), Waiting { at, committed });
        }
    }

    /// Something newer lies in the log: what waits and lies before `at` is overruled. None: all that waits.
    pub(super) fn overrule(&mut self, group: &str, partition: &TopicPartition, at: Option<Offset>) {
        let stays = |key: &(Name, TopicPartition), waiting: &mut Waiting| {
            let is_same = &*key.0 == group && key.1 == *partition;
            !is_same || at.is_some_and(|at| waiting.at >= at)
        };
        for waiting in self.by_producer.values_mut() {
            waiting.retain(stays);
        }
    }
}

impl State {
    /// Whether markers are waited for.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Which of the partitions have commits that wait for a marker.
    pub(crate) fn unstable(&self, group: &Name, offsets: &Offsets) -> Vec<TopicPartition> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let partitions = offsets.iter().map(|(partition, _)| partition);
        let waits = partitions.filter(|partition| self.pending.waits_for(group, partition));
        waits.cloned().collect()
    }

    /// A marker lies at `marker` in the log.
    pub(crate) fn transaction_ended(&mut self, producer: ProducerId, kind: ControlKind, marker: Offset) {
        let Some(waiting) = self.pending.by_producer.get_mut(&producer) else {
            return;
        };
        let ended: Vec<_> = waiting.extract_if(.., |_, it| it.at < marker).collect();
        if waiting.is_empty() {
            self.pending.by_producer.remove(&producer);
        }
        for ((group, partition), Waiting { at, committed }) in ended {
            if kind == ControlKind::Commit {
                self.pending.overrule(&group, &partition, Some(at));
                self.put_offset(&group, partition, committed);
            }
            self.remove_if_bare(&group);
        }
    }

    /// Takes over the commits whose transactions had no marker yet when the log was read, in the order in which they lay there.
    pub(crate) fn restore_pending(&mut self, pending: Vec<store::PendingOffset>, now: super::Now) {
        for store::PendingOffset {
            producer,
            at,
            group,
            partition,
            committed,
        } in pending
        {
            if !self.groups.contains_key(&group) {
                self.add_group(super::Group::new(group.clone()), now);
            }
            self.pending.add(producer, group, at, [(partition, committed)]);
        }
    }
}
