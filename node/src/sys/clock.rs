//! Time: one monotonic, one of day, and sleeping.
//! Owns the only reading of the machine's clocks. Must never let a duration be measured by the time of day.

#![allow(clippy::disallowed_methods, reason = "the door itself")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// A clock. Clones read the same one.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The runtime's monotonic clock and the machine's time of day.
    System,
    /// The runtime's clock for both: a paused runtime is then a simulated machine.
    Runtime { unix_ms: i64, at: Instant },
    /// Moves only when told to.
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    base: Instant,
    unix_ms: AtomicI64,
    elapsed: watch::Sender<Duration>,
}

/// The time a caller allowed is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time is up")]
pub struct Elapsed;

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Follows the runtime's clock, paused or not, from a given time of day on.
    pub fn runtime(unix_ms: i64) -> Self {
        Self(Source::Runtime {
            unix_ms,
            at: runtime_now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(unix_ms: i64) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            base: Instant::now(),
            unix_ms: AtomicI64::new(unix_ms),
            elapsed: watch::Sender::new(Duration::ZERO),
        })))
    }

    /// Monotonic time, for measuring and for deadlines.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System | Source::Runtime { .. } => runtime_now(),
            Source::Manual(manual) => manual.base + *manual.elapsed.borrow(),
        }
    }

    /// Milliseconds since 1970: what goes into records. It may jump either way.
    pub fn unix_ms(&self) -> i64 {
        match &self.0 {
            Source::System => unix_ms_of(SystemTime::now()),
            Source::Runtime { unix_ms, at } => unix_ms + runtime_now().duration_since(*at).as_millis() as i64,
            Source::Manual(manual) => manual.unix_ms.load(Ordering::Relaxed),
        }
    }

    /// The duration runs from the call, not from the first poll. Cancel-safe.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + '_ {
        self.sleep_until(self.now() + duration)
    }

    /// As [`Clock::sleep_until`]; without a deadline it never returns.
    pub async fn sleep_until_some(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// Returns once [`Clock::now`] has reached `deadline`. Cancel-safe.
    pub async fn sleep_until(&self, deadline: Instant) {
        match &self.0 {
            Source::System | Source::Runtime { .. } => {
                tokio::time::sleep_until(tokio::time::Instant::from_std(deadline)).await;
            }
            Source::Manual(manual) => {
                let mut elapsed = manual.elapsed.subscribe();
                let base = manual.base;
                // The sender lives in this clock, so waiting cannot fail.
                let _ = elapsed.wait_for(|elapsed| base + *elapsed >= deadline).await;
            }
        }
    }

    /// Runs `future` for `duration` at most, then drops it.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.sleep(duration) => Err(Elapsed),
        }
    }

    /// Moves a manual clock, both its times; the others move by themselves.
    pub fn advance(&self, duration: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual
                .unix_ms
                .fetch_add(duration.as_millis() as i64, Ordering::Relaxed);
            manual.elapsed.send_modify(|elapsed| *elapsed += duration);
        }
    }

    /// Sets the time of day of a manual clock: a jump, of which monotonic time knows nothing.
    pub fn set_unix_ms(&self, unix_ms: i64) {
        if let Source::Manual(manual) = &self.0 {
            manual.unix_ms.store(unix_ms, Ordering::Relaxed);
        }
    }
}

/// CPU time that the calling thread has used: what a limit on somebody else's code is measured by, so that he is
/// not blamed for a busy machine. Zero where the system does not count it.
pub fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

fn runtime_now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn unix_ms_of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_moved() {
        let clock = Clock::manual(1_000);
        let sleeper = clock.clone();
        let sleep = sleeper.sleep(Duration::from_millis(250));
        tokio::pin!(sleep);
        clock.advance(Duration::from_millis(249));
        assert!(futures_util::poll!(sleep.as_mut()).is_pending());
        clock.advance(Duration::from_millis(1));
        sleep.await;
        assert_eq!(clock.unix_ms(), 1_250);
    }

    #[tokio::test]
    async fn a_timeout_is_over_only_when_the_clock_says_so() {
        let clock = Clock::manual(0);
        let timed = clock.clone();
        assert_eq!(timed.timeout(Duration::ZERO, std::future::ready(1)).await, Ok(1));
        let waiting = timed.timeout(Duration::from_secs(1), std::future::pending::<()>());
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        clock.advance(Duration::from_secs(1));
        assert_eq!(waiting.await, Err(Elapsed));
    }
}
