//! When to try again: exponential backoff with jitter, inside a deadline.
//!
//! Pure: time and chance are arguments. It must never sleep or decide what may be retried; errors say that
//! of themselves.

use std::time::Duration;

/// How long to wait between attempts.
///
/// - The pause before attempt `n` is drawn from the upper half of `first * 2^(n-1)`, capped at `max`: retries
///   of many clients spread out, and none comes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first pause.
    pub first: Duration,
    /// Upper bound of every pause.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(1),
        }
    }
}

impl Backoff {
    /// The pause after `failures` attempts in a row have failed; `chance` is any random number.
    pub fn pause(&self, failures: u32, chance: u64) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let doublings = (failures - 1).min(30);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.max);
        let half = ceiling / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(chance % nanos.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_attempt_waits_for_nothing() {
        assert_eq!(Backoff::default().pause(0, u64::MAX), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_pause_lies_in_the_upper_half_of_its_step(failures in 1u32..1000, chance: u64) {
            let backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(900) };
            let step = Duration::from_millis(20u64.saturating_mul(1 << (failures - 1).min(20))).min(backoff.max);
            let pause = backoff.pause(failures, chance);
            prop_assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
        }

        #[test]
        fn no_setting_overflows(first: u64, max: u64, failures: u32, chance: u64) {
            let backoff = Backoff { first: Duration::from_secs(first), max: Duration::from_secs(max) };
            prop_assert!(backoff.pause(failures, chance) <= backoff.max);
        }
    }
}
