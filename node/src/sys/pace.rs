//! Bytes per second: who copies in the background spends what time gives. Pure: time is an argument.
//!
//! Owns the account. Whoever asks before spending spends at most one read too much, which the next ones wait for.

use std::time::{Duration, Instant};

/// What may be saved up at most.
const SAVED: Duration = Duration::from_secs(1);
const NANOS: u128 = 1_000_000_000;

/// An account that fills with time and is spent by bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pace {
    /// Below zero: more was spent than there was.
    balance: i128,
    at: Option<Instant>,
}

impl Pace {
    /// How many bytes may be spent now, at so many bytes per second. Zero: none yet.
    pub fn allowance(&mut self, rate: u64, now: Instant) -> u64 {
        let most = i128::from(rate) * i128::from(SAVED.as_secs());
        let earned = match self.at {
            None => most,
            Some(at) => {
                let nanos = now.saturating_duration_since(at).as_nanos();
                let earned = u128::from(rate).saturating_mul(nanos) / NANOS;
                i128::try_from(earned).unwrap_or(most)
            }
        };
        // What is less than a byte is earned later: time stands still until it is one.
        if earned > 0 || self.at.is_none() {
            self.balance = self.balance.saturating_add(earned).min(most);
            self.at = Some(now);
        }
        u64::try_from(self.balance).unwrap_or(0)
    }

    pub fn spend(&mut self, bytes: u64) {
        self.balance = self.balance.saturating_sub(i128::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_pays_for_bytes_and_debts_are_waited_for() {
        let start = crate::sys::clock::Clock::manual(0).now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert_eq!(pace.allowance(1000, at(0)), 1000);
        pace.spend(1500);
        assert_eq!(pace.allowance(1000, at(100)), 0);
        assert_eq!(pace.allowance(1000, at(500)), 0);
        assert_eq!(pace.allowance(1000, at(600)), 100);
        // Not more than a second's worth is saved, and a lower rate saves less.
        assert_eq!(pace.allowance(1000, at(60_000)), 1000);
        assert_eq!(pace.allowance(10, at(60_100)), 10);
        pace.spend(10);
        for ms in 60_101..60_200 {
            assert_eq!(pace.allowance(10, at(ms)), 0);
        }
        assert_eq!(pace.allowance(10, at(60_200)), 1);
        assert_eq!(pace.allowance(u64::MAX, at(60_201)), u64::MAX / 1000 + 1);
    }
}
