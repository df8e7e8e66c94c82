//! How a module behaves on one partition, and what of the machine it gets for that.
//! It owns those rules. It is pure: the pipeline says how calls went, and does what is answered.
//!
//! A module that is new, or has failed lately, runs where nobody else feels it. One that fails on and on rests for nine
//! times as long as its failing takes, so that it has a tenth of one such thread at most.

use std::time::Duration;

/// Calls in a row that must go well before a module runs beside everybody else.
const TRUSTED_AFTER: u32 = 16;
/// Failures in a row that are no more than the search for one bad record: a call's records are halved so often.
const SEARCH_FAILURES_MAX: u32 = 16;

/// What is known of a module on one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conduct {
    good_in_a_row: u32,
    bad_in_a_row: u32,
}

/// How a call failed, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offence {
    /// It ran until it was stopped.
    Overran,
    /// It trapped, or answered something unusable.
    Broke,
}

impl Conduct {
    /// Whether calls may be made beside everybody else's.
    pub(crate) fn is_trusted(&self) -> bool {
        self.good_in_a_row >= TRUSTED_AFTER
    }

    pub(crate) fn succeeded(&mut self) {
        self.good_in_a_row = self.good_in_a_row.saturating_add(1);
        self.bad_in_a_row = 0;
    }

    /// A call failed, and dealing with that took so long. Answers how long others come first.
    pub(crate) fn failed(&mut self, offence: Offence, took: Duration) -> Duration {
        self.good_in_a_row = 0;
        self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
        match offence {
            Offence::Overran | Offence::Broke if self.bad_in_a_row > SEARCH_FAILURES_MAX => took * 9,
            Offence::Overran => took,
            Offence::Broke => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(100);

    #[test]
    fn trust_is_earned_and_lost_with_one_failure() {
        let mut conduct = Conduct::default();
        for _ in 0..TRUSTED_AFTER {
            assert!(!conduct.is_trusted());
            conduct.succeeded();
        }
        assert!(conduct.is_trusted());
        conduct.failed(Offence::Broke, TOOK);
        assert!(!conduct.is_trusted());
    }

    #[test]
    fn who_fails_on_and_on_has_a_tenth_of_the_time() {
        for (offence, at_first) in [(Offence::Overran, TOOK), (Offence::Broke, Duration::ZERO)] {
            let mut conduct = Conduct::default();
            for _ in 0..SEARCH_FAILURES_MAX {
                assert_eq!(conduct.failed(offence, TOOK), at_first);
            }
            assert_eq!(conduct.failed(offence, TOOK), TOOK * 9);
            conduct.succeeded();
            assert_eq!(conduct.failed(offence, TOOK), at_first, "a search begins anew");
        }
    }
}
