//! At most one node leads a partition in one leader epoch, ever.
//!
//! Two nodes may both believe that they lead, in different epochs: the older one cannot commit.

use std::collections::BTreeMap;

use super::Violation;
use super::watermarks::Replica;
use crate::client::Partition;

#[derive(Debug, Default)]
pub(crate) struct Leaders {
    by_epoch: BTreeMap<(Partition, i32), i32>,
}

impl Leaders {
    pub(crate) fn check(&mut self, replica: &Replica) -> Result<(), Violation> {
        if !replica.is_leader {
            return Ok(());
        }
        let Replica {
            partition,
            epoch,
            node,
            ..
        } = replica;
        let known = *self.by_epoch.entry((partition.clone(), *epoch)).or_insert(*node);
        if known == *node {
            return Ok(());
        }
        let what = format!("{partition}: n{known} and n{node} both lead in epoch {epoch}");
        Err(Violation::new("one leader per epoch", what))
    }
}

#[cfg(test)]
mod tests {
    use headwater::partition::Watermarks as Marks;
    use headwater_protocol::ids::Offset;

    use super::*;
    use crate::invariants::made_up::partition;
    use crate::invariants::watermarks::Opened;

    #[test]
    fn two_leaders_of_one_epoch_are_found() {
        let leads = |node, epoch, is_leader| Replica {
            partition: partition(0),
            node,
            life: 1,
            epoch,
            is_leader,
            is_offline: false,
            marks: Marks {
                log_start: Offset(0),
                high_watermark: Offset(0),
                last_stable: Offset(0),
                log_end: Offset(0),
                synced: Offset(0),
            },
            opened: Opened(None),
        };
        let mut leaders = Leaders::default();
        assert_eq!(leaders.check(&leads(1, 1, true)), Ok(()));
        assert_eq!(leaders.check(&leads(2, 1, false)), Ok(()));
        assert_eq!(leaders.check(&leads(2, 2, true)), Ok(()));
        assert!(leaders.check(&leads(2, 1, true)).is_err());
    }
}
