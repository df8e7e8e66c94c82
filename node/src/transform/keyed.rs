//! The keyed store that a module reads and writes through `state`: what is committed, and what the call under way
//! has written on top of it.
//! It owns the bound on its size, and how long an entry stays. It is pure: nothing is committed before the caller says
//! so, and time is what the records say it is, so that a store that was restored goes on as it would have.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::changelog::ENTRY_BYTES_MAX;
use super::query::{ENTRIES_MAX, Keys, StateQuery};

/// What an entry costs in memory beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 80;

/// In front of the value of an entry that does not stay for ever: when it was written (i64 LE).
const STAMP_BYTES: usize = 8;
/// An entry from before time counted. It is taken for written when the first record says what time it is.
const UNKNOWN_MS: i64 = i64::MIN;

/// A key and its new value, as they are kept; none removes it.
pub(crate) type Change = (Arc<[u8]>, Option<Arc<[u8]>>);

/// The store, or an entry of it, would outgrow its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuchState {
    #[error("the module's state needs more than {limit} bytes")]
    Store { limit: usize },
    #[error("an entry of the module's state has {bytes} bytes, the limit is {ENTRY_BYTES_MAX}")]
    Entry { bytes: usize },
}

/// What is known of a store's time when it is taken up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Age {
    /// Entries that were not written for so long are gone. None: they stay.
    pub(crate) ttl_ms: Option<i64>,
    /// The latest timestamp of the records dealt with.
    pub(crate) clock_ms: Option<i64>,
    /// The entries that were kept say when they were written.
    pub(crate) is_stamped: bool,
}

/// The store of one partition of one transform.
///
/// - `bytes` counts what `committed` holds; `pending_bytes` bounds what `pending` would add.
/// - With a time to live every value, committed or pending, has a stamp in front, and `by_age` has every committed
///   entry by its stamp. An entry goes when the latest timestamp of all records dealt with is that much later. During a
///   call the entries are those of its beginning, however far its own records are apart.
#[derive(Debug, Clone)]
pub(crate) struct KeyedStore {
    ttl_ms: Option<i64>,
    clock_ms: Option<i64>,
    /// What the clock will be when the call under way is committed.
    next_clock_ms: Option<i64>,
    by_age: BTreeSet<(i64, Arc<[u8]>)>,
    committed: BTreeMap<Arc<[u8]>, Arc<[u8]>>,
    pending: BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>,
    bytes: usize,
    pending_bytes: usize,
    bytes_max: usize,
}

impl KeyedStore {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            ttl_ms: None,
            clock_ms: None,
            next_clock_ms: None,
            by_age: BTreeSet::new(),
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
        age: Age,
        entries: impl IntoIterator<Item = (Arc<[u8]>, Arc<[u8]>)>,
    ) -> Self {
        let mut store = Self {
            ttl_ms: age.ttl_ms,
            clock_ms: age.clock_ms,
            next_clock_ms: age.clock_ms,
            ..Self::new(bytes_max)
        };
        for (key, value) in entries {
            let value = match (age.is_stamped, age.ttl_ms) {
                (true, Some(_)) | (false, None) => value,
                (false, Some(_)) => stamped(age.clock_ms.unwrap_or(UNKNOWN_MS), &value),
                (true, None) => value.get(STAMP_BYTES..).unwrap_or_default().into(),
            };
            store.set(key, Some(value));
        }
        store
    }

    /// Whether entries go after a time: then every call has to say what time its records have.
    pub(crate) fn is_aging(&self) -> bool {
        self.ttl_ms.is_some()
    }

    /// The latest timestamp of the records dealt with. None before the first, or where time does not count.
    pub(crate) fn clock_ms(&self) -> Option<i64> {
        self.clock_ms
    }

    /// A call is about to be made, with records of which the latest has this timestamp.
    pub(crate) fn begin_call(&mut self, latest_ms: Option<i64>) {
        if self.is_aging() {
            self.next_clock_ms = self.clock_ms.max(latest_ms);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The committed entries as they are to be kept.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.committed.iter()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        match self.pending.get(key) {
            Some(value) => value.as_deref().map(|value| self.plain(value)),
            None => self.committed.get(key).map(|value| self.plain(value)),
        }
    }

    /// A value without its stamp.
    fn plain<'v>(&self, value: &'v [u8]) -> &'v [u8] {
        match self.ttl_ms {
            Some(_) => value.get(STAMP_BYTES..).unwrap_or_default(),
            None => value,
        }
    }

    /// What the call under way has written so far takes.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// What it would take with one more entry, if there is room for that.
    pub(crate) fn with_entry(&self, pending_bytes: usize, bytes: usize) -> Result<usize, TooMuchState> {
        if bytes > ENTRY_BYTES_MAX {
            return Err(TooMuchState::Entry { bytes });
        }
        let pending_bytes = pending_bytes + bytes + ENTRY_OVERHEAD_BYTES;
        if self.bytes + pending_bytes > self.bytes_max {
            let limit = self.bytes_max;
            return Err(TooMuchState::Store { limit });
        }
        Ok(pending_bytes)
    }

    pub(crate) fn put_many(&mut self, entries: Vec<Change>) -> Result<(), TooMuchState> {
        for (key, value) in entries {
            let bytes = key.len() + value.as_ref().map_or(0, |value| value.len());
            self.pending_bytes = self.with_entry(self.pending_bytes, bytes)?;
            let value = match self.ttl_ms {
                Some(_) => value.map(|value| stamped(self.next_clock_ms.unwrap_or(UNKNOWN_MS), &value)),
                None => value,
            };
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
                    return old.next().map(|(key, value)| (&**key, self.plain(value)));
                }
                let (key, value) = new.next()?;
                old.next_if(|(old, _)| *old == key);
                if let Some(value) = value {
                    return Some((&**key, self.plain(value)));
                }
            }
        })
    }

    /// Committed entries that are asked for, and whether there are more. At least one comes, whatever its size.
    pub(crate) fn page(&self, query: &StateQuery, bytes_max: usize) -> (Vec<(Bytes, Bytes)>, bool) {
        let (first, end) = match &query.keys {
            Keys::One(key) => (key.to_vec(), [&key[..], &[0]].concat()),
            Keys::Prefix(prefix) => (prefix.to_vec(), end_of(prefix)),
        };
        // The key behind another one is that with a zero byte.
        let after = query.after.as_ref().map(|after| [&after[..], &[0]].concat());
        let first = first.max(after.unwrap_or_default());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (key, value) in self.scan(&first, &end) {
            bytes += key.len() + value.len();
            if entries.len() == query.limit.clamp(1, ENTRIES_MAX)
                || (bytes > bytes_max && !entries.is_empty())
            {
                return (entries, true);
            }
            entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        (entries, false)
    }

    /// Makes what the call wrote part of the store, and removes what is too old by now. Gives all that changed.
    pub(crate) fn commit(&mut self) -> Vec<Change> {
        let mut changes: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        self.pending_bytes = 0;
        for (key, value) in &changes {
            self.set(Arc::clone(key), value.clone());
        }
        self.grow_old(&mut changes);
        changes
    }

    fn grow_old(&mut self, changes: &mut Vec<Change>) {
        let (Some(ttl_ms), Some(clock_ms)) = (self.ttl_ms, self.next_clock_ms) else {
            return;
        };
        if self.clock_ms.is_none() {
            let unknown = self.by_age.iter().take_while(|(at, _)| *at == UNKNOWN_MS);
            let unknown: Vec<Arc<[u8]>> = unknown.map(|(_, key)| Arc::clone(key)).collect();
            for key in unknown {
                let Some(value) = self.committed.get(&key) else {
                    continue;
                };
                let value = stamped(clock_ms, self.plain(value));
                self.set(Arc::clone(&key), Some(Arc::clone(&value)));
                changes.push((key, Some(value)));
            }
        }
        self.clock_ms = Some(clock_ms);
        while let Some((at, key)) = self.by_age.first()
            && at.saturating_add(ttl_ms) <= clock_ms
        {
            let key = Arc::clone(key);
            self.set(Arc::clone(&key), None);
            changes.push((key, None));
        }
    }

    /// Forgets what the call wrote.
    pub(crate) fn roll_back(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
        self.next_clock_ms = self.clock_ms;
    }

    fn set(&mut self, key: Arc<[u8]>, value: Option<Arc<[u8]>>) {
        let (is_aging, key_bytes) = (self.is_aging(), key.len());
        let overhead = ENTRY_OVERHEAD_BYTES * if is_aging { 2 } else { 1 };
        if is_aging && let Some(old) = self.committed.get(&key) {
            self.by_age.remove(&(written_ms(old), Arc::clone(&key)));
        }
        let old = match value {
            Some(value) => {
                self.bytes += key_bytes + value.len() + overhead;
                if is_aging {
                    self.by_age.insert((written_ms(&value), Arc::clone(&key)));
                }
                self.committed.insert(key, value)
            }
            None => self.committed.remove(&key),
        };
        if let Some(old) = old {
            self.bytes -= key_bytes + old.len() + overhead;
        }
    }
}

/// The first key that does not begin so. Empty: there is none.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn stamped(written_ms: i64, value: &[u8]) -> Arc<[u8]> {
    [&written_ms.to_le_bytes(), value].concat().into()
}

/// When an entry was written. One without a stamp, which nobody can have kept, is older than all.
fn written_ms(value: &[u8]) -> i64 {
    let stamp = value.first_chunk::<STAMP_BYTES>();
    stamp.map_or(UNKNOWN_MS, |stamp| i64::from_le_bytes(*stamp))
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::PartitionIndex;
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
    fn a_page_has_the_keys_that_are_asked_for() {
        let mut store = KeyedStore::new(10_000);
        let keys = [
            &b"a"[..],
            b"a\xff",
            b"a\xff\x01",
            b"ab",
            b"b",
            b"\xff",
            b"\xff\xff",
        ];
        store
            .put_many(keys.map(|key| (key.into(), Some(key.into()))).into())
            .unwrap();
        store.commit();
        let page = |keys: Keys, after: Option<&'static [u8]>, limit: usize, bytes_max: usize| {
            let query = StateQuery {
                partition: PartitionIndex(0),
                keys,
                after: after.map(Bytes::from_static),
                limit,
            };
            let (entries, has_more) = store.page(&query, bytes_max);
            assert!(entries.iter().all(|(key, value)| key == value));
            let keys: Vec<Bytes> = entries.into_iter().map(|(key, _)| key).collect();
            (keys, has_more)
        };
        let prefix = |text: &'static [u8]| Keys::Prefix(Bytes::from_static(text));
        let one = |text: &'static [u8]| Keys::One(Bytes::from_static(text));
        let mut all = keys.map(Bytes::from_static);
        all.sort();
        assert_eq!(page(prefix(b""), None, 100, 1_000), (all.to_vec(), false));
        assert_eq!(page(prefix(b"a"), None, 100, 1_000), (all[..4].to_vec(), false));
        assert_eq!(
            page(prefix(b"a\xff"), None, 9, 1_000),
            (all[2..4].to_vec(), false)
        );
        assert_eq!(page(prefix(b"\xff"), None, 9, 1_000), (all[5..].to_vec(), false));
        assert_eq!(
            page(prefix(b"a"), Some(b"a"), 2, 1_000),
            (all[1..3].to_vec(), true)
        );
        assert_eq!(
            page(prefix(b""), Some(b"b"), 2, 1_000),
            (all[5..].to_vec(), false)
        );
        assert_eq!(
            page(prefix(b""), None, 100, 1),
            (all[..1].to_vec(), true),
            "the first one comes"
        );
        assert_eq!(page(one(b"ab"), None, 9, 1_000), (vec![all[1].clone()], false));
        assert_eq!(page(one(b"c"), None, 9, 1_000), (vec![], false));
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

    fn aging(ttl_ms: i64, is_stamped: bool, clock_ms: Option<i64>, kept: &[Change]) -> KeyedStore {
        let age = Age {
            ttl_ms: Some(ttl_ms),
            clock_ms,
            is_stamped,
        };
        let kept = kept.iter().cloned();
        KeyedStore::restore(10_000, age, kept.filter_map(|(key, value)| Some((key, value?))))
    }

    #[test]
    fn entries_of_before_count_from_the_first_time_that_is_known() {
        let kept = [change(1, Some(7)), change(2, Some(8))];
        let mut store = aging(10, false, None, &kept);
        assert_eq!(store.get(&[1]), Some(&[7][..]));
        store.begin_call(None);
        assert_eq!(store.commit(), []);
        store.begin_call(Some(100));
        let changes = store.commit();
        assert_eq!(changes.len(), 2, "they are written down with their time");
        store.begin_call(Some(110));
        assert_eq!(store.commit(), [change(1, None), change(2, None)]);
        assert_eq!((store.bytes(), store.clock_ms()), (0, Some(110)));
        // And back: the stamps go.
        let plain = KeyedStore::restore(
            10_000,
            Age {
                is_stamped: true,
                ..Age::default()
            },
            changes.into_iter().filter_map(|(key, value)| Some((key, value?))),
        );
        assert_eq!(
            (plain.get(&[1]), plain.get(&[2])),
            (Some(&[7][..]), Some(&[8][..]))
        );
    }

    #[test]
    fn a_call_sees_what_was_there_when_it_began() {
        let mut store = aging(10, true, None, &[]);
        store.begin_call(Some(0));
        store.put_many(vec![change(1, Some(7))]).unwrap();
        store.commit();
        store.begin_call(Some(1_000));
        assert_eq!(store.get(&[1]), Some(&[7][..]));
        store.roll_back();
        assert_eq!(store.commit(), [], "what was taken back moves no clock");
        store.begin_call(Some(1_000));
        assert_eq!(store.commit(), [change(1, None)]);
    }

    proptest! {
        #[test]
        fn entries_go_when_their_time_is_over_with_a_restore_at_any_point(
            ttl_ms in 1i64..30,
            calls in prop::collection::vec(
                (0i64..60, prop::collection::vec((0u8..8, prop::option::of(any::<u8>())), 0..4), any::<bool>()),
                0..30,
            ),
        ) {
            let mut store = aging(ttl_ms, true, None, &[]);
            let mut kept: BTreeMap<Arc<[u8]>, Arc<[u8]>> = BTreeMap::new();
            // Value and time of writing.
            let mut plain: BTreeMap<u8, (u8, i64)> = BTreeMap::new();
            let mut clock = i64::MIN;
            for (latest_ms, writes, restarts) in calls {
                store.begin_call(Some(latest_ms));
                clock = clock.max(latest_ms);
                store.put_many(writes.iter().map(|(key, value)| change(*key, *value)).collect()).unwrap();
                for (key, value) in writes {
                    match value {
                        Some(value) => plain.insert(key, (value, clock)),
                        None => plain.remove(&key),
                    };
                }
                plain.retain(|_, (_, written)| *written + ttl_ms > clock);
                for (key, value) in store.commit() {
                    match value {
                        Some(value) => kept.insert(key, value),
                        None => kept.remove(&key),
                    };
                }
                let seen: Vec<_> = store.scan(&[], &[]).map(|(key, value)| (key[0], value[0])).collect();
                let expected: Vec<_> = plain.iter().map(|(key, (value, _))| (*key, *value)).collect();
                prop_assert_eq!(seen, expected);
                if restarts {
                    let all: Vec<Change> = kept.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
                    let restored = aging(ttl_ms, true, store.clock_ms(), &all);
                    prop_assert_eq!(restored.bytes(), store.bytes());
                    store = restored;
                }
            }
        }

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
