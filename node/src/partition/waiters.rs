//! Those who wait for an offset to be reached, in the order of the offsets they wait for. Pure.
//!
//! Owns the queue. It never answers anybody itself.

use headwater_protocol::ids::Offset;
use std::collections::VecDeque;

/// Waiters by the offset they wait for.
#[derive(Debug)]
pub(super) struct Waiters<T> {
    queue: VecDeque<(Offset, T)>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
        }
    }
}

impl<T> Waiters<T> {
    /// `waiter` waits until everything below `end` is reached.
    pub(super) fn push(&mut self, end: Offset, waiter: T) {
        // A duplicate waits for an offset of long ago: it goes in front of those that come later.
        let at = self.queue.partition_point(|(other, _)| *other <= end);
        self.queue.insert(at, (end, waiter));
    }

    /// The next one whose offset is reached.
    pub(super) fn pop_reached(&mut self, reached: Offset) -> Option<T> {
        let (end, _) = self.queue.front()?;
        if *end > reached {
            return None;
        }
        self.queue.pop_front().map(|(_, waiter)| waiter)
    }

    /// All of them: none will be reached.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.queue.drain(..).map(|(_, waiter)| waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_taken_in_the_order_of_their_offsets() {
        let mut waiters = Waiters::default();
        for (end, name) in [(5, 'a'), (9, 'b'), (2, 'c'), (5, 'd')] {
            waiters.push(Offset(end), name);
        }
        assert_eq!(waiters.pop_reached(Offset(1)), None);
        let reached: String = std::iter::from_fn(|| waiters.pop_reached(Offset(5))).collect();
        assert_eq!(reached, "cad");
        assert_eq!(waiters.drain().collect::<String>(), "b");
    }
}
