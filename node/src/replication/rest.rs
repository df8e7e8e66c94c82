//! How much of its time this node spends catching up: after each full answer it rests for as long as its share asks, so
//! that the reads, the network and the syncs of others find gaps. Pure: time is an argument.
//!
//! Owns this node's one queue of rests, whatever the number of leaders and partitions. A machine that is busy, or slow,
//! makes copying take longer, and so the rests: there is no rate to be set.

use std::time::{Duration, Instant};

/// One rest at most: what hung for once is no measure.
const REST_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Option<Instant>,
}

impl Rest {
    /// When the next may be asked for, after a full answer that took so long. `percent`: of the time, to be spent copying.
    pub(super) fn after(&mut self, took: Duration, percent: u32, now: Instant) -> Instant {
        let percent = percent.clamp(1, 100);
        let rest = (took * (100 - percent) / percent).min(REST_MAX);
        let from = self.until.map_or(now, |until| until.max(now));
        let until = from + rest;
        self.until = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_takes_its_share_of_the_time_and_rests_follow_each_other() {
        let start = crate::sys::clock::Clock::manual(0).now();
        let ms = Duration::from_millis;
        let mut rest = Rest::default();
        assert_eq!(rest.after(ms(10), 50, start), start + ms(10));
        // Another partition's, copied beside it: together they rest for as long as both took.
        assert_eq!(rest.after(ms(10), 50, start), start + ms(20));
        assert_eq!(rest.after(ms(10), 25, start + ms(30)), start + ms(60));
        assert_eq!(rest.after(ms(10), 100, start + ms(70)), start + ms(70));
        let hung = Duration::from_secs(3600);
        assert_eq!(rest.after(hung, 50, start + ms(70)), start + ms(70) + REST_MAX);
    }
}
