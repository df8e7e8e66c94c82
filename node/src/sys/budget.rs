//! Memory as permits: whoever queues bytes takes a permit for them first.
//! Owns the count. Must never hand out more than it has, nor let one large request wait for ever.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes that many share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    capacity: u32,
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped permit gives its bytes back at once"]
pub struct Permit {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// # Panics
    /// When `bytes` is zero. More than 4 GiB count as 4 GiB.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0, "a budget of nothing would wait for ever");
        let capacity = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            semaphore: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
        }
    }

    /// Waits for `bytes`, in the order of asking. A request above the whole budget takes all of it: it runs
    /// alone, but it runs. Cancel-safe: a dropped future takes nothing.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        let acquired = Arc::clone(&self.semaphore)
            .acquire_many_owned(self.clamp(bytes))
            .await;
        Permit {
            permit: acquired.expect("the semaphore of a budget is never closed"),
        }
    }

    /// Takes `bytes` if they are there now.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let acquired = Arc::clone(&self.semaphore).try_acquire_many_owned(self.clamp(bytes));
        acquired.ok().map(|permit| Permit { permit })
    }

    pub fn available(&self) -> usize {
        self.semaphore.available_permits()
    }

    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    fn clamp(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity)
    }
}

impl Permit {
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.permit.split(self.bytes().saturating_sub(bytes)));
    }

    /// Makes one permit of two from the same budget.
    ///
    /// # Panics
    /// When they come from different budgets.
    pub fn merge(&mut self, other: Permit) {
        self.permit.merge(other.permit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_back_when_a_permit_goes() {
        let budget = Budget::new(100);
        let mut first = budget.acquire(80).await;
        assert!(budget.try_acquire(21).is_none());
        first.shrink_to(30);
        let second = budget.try_acquire(70).unwrap();
        assert_eq!((first.bytes(), second.bytes(), budget.available()), (30, 70, 0));
        first.merge(second);
        drop(first);
        assert_eq!(budget.available(), 100);
    }

    #[tokio::test]
    async fn a_request_above_the_budget_runs_alone() {
        let budget = Budget::new(100);
        let all = budget.acquire(1_000).await;
        assert_eq!(all.bytes(), 100);
        let next = budget.acquire(1);
        tokio::pin!(next);
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(all);
        assert_eq!(next.await.bytes(), 1);
    }
}
