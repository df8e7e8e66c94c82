//! Where a replica's log parts from its leader's (KIP-101, KIP-279). Pure.
//!
//! Owns the rule alone. What is right for one comparison need not be all of it: after each truncation the histories are
//! compared again, until they agree.

use headwater_protocol::ids::{LeaderEpoch, Offset};

use crate::partition::EpochEnd;

/// Up to where a replica that ends at `own_end` keeps its log.
///
/// `leader`: the highest epoch that the leader knows up to the replica's last one, and where it ends there. `own`: the
/// highest epoch that the replica knows up to that one, and where it ends here. None: the leader knows nothing that
/// could be compared.
pub(super) fn keep_until(leader: EpochEnd, own: Option<EpochEnd>, own_end: Offset) -> Option<Offset> {
    if leader.epoch == LeaderEpoch::NONE || leader.end < Offset::ZERO {
        return None;
    }
    let end = match own {
        // Both know the epoch: they agree up to where it ends on the one that has less of it.
        Some(own) if own.epoch == leader.epoch => own.end.min(leader.end),
        // The replica never heard of the leader's epoch: what it has behind an older one is from somebody else. The
        // next comparison is about that one.
        Some(own) => own.end,
        None => leader.end,
    };
    Some(end.min(own_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(epoch: i32, end: i64) -> EpochEnd {
        EpochEnd {
            epoch: LeaderEpoch(epoch),
            end: Offset(end),
        }
    }

    #[test]
    fn the_log_is_kept_up_to_where_both_have_the_same() {
        let cases = [
            // The leader has less of the epoch both know.
            (end(2, 15), Some(end(2, 20)), 20, Some(15)),
            // The replica has less of it, and went on in an epoch the leader never saw.
            (end(2, 30), Some(end(2, 20)), 25, Some(20)),
            // The replica knows an older epoch only: what follows it goes.
            (end(4, 30), Some(end(2, 18)), 25, Some(18)),
            // An epoch without a record at the end: nothing goes but the epoch.
            (end(2, 20), Some(end(2, 20)), 20, Some(20)),
            (end(2, 15), None, 20, Some(15)),
            (end(-1, -1), Some(end(2, 20)), 20, None),
        ];
        for (leader, own, own_end, expected) in cases {
            assert_eq!(
                keep_until(leader, own, Offset(own_end)),
                expected.map(Offset),
                "{leader:?} {own:?}"
            );
        }
    }
}
