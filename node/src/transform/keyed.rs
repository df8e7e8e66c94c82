//! The keyed store that a module reads and writes through `state`: what is committed, and what the call under way
//! has written on top of it.
//! It owns the bound on its size. It is pure: nothing is committed before the caller says so.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::changelog::ENTRY_BYTES_MAX;

/// What an entry costs in memory beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 80;

/// A key and its new value; none removes it.
pub(crate) type Change = (Arc<[u8]>, Option<Arc<[u8]>>);

/// The store, or an entry of it, would outgrow its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuchState {
    #[error("the module's state needs more than {limit} bytes")]
    Store { limit: usize },
    #[error("an entry of the module's state has {bytes} bytes, the limit is {ENTRY_BYTES_MAX}")]
    Entry { bytes: usize },
}

/// The store of one partition of one transform.
///
/// - `bytes` counts what `committed` holds; `pending_bytes` bounds what `pending` would add.
#[derive(Debug, Clone)]
pub(crate) struct KeyedStore {
    committed: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    pending: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
    bytes: usize,
    pending_bytes: usize,
    bytes_max: usize,
}

impl KeyedStore {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            committed: BTreeMap::new(),
            pending: BTreeMap::new(),
            bytes: 0,
            pending_bytes: 0,
            bytes_max,
        }
    }

    /// Takes up where a committed state left off.
    pub(crate) fn restore(
        bytes_max: usize,
        entries: impl IntoIterator<Item = (Arc<[u8]>, Arc<[u8]>)>,
    ) -> Self {
        let mut store = Self::new(bytes_max);
        for (key, value) in entries {
            store.set(key, Some(value));
        }
        store
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.committed.iter()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        match self.pending.get(key) {
            Some(value) => value.as_deref(),
            None => self.committed.get(key).map(|value| &**value),
        }
    }

    pub(crate) fn put_many(&mut self, entries: Vec<Change>) -> Result<(), TooMuchState> {
        for (key, value) in entries {
            let bytes = key.len() + value.as_ref().map_or(0, |value| value.len());
            if bytes > ENTRY_BYTES_MAX {
                return Err(TooMuchState::Entry { bytes });
            }
            self.pending_bytes += bytes + ENTRY_OVERHEAD_BYTES;
            if self.bytes + self.pending_bytes > self.bytes_max {
                return Err(TooMuchState::Store {
                    limit: self.bytes_max,
                });
            }
            self.pending.insert(key, value);
        }
        Ok(())
    }

    /// Keys in `[start, end)` with their values, in order. An empty `end` is no end.
    pub(crate) fn scan<'a>(
        &'a self,
        start: &'a [u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let range = (
            Bound::Included(start),
            if end.is_empty() {
                Bound::Unbounded
            } else {
                Bound::Excluded(end)
            },
        );
        let is_empty = !end.is_empty() && end <= start;
        let mut old = (!is_empty)
            .then(|| self.committed.range::<[u8], _>(range))
            .into_iter()
            .flatten()
            .peekable();
        let mut new = (!is_empty)
            .then(|| self.pending.range::<[u8], _>(range))
            .into_iter()
            .flatten()
            .peekable();
        std::iter::from_fn(move || {
            loop {
                let new_is_next = match (old.peek(), new.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => false,
                    (None, Some(_)) => true,
                    (Some((old, _)), Some((new, _))) => new <= old,
                };
                if !new_is_next {
                    return old.next().map(|(key, value)| (&**key, &**value));
                }
                let (key, value) = new.next()?;
                old.next_if(|(old, _)| *old == key);
                if let Some(value) = value {
                    return Some((&**key, &**value));
                }
            }
        })
    }

    /// Makes what the call wrote part of the store, and gives it.
    pub(crate) fn commit(&mut self) -> Vec<Change> {
        let changes: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        self.pending_bytes = 0;
        for (key, value) in &changes {
            self.set(Arc::clone(key), value.clone());
        }
        changes
    }

    /// Forgets what the call wrote.
    pub(crate) fn roll_back(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    fn set(&mut self, key: Arc<[u8]>, value: Option<Arc<[u8]>>) {
        let key_bytes = key.len();
        let old = match value {
            Some(value) => {
                self.bytes += key_bytes + value.len() + ENTRY_OVERHEAD_BYTES;
                self.committed.insert(key, value)
            }
            None => self.committed.remove(&key),
        };
        if let Some(old) = old {
            self.bytes -= key_bytes + old.len() + ENTRY_OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(key: u8, value: Option<u8>) -> Change {
        (Arc::from([key]), value.map(|value| Arc::from([value])))
    }

    #[test]
    fn what_a_call_wrote_is_seen_and_can_be_taken_back() {
        let mut store = KeyedStore::new(1_000);
        store.put_many(vec![change(1, Some(7))]).unwrap();
        assert_eq!(store.get(&[1]), Some(&[7][..]));
        store.roll_back();
        assert_eq!((store.get(&[1]), store.bytes()), (None, 0));
        store.put_many(vec![change(1, Some(8))]).unwrap();
        assert_eq!(store.commit(), [change(1, Some(8))]);
        store.put_many(vec![change(1, None)]).unwrap();
        assert_eq!(store.get(&[1]), None);
        store.commit();
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut store = KeyedStore::new(200);
        assert_eq!(
            store.put_many((0..3).map(|key| change(key, Some(0))).collect()),
            Err(TooMuchState::Store { limit: 200 })
        );
        let mut store = KeyedStore::new(usize::MAX);
        let value: Arc<[u8]> = vec![0; ENTRY_BYTES_MAX].into();
        let (key, bytes) = (Arc::from([1]), ENTRY_BYTES_MAX + 1);
        assert_eq!(
            store.put_many(vec![(key, Some(value))]),
            Err(TooMuchState::Entry { bytes })
        );
    }

    proptest! {
        #[test]
        fn a_scan_is_what_a_plain_map_gives(
            committed in prop::collection::btree_map(0u8..20, any::<u8>(), 0..20),
            pending in prop::collection::vec((0u8..20, prop::option::of(any::<u8>())), 0..20),
            start in prop::collection::vec(0u8..20, 0..2),
            end in prop::collection::vec(0u8..20, 0..2),
        ) {
            let mut store = KeyedStore::new(usize::MAX);
            store.put_many(committed.iter().map(|(key, value)| change(*key, Some(*value))).collect()).unwrap();
            store.commit();
            store.put_many(pending.iter().map(|(key, value)| change(*key, *value)).collect()).unwrap();
            let mut plain: BTreeMap<Vec<u8>, Vec<u8>> =
                committed.into_iter().map(|(key, value)| (vec![key], vec![value])).collect();
            for (key, value) in pending {
                match value {
                    Some(value) => plain.insert(vec![key], vec![value]),
                    None => plain.remove(&vec![key]),
                };
            }
            let expected: Vec<_> = plain
                .iter()
                .filter(|(key, _)| **key >= start && (end.is_empty() || **key < end))
                .map(|(key, value)| (&key[..], &value[..]))
                .collect();
            prop_assert_eq!(store.scan(&start, &end).collect::<Vec<_>>(), expected);
        }
    }
}
