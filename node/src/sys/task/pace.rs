//! How long work that waits for the disk takes in a simulation.
//! Pure; must never wait itself.

use std::time::Duration;

use crate::sys::random::Random;

/// One in so many pieces of work takes as long as it can.
const STALL_ONE_IN: u64 = 200;

/// Durations drawn from a seed. Clones draw from the same one.
#[derive(Clone, Debug)]
pub struct Pace {
    random: Random,
    usual_us_max: u64,
    stall_us_max: u64,
}

impl Pace {
    /// Work takes up to `usual`, and now and then up to `stall`.
    pub fn new(random: Random, usual: Duration, stall: Duration) -> Self {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX - 1);
        Self {
            random,
            usual_us_max: us(usual),
            stall_us_max: us(stall),
        }
    }

    /// What passes before the work, and what between the work and the news of it.
    pub(super) fn draw(&self) -> (Duration, Duration) {
        let us_max = match self.random.one_in(STALL_ONE_IN) {
            true => self.stall_us_max,
            false => self.usual_us_max,
        };
        let all = self.random.below(us_max + 1);
        let before = self.random.below(all + 1);
        (Duration::from_micros(before), Duration::from_micros(all - before))
    }
}
