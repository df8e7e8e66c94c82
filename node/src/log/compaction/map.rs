//! The newest offset of each key, in a bounded piece of memory.
//! Owns the table. A key is known by 128 bits of its hash alone: two keys are taken for one with a chance that counts for
//! nothing, and nobody can make two on purpose. Must never forget a key that it took.

use headwater_protocol::ids::Offset;
use sha2::{Digest, Sha256};

/// The hash of a key, and its offset plus one; zero: free.
type Slot = [u64; 3];

/// What a key takes.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

/// Keys and their offsets.
///
/// - At most `limit` slots are used, so that a search ends at a free one.
#[derive(Debug)]
pub(super) struct OffsetMap {
    slots: Vec<Slot>,
    used: usize,
    limit: usize,
}

/// Whether a key found room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    Full,
}

impl OffsetMap {
    /// A table of `bytes` at most, and no larger than `keys` of them need. It holds one key at least. The memory is taken as
    /// it is used.
    pub(super) fn new(bytes: usize, keys: u64) -> Self {
        let enough = usize::try_from(keys.saturating_add(keys / 4)).unwrap_or(usize::MAX);
        let slots = (bytes / SLOT_BYTES).min(enough.saturating_add(2)).max(2);
        Self {
            slots: vec![[0; 3]; slots],
            used: 0,
            limit: (slots / 5 * 4 + slots % 5 * 4 / 5).max(1),
        }
    }

    /// Notes that `key` was written at `offset`, which is above all offsets before. A key that is new and finds no room
    /// is not noted.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) -> Put {
        let hash = hash(key);
        let at = self.find(hash);
        if self.slots[at][2] == 0 {
            if self.used == self.limit {
                return Put::Full;
            }
            self.used += 1;
        }
        self.slots[at] = [hash[0], hash[1], offset.value() as u64 + 1];
        Put::Done
    }

    /// Where `key` was written last.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let stored = self.slots[self.find(hash(key))][2];
        stored.checked_sub(1).map(|offset| Offset(offset as i64))
    }

    /// The slot of a key, or the free one where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(hash[0]) * count as u128) >> 64) as usize;
        while self.slots[at][2] != 0 && self.slots[at][..2] != hash {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }
}

fn hash(key: &[u8]) -> [u64; 2] {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    [word(0), word(8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_each_key_is_known_until_there_is_no_room() {
        let mut map = OffsetMap::new(50 * SLOT_BYTES, u64::MAX);
        for round in 0..3 {
            for key in 0..40_i64 {
                let offset = Offset(round * 40 + key);
                assert_eq!(map.put(&key.to_be_bytes(), offset), Put::Done);
            }
        }
        assert_eq!(map.put(b"one too many", Offset(1_000)), Put::Full);
        assert_eq!(map.get(b"one too many"), None);
        assert_eq!(map.put(&7_i64.to_be_bytes(), Offset(2_000)), Put::Done);
        for key in 0..40_i64 {
            let expected = if key == 7 { 2_000 } else { 80 + key };
            assert_eq!(map.get(&key.to_be_bytes()), Some(Offset(expected)));
        }
    }

    #[test]
    fn it_is_as_small_as_what_it_is_for() {
        let mut map = OffsetMap::new(128 << 20, 10);
        assert!(map.slots.len() < 20);
        for key in 0..10_u8 {
            assert_eq!(map.put(&[key], Offset(i64::from(key))), Put::Done);
        }
        assert_eq!(OffsetMap::new(0, 0).put(b"one", Offset(0)), Put::Done);
    }
}
