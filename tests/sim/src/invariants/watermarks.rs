//! A partition's marks keep their order, and neither the epoch nor the high watermark falls on a node while it lives.
//!
//! start <= last stable <= high watermark <= end, synced <= end. Across a crash the log end may fall, to what was synced;
//! the high watermark may begin lower on a node that starts, for it is learned anew. So each life of a node is judged for
//! itself, and so is each replica that it is given: one may be taken away and given back between two looks. A follower may
//! truncate what is not committed, and with it the synced end falls; a leader never does.

use std::collections::BTreeMap;

use headwater::partition::Watermarks as Marks;
use tokio::sync::watch;

use super::Violation;
use crate::client::Partition;

/// Which opened replica it is; None: the only one.
#[derive(Debug, Clone)]
pub(crate) struct Opened(pub(crate) Option<watch::Receiver<Marks>>);

impl PartialEq for Opened {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(this), Some(other)) => this.same_channel(other),
            (this, other) => this.is_none() && other.is_none(),
        }
    }
}

impl Eq for Opened {}

/// One replica at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) partition: Partition,
    pub(crate) node: i32,
    /// The how-manieth life of the node.
    pub(crate) life: u64,
    pub(crate) epoch: i32,
    pub(crate) is_leader: bool,
    pub(crate) is_offline: bool,
    pub(crate) marks: Marks,
    pub(crate) opened: Opened,
}

#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    last: BTreeMap<(Partition, i32), Replica>,
}

impl Watermarks {
    /// A replica that a node has no more, and gets again later, begins anew.
    pub(crate) fn forget_others(&mut self, node: i32, held: &[Replica]) {
        let is_held = |partition: &Partition| held.iter().any(|replica| replica.partition == *partition);
        self.last
            .retain(|(partition, of), _| *of != node || is_held(partition));
    }

    pub(crate) fn check(&mut self, now: &Replica) -> Result<(), Violation> {
        let Replica {
            partition,
            node,
            marks,
            ..
        } = now;
        let in_order = marks.log_start <= marks.last_stable
            && marks.last_stable <= marks.high_watermark
            && marks.high_watermark <= marks.log_end
            && marks.synced <= marks.log_end;
        if !in_order {
            let what = format!("{partition} on n{node}: {marks:?}");
            return Err(Violation::new("marks keep their order", what));
        }
        let before = self.last.insert((partition.clone(), *node), now.clone());
        let Some(before) = before.filter(|before| before.life == now.life && before.opened == now.opened)
        else {
            return Ok(());
        };
        if before.epoch > now.epoch {
            let what = format!(
                "{partition} on n{node}: epoch {} after {}",
                now.epoch, before.epoch
            );
            return Err(Violation::new("epochs rise", what));
        }
        let was = &before.marks;
        let leads_on = before.epoch == now.epoch && before.is_leader && now.is_leader;
        if marks.high_watermark < was.high_watermark || (leads_on && marks.synced < was.synced) {
            let what = format!(
                "{partition} on n{node} in epoch {}: {marks:?} after {was:?}",
                now.epoch
            );
            return Err(Violation::new("the watermark never falls", what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::Offset;

    use super::*;
    use crate::invariants::made_up::partition;

    fn replica(high_watermark: i64, epoch: i32, life: u64) -> Replica {
        Replica {
            partition: partition(0),
            node: 1,
            life,
            epoch,
            is_leader: true,
            is_offline: false,
            marks: Marks {
                log_start: Offset(0),
                high_watermark: Offset(high_watermark),
                last_stable: Offset(high_watermark),
                log_end: Offset(10),
                synced: Offset(10),
            },
            opened: Opened(None),
        }
    }

    #[test]
    fn marks_that_fall_or_cross_are_found() {
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.check(&replica(5, 1, 1)), Ok(()));
        let fallen = watermarks.check(&replica(4, 1, 1)).expect_err("fallen");
        assert_eq!(fallen.invariant, "the watermark never falls");
        assert!(
            watermarks.check(&replica(3, 2, 1)).is_err(),
            "in a new epoch, too"
        );
        assert_eq!(watermarks.check(&replica(6, 2, 1)), Ok(()));
        assert!(
            watermarks.check(&replica(6, 1, 1)).is_err(),
            "an epoch that falls"
        );
        assert_eq!(watermarks.check(&replica(1, 1, 2)), Ok(()));
        assert!(watermarks.check(&replica(11, 2, 1)).is_err(), "beyond the end");
    }

    #[test]
    fn a_replica_that_is_given_again_begins_anew() {
        let marks = watch::Sender::new(replica(0, 1, 1).marks);
        let (mut before, mut after) = (replica(5, 1, 1), replica(4, 1, 1));
        before.opened = Opened(Some(marks.subscribe()));
        after.opened = before.opened.clone();
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.check(&before), Ok(()));
        assert!(watermarks.check(&after).is_err(), "the same one");
        let another = watch::Sender::new(after.marks);
        after.opened = Opened(Some(another.subscribe()));
        assert_eq!(watermarks.check(&before), Ok(()));
        assert_eq!(watermarks.check(&after), Ok(()));
    }

    #[test]
    fn a_follower_may_truncate_and_a_leader_may_not() {
        let cut = |is_leader| {
            let mut watermarks = Watermarks::default();
            let before = Replica {
                is_leader,
                ..replica(5, 1, 1)
            };
            let mut after = before.clone();
            (after.marks.log_end, after.marks.synced) = (Offset(7), Offset(7));
            watermarks.check(&before).expect("the first look");
            watermarks.check(&after)
        };
        assert_eq!(cut(false), Ok(()));
        assert!(cut(true).is_err());
    }
}
