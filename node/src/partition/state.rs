//! Who leads a partition, how far each replica is, and what is committed. Pure.
//!
//! Owns the watermark rules; time and progress are arguments, what follows is returned.

use super::error::EpochError;
use super::request::Watermarks;
use crate::metadata::PartitionState;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use std::collections::{BTreeMap, VecDeque};

/// How far one replica's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub log_end: Offset,
    /// Up to here it survives a power cut.
    pub synced: Offset,
}

/// One partition as its leader sees it.
///
/// - The high watermark is the lowest end of all in-sync replicas: the synced end, or the log end where the topic
///   caches writes. It never falls within a leader epoch, and never lies below the log start.
/// - `synced <= log_end`; the log start may be raised up to the high watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    me: NodeId,
    leadership: PartitionState,
    own: Progress,
    /// The other replicas, as far as they are known.
    others: BTreeMap<NodeId, Progress>,
    log_start: Offset,
    high_watermark: Offset,
    write_caching: bool,
}

impl State {
    /// A replica whose log reaches from `log_start` to `own.log_end`. `committed` is what was known to be committed.
    pub fn new(
        me: NodeId,
        leadership: PartitionState,
        log_start: Offset,
        own: Progress,
        write_caching: bool,
    ) -> Self {
        let others = BTreeMap::new();
        let mut state = Self {
            me,
            leadership,
            own,
            others,
            log_start,
            high_watermark: log_start,
            write_caching,
        };
        state.advance();
        state
    }

    pub fn is_leader(&self) -> bool {
        self.leadership.leader == self.me
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leadership.leader_epoch
    }

    pub fn in_sync_count(&self) -> usize {
        self.leadership.isr.len()
    }

    /// Takes over what the metadata says now.
    pub fn lead(&mut self, leadership: PartitionState) {
        if leadership.leader_epoch > self.leadership.leader_epoch {
            self.others.clear();
        }
        self.leadership = leadership;
        self.advance();
    }

    pub fn set_write_caching(&mut self, write_caching: bool) {
        self.write_caching = write_caching;
        self.advance();
    }

    /// The log grew to `end`.
    pub fn appended(&mut self, end: Offset) {
        assert!(
            end >= self.own.log_end,
            "a log grows at its end: {end} after {}",
            self.own.log_end
        );
        self.own.log_end = end;
        self.advance();
    }

    /// The log is on disk up to `end`.
    pub fn synced(&mut self, end: Offset) {
        assert!(
            end <= self.own.log_end,
            "synced {end} of a log that ends at {}",
            self.own.log_end
        );
        self.own.synced = self.own.synced.max(end);
        self.advance();
    }

    /// Another replica came so far.
    pub fn replica_reached(&mut self, replica: NodeId, progress: Progress) {
        self.others.insert(replica, progress);
        self.advance();
    }

    /// The records below `start` are gone.
    pub fn trimmed(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        self.high_watermark = self.high_watermark.max(self.log_start);
    }

    /// The log was emptied and begins anew at `offset`: the only way in which a watermark may fall.
    pub fn restarted(&mut self, offset: Offset) {
        self.own = Progress {
            log_end: offset,
            synced: offset,
        };
        self.others.clear();
        (self.log_start, self.high_watermark) = (offset, offset);
    }

    /// Compares the epoch a caller believes in with the one here (KIP-320).
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochError> {
        check_epoch(asked, self.leader_epoch())
    }

    pub fn watermarks(&self) -> Watermarks {
        Watermarks {
            log_start: self.log_start,
            high_watermark: self.high_watermark,
            // No transaction is ever open yet.
            last_stable: self.high_watermark,
            log_end: self.own.log_end,
            synced: self.own.synced,
        }
    }

    fn advance(&mut self) {
        if !self.is_leader() {
            return;
        }
        let committed = |progress: &Progress| {
            if self.write_caching {
                progress.log_end
            } else {
                progress.synced
            }
        };
        let mut lowest = committed(&self.own);
        for replica in self.leadership.isr.iter().filter(|replica| **replica != self.me) {
            // A replica that has not been heard of in this epoch holds the watermark where it is.
            let Some(progress) = self.others.get(replica) else {
                return;
            };
            lowest = lowest.min(committed(progress));
        }
        self.high_watermark = self.high_watermark.max(lowest);
        assert!(
            self.high_watermark <= self.own.log_end,
            "high watermark {} beyond the log's end {}",
            self.high_watermark,
            self.own.log_end
        );
    }
}

/// Compares the epoch a caller believes in with the current one (KIP-320). Without one nothing is compared.
pub fn check_epoch(asked: Option<LeaderEpoch>, current: LeaderEpoch) -> Result<(), EpochError> {
    match asked {
        Some(asked) if asked < current => Err(EpochError::Fenced { asked, current }),
        Some(asked) if asked > current => Err(EpochError::Unknown { asked, current }),
        Some(_) | None => Ok(()),
    }
}

/// Those who wait for the watermark, in the order of the offsets they wait for.
#[derive(Debug)]
pub struct Waiters<T> {
    queue: VecDeque<(Offset, T)>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
        }
    }
}

impl<T> Waiters<T> {
    /// `waiter` waits until everything below `end` is committed.
    pub fn push(&mut self, end: Offset, waiter: T) {
        // A duplicate waits for an offset of long ago: it goes in front of those that come later.
        let at = self.queue.partition_point(|(other, _)| *other <= end);
        self.queue.insert(at, (end, waiter));
    }

    /// The next one whose offset is reached.
    pub fn pop_reached(&mut self, high_watermark: Offset) -> Option<T> {
        let (end, _) = self.queue.front()?;
        if *end > high_watermark {
            return None;
        }
        self.queue.pop_front().map(|(_, waiter)| waiter)
    }

    /// All of them: none will be reached.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.queue.drain(..).map(|(_, waiter)| waiter)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leadership(leader: i32, epoch: i32, isr: &[i32]) -> PartitionState {
        let nodes: Vec<_> = isr.iter().copied().map(NodeId).collect();
        PartitionState {
            leader: NodeId(leader),
            leader_epoch: LeaderEpoch(epoch),
            replicas: nodes.clone(),
            isr: nodes,
            ..PartitionState::default()
        }
    }

    fn at(log_end: i64, synced: i64) -> Progress {
        Progress {
            log_end: Offset(log_end),
            synced: Offset(synced),
        }
    }

    #[test]
    fn one_replica_commits_what_is_synced_or_cached() {
        for (write_caching, before, after) in [(false, 0, 5), (true, 7, 7)] {
            let mut state = State::new(
                NodeId(1),
                leadership(1, 0, &[1]),
                Offset(0),
                at(0, 0),
                write_caching,
            );
            state.appended(Offset(7));
            assert_eq!(state.watermarks().high_watermark, Offset(before));
            state.synced(Offset(5));
            assert_eq!(state.watermarks().high_watermark, Offset(after));
        }
    }

    #[test]
    fn the_slowest_replica_in_sync_holds_the_watermark() {
        let mut state = State::new(
            NodeId(1),
            leadership(1, 3, &[1, 2, 3]),
            Offset(0),
            at(9, 9),
            false,
        );
        assert_eq!(state.watermarks().high_watermark, Offset(0));
        state.replica_reached(NodeId(2), at(9, 4));
        assert_eq!(state.watermarks().high_watermark, Offset(0));
        state.replica_reached(NodeId(3), at(6, 6));
        assert_eq!(state.watermarks().high_watermark, Offset(4));
        // It leaves the set: the others decide.
        state.lead(leadership(1, 3, &[1, 3]));
        assert_eq!(state.watermarks().high_watermark, Offset(6));
        // A new reign knows nothing of the others yet, and takes nothing back.
        state.lead(leadership(1, 4, &[1, 3]));
        assert_eq!(state.watermarks().high_watermark, Offset(6));
        state.replica_reached(NodeId(3), at(2, 2));
        assert_eq!(state.watermarks().high_watermark, Offset(6));
    }

    #[test]
    fn an_epoch_is_compared_when_it_is_given() {
        let (old, new) = (LeaderEpoch(2), LeaderEpoch(4));
        let current = LeaderEpoch(3);
        assert_eq!(check_epoch(None, current), Ok(()));
        assert_eq!(check_epoch(Some(current), current), Ok(()));
        assert_eq!(
            check_epoch(Some(old), current),
            Err(EpochError::Fenced { asked: old, current })
        );
        assert_eq!(
            check_epoch(Some(new), current),
            Err(EpochError::Unknown { asked: new, current })
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(i64),
        Sync,
        Caching(bool),
        Trim,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..50i64).prop_map(Step::Append),
            Just(Step::Sync),
            any::<bool>().prop_map(Step::Caching),
            Just(Step::Trim),
        ]
    }

    proptest! {
        #[test]
        fn watermarks_are_ordered_and_never_fall(steps in prop::collection::vec(step(), 1..100)) {
            let mut state = State::new(NodeId(1), leadership(1, 0, &[1]), Offset(0), at(0, 0), false);
            let mut waiters = Waiters::default();
            let mut waited = Vec::new();
            for step in steps {
                let before = state.watermarks();
                match step {
                    Step::Append(count) => {
                        let end = before.log_end.plus(count);
                        state.appended(end);
                        waiters.push(end, end);
                    }
                    Step::Sync => state.synced(before.log_end),
                    Step::Caching(on) => state.set_write_caching(on),
                    Step::Trim => state.trimmed(before.high_watermark),
                }
                let now = state.watermarks();
                prop_assert!(now.log_start <= now.last_stable && now.last_stable <= now.high_watermark);
                prop_assert!(now.high_watermark <= now.log_end && now.synced <= now.log_end);
                prop_assert!(now.high_watermark >= before.high_watermark && now.log_start >= before.log_start);
                while let Some(end) = waiters.pop_reached(now.high_watermark) {
                    prop_assert!(end <= now.high_watermark);
                    waited.push(end);
                }
            }
            prop_assert!(waited.is_sorted());
        }
    }
}
