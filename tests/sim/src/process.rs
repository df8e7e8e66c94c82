//! One simulated process: a runtime of its own, with a clock of its own, that runs only when it is driven.
//!
//! - Dropping it ends every task in it at once, whoever spawned them: that is a crash.
//! - Its clock runs faster or slower than the world's by a rate of its own.
//!
//! It must never start a thread, nor wait for anything real.

use std::future::Future;
use std::time::Duration;

use headwater::sys::random::Random;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::time::Instant;

/// How far a clock is from the world's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Skew {
    /// Of the time of day.
    pub(crate) offset_ms: i64,
    /// How much faster it runs, in millionths.
    pub(crate) rate_ppm: i64,
}

#[derive(Debug)]
pub(crate) struct Process {
    runtime: Runtime,
    /// Its own clock at its birth.
    base: Instant,
    /// The world's clock at its birth.
    born: Duration,
    skew: Skew,
}

impl Process {
    /// Begins to live at the world's time `born`.
    pub(crate) fn new(random: &Random, born: Duration, skew: Skew) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&random.u64().to_le_bytes()))
            .build()
            .expect("a runtime without input and output needs nothing of the machine");
        let base = runtime.block_on(async { Instant::now() });
        Self {
            runtime,
            base,
            born,
            skew,
        }
    }

    /// Does something as if inside the process, which does not run meanwhile.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _inside = self.runtime.enter();
        work()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the simulator's own tasks have no node to belong to"
    )]
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(future));
    }

    /// Runs until its clock shows what it shows when the world's is at `now`.
    pub(crate) fn run_until(&self, now: Duration) {
        let target = self.base + self.local(now);
        self.runtime
            .block_on(async { tokio::time::sleep_until(target).await });
    }

    /// Lets time pass in which the process does not run: it wakes up later than it meant to.
    pub(crate) fn stand_still_until(&self, now: Duration) {
        let target = self.base + self.local(now);
        self.runtime.block_on(async {
            let behind = target.saturating_duration_since(Instant::now());
            tokio::time::advance(behind).await;
        });
    }

    fn local(&self, now: Duration) -> Duration {
        let lived = now.saturating_sub(self.born).as_nanos();
        let rate = u128::try_from(1_000_000 + self.skew.rate_ppm).unwrap_or(1);
        Duration::from_nanos(u64::try_from(lived * rate / 1_000_000).unwrap_or(u64::MAX))
    }
}
