//! Where records without a key go; those with one are placed by `headwater_protocol::partitioner`.
//!
//! Pure. It must never look at a value.

/// Where records without a key go: to one partition until enough bytes went there, then to another.
///
/// Staying with one partition fills batches; moving on by bytes spreads the load evenly.
#[derive(Debug)]
pub(crate) struct Sticky {
    partition: u32,
    bytes_left: usize,
    stay_bytes: usize,
    chance: u64,
}

impl Sticky {
    /// `seed` makes producers begin at different partitions.
    pub(crate) fn new(stay_bytes: usize, seed: u64) -> Self {
        Self {
            partition: seed as u32,
            bytes_left: stay_bytes,
            stay_bytes,
            chance: seed | 1,
        }
    }

    /// The partition among `count` for a record of about `bytes`.
    pub(crate) fn next(&mut self, count: u32, bytes: usize) -> u32 {
        if self.bytes_left < bytes {
            self.move_on(count);
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.partition % count
    }

    /// Leaves the current partition, for instance because it has no leader.
    pub(crate) fn move_on(&mut self, count: u32) {
        self.bytes_left = self.stay_bytes;
        if count < 2 {
            return;
        }
        // xorshift64: any other partition, evenly enough.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        let step = 1 + (self.chance >> 32) as u32 % (count - 1);
        self.partition = (self.partition % count + step) % count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sticky_partition_changes_by_bytes_and_visits_all() {
        let mut sticky = Sticky::new(1000, 7);
        let mut bytes = [0usize; 5];
        for _ in 0..10_000 {
            let first = sticky.partition % 5;
            let left = sticky.bytes_left;
            let chosen = sticky.next(5, 100);
            assert!(
                chosen == first || left < 100,
                "it moves only when its share is used up"
            );
            bytes[chosen as usize] += 100;
        }
        assert!(
            bytes.iter().all(|&bytes| (100_000..400_000).contains(&bytes)),
            "{bytes:?}"
        );
    }

    #[test]
    fn a_single_partition_takes_everything() {
        let mut sticky = Sticky::new(10, 99);
        assert!((0..100).all(|_| sticky.next(1, 50) == 0));
    }
}
