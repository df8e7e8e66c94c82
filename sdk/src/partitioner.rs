//! Which partition a record goes to.
//!
//! Pure. It owns the promise that a key lands where Kafka's own producer would put it; it must never look at
//! a value.

/// Kafka's murmur2 with its fixed seed.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four bytes"));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (index, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key among `count` partitions, as Kafka's default partitioner has it.
///
/// # Panics
/// When `count` is 0.
pub fn partition_for_key(key: &[u8], count: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % count
}

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

    /// Values Kafka's own test of `Utils.murmur2` holds, as signed 32-bit numbers.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            (b"abc", 479470107),
            (b"", 275646681),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key) as i32, expected, "{key:?}");
        }
    }

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
