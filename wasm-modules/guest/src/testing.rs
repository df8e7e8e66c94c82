//! Runs a module on your own machine, without Wasm and without a broker: `cargo test` is all it takes.
//! It owns the host's side of the buffers, as far as tests need it. Nothing of it ends up in a module.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::bindings::services::headwater::module::types::Failure;
use crate::error::Error;
use crate::export;
use crate::items::{Items, ItemsBuilder};
use crate::module::{Aggregate, Filter, Mapping, Merge, Module};
use crate::wire::{Reader, put_bytes, put_varint};

/// A record to call a module with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp_ms: i64,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl TestRecord {
    #[must_use]
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record with a key and no value.
    #[must_use]
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = timestamp_ms;
        self
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }
}

/// The records of one Kafka batch.
#[derive(Clone, Debug)]
pub struct Section {
    pub base_offset: i64,
    pub base_timestamp_ms: i64,
    pub append_times: bool,
    pub records: Vec<TestRecord>,
}

/// The layout "batch" with one section that starts at offset 0.
#[must_use]
pub fn encode_batch(records: &[TestRecord]) -> Vec<u8> {
    if records.is_empty() {
        return encode_sections(&[]);
    }
    let base_timestamp_ms = records[0].timestamp_ms;
    encode_sections(&[Section {
        base_offset: 0,
        base_timestamp_ms,
        append_times: false,
        records: records.to_vec(),
    }])
}

/// The layout "batch".
#[must_use]
pub fn encode_sections(sections: &[Section]) -> Vec<u8> {
    let mut buffer = Vec::new();
    let total: usize = sections.iter().map(|section| section.records.len()).sum();
    buffer.extend(size_u32(total).to_le_bytes());
    for section in sections {
        let mut records = Vec::new();
        for (index, record) in section.records.iter().enumerate() {
            encode_record(record, section.base_timestamp_ms, index, &mut records);
        }
        buffer.extend(size_u32(section.records.len()).to_le_bytes());
        buffer.extend(size_u32(records.len()).to_le_bytes());
        buffer.extend(u32::from(section.append_times).to_le_bytes());
        buffer.extend(section.base_offset.to_le_bytes());
        buffer.extend(section.base_timestamp_ms.to_le_bytes());
        buffer.extend(records);
    }
    buffer
}

fn encode_record(record: &TestRecord, base_timestamp_ms: i64, offset_delta: usize, to: &mut Vec<u8>) {
    let mut body = vec![0];
    put_varint(&mut body, record.timestamp_ms - base_timestamp_ms);
    put_varint(&mut body, size_i64(offset_delta));
    put_bytes(&mut body, record.key.as_deref());
    put_bytes(&mut body, record.value.as_deref());
    put_varint(&mut body, size_i64(record.headers.len()));
    for (name, value) in &record.headers {
        put_bytes(&mut body, Some(name.as_bytes()));
        put_bytes(&mut body, value.as_deref());
    }
    put_varint(to, size_i64(body.len()));
    to.extend(body);
}

fn size_u32(size: usize) -> u32 {
    u32::try_from(size).expect("a test batch is small")
}

fn size_i64(size: usize) -> i64 {
    i64::try_from(size).expect("a test batch is small")
}

/// What a module sent for an input, after inheritance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which record or window it came from.
    pub index: usize,
    /// `None`: the transform's first sink.
    pub topic: Option<String>,
    pub record: TestRecord,
}

/// What a module answered: outputs and failures (index and message).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub sent: Vec<Sent>,
    pub failures: Vec<(usize, String)>,
}

/// What became of a record in a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Drop,
    Failed(String),
}

/// Configures a module as the host would.
///
/// # Errors
/// What the module refuses.
pub fn configure<M: Module>(params: &[(&str, &str)]) -> Result<M, Error> {
    export::configure(
        params
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    )
}

/// Calls a filter with a batch.
#[must_use]
pub fn filter<M: Filter>(module: &mut M, records: &[TestRecord]) -> Vec<Verdict> {
    let (verdicts, failures) = export::filter(module, &encode_batch(records));
    assert_eq!(verdicts.len(), records.len());
    let mut failures = failures.into_iter();
    let verdict = |byte| match byte {
        0 => Verdict::Drop,
        1 => Verdict::Keep,
        _ => Verdict::Failed(
            failures
                .next()
                .expect("a failure for every failed record")
                .message,
        ),
    };
    verdicts.into_iter().map(verdict).collect()
}

/// Calls a map with a batch.
#[must_use]
pub fn transform<M: Mapping>(module: &mut M, records: &[TestRecord]) -> Answer {
    answer(export::transform(module, &encode_batch(records)), records)
}

/// Runs an aggregate over batches with tumbling windows, none of which closes before the end, and emits all of them.
/// The failures are those of the records, indexes counted through all batches.
#[must_use]
pub fn aggregate<M: Aggregate>(module: &mut M, window_ms: i64, batches: &[&[TestRecord]]) -> Answer {
    let mut states: BTreeMap<(i64, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut before = 0;
    for records in batches {
        for (index, message) in fold_batch(module, window_ms, records, &mut states) {
            failures.push((before + index, message));
        }
        before += records.len();
    }
    let mut closed = size_u32(states.len()).to_le_bytes().to_vec();
    let mut inherited = Vec::new();
    for ((start_ms, key), state) in states {
        closed.extend(start_ms.to_le_bytes());
        closed.extend((start_ms + window_ms).to_le_bytes());
        put_bytes(&mut closed, Some(&key));
        put_bytes(&mut closed, Some(&state));
        inherited.push(TestRecord::tombstone(key).timestamp_ms(start_ms + window_ms - 1));
    }
    let emitted = answer(export::emit(module, &closed), &inherited);
    assert_eq!(emitted.failures, [], "emit failed");
    Answer {
        sent: emitted.sent,
        failures,
    }
}

/// Folds two lists of records apart, as two sessions, and merges their states. Gives the state as it is kept.
///
/// # Errors
/// What the module says against it.
///
/// # Panics
/// When a record fails, or a list has none.
pub fn merge<M: Merge>(
    module: &mut M,
    earlier: &[TestRecord],
    later: &[TestRecord],
) -> Result<Vec<u8>, String> {
    let mut both = ItemsBuilder::default();
    for records in [earlier, later] {
        both.push(Some(&fold_all(module, records)));
    }
    let (merged, failures) = export::merge(module, both.finish());
    match failures.into_iter().next() {
        Some(failure) => Err(failure.message),
        None => {
            let merged = Items::new(merged);
            let state = merged.iter().next().flatten();
            Ok(state.expect("a state for the pair").to_vec())
        }
    }
}

/// The state of all these records, as it is kept.
///
/// # Panics
/// When a record fails, or there is none.
#[must_use]
pub fn fold_all<M: Aggregate>(module: &mut M, records: &[TestRecord]) -> Vec<u8> {
    let mut none = ItemsBuilder::default();
    none.push(None);
    let groups = vec![0; records.len()];
    let (folded, failures) = export::fold(module, none.finish(), &groups, &encode_batch(records));
    assert_eq!(failures.len(), 0, "{}", failures[0].message);
    let folded = Items::new(folded);
    let state = folded.iter().next().flatten();
    state.expect("there is a record").to_vec()
}

fn fold_batch<M: Aggregate>(
    module: &mut M,
    window_ms: i64,
    records: &[TestRecord],
    states: &mut BTreeMap<(i64, Vec<u8>), Vec<u8>>,
) -> Vec<(usize, String)> {
    let input = encode_batch(records);
    let (keys, mut failures) = export::keys(module, &input);
    let mut reader = Reader::new(&keys);
    let mut known: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut groups = Vec::new();
    for _ in records {
        let time_ms = reader.i64();
        groups.push(reader.bytes().map_or(u32::MAX, |key| {
            let group = (time_ms - time_ms.rem_euclid(window_ms), key.to_vec());
            let position = known.iter().position(|each| *each == group).unwrap_or_else(|| {
                known.push(group);
                known.len() - 1
            });
            size_u32(position)
        }));
    }
    assert!(reader.is_empty());
    let mut items = ItemsBuilder::default();
    for group in &known {
        items.push(states.get(group).map(Vec::as_slice));
    }
    let (folded, folding_failures) = export::fold(module, items.finish(), &groups, &input);
    for (group, state) in known.into_iter().zip(&Items::new(folded)) {
        if let Some(state) = state {
            states.insert(group, state.to_vec());
        }
    }
    failures.extend(folding_failures);
    let mut failures: Vec<_> = failures.into_iter().map(indexed).collect();
    failures.sort();
    failures
}

fn indexed(failure: Failure) -> (usize, String) {
    (failure.index as usize, failure.message)
}

/// Reads the layout "outputs", with what each output inherits filled in.
fn answer((buffer, failures): (Vec<u8>, Vec<Failure>), inputs: &[TestRecord]) -> Answer {
    let mut reader = Reader::new(&buffer);
    let mut topics: Vec<String> = Vec::new();
    let mut sent = Vec::new();
    for _ in 0..reader.u32() {
        let index = reader.u32() as usize;
        let carries = reader.u8();
        let topic = (carries & 1 != 0).then(|| {
            let number = usize::from(reader.u16());
            if number > topics.len() {
                topics.push(text(reader.bytes()));
            }
            topics[number - 1].clone()
        });
        let mut record = inputs[index].clone();
        if carries & 2 != 0 {
            record.timestamp_ms = reader.i64();
        }
        if carries & 4 != 0 {
            record.key = reader.bytes().map(Into::into);
        }
        if carries & 8 != 0 {
            record.value = reader.bytes().map(Into::into);
        }
        if carries & 16 != 0 {
            let count = reader.length();
            record.headers = (0..count)
                .map(|_| (text(reader.bytes()), reader.bytes().map(Into::into)))
                .collect();
        }
        sent.push(Sent { index, topic, record });
    }
    assert!(reader.is_empty(), "bytes are left over behind the outputs");
    Answer {
        sent,
        failures: failures.into_iter().map(indexed).collect(),
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("names are UTF-8")
}

/// Empties the keyed store of this test's thread, so that a module begins anew.
pub fn forget_state() {
    #[cfg(not(target_arch = "wasm32"))]
    state::clear();
}

type TestTable = BTreeMap<Vec<u8>, Vec<u8>>;

thread_local! {
    static TABLES: RefCell<BTreeMap<String, TestTable>> = const { RefCell::new(BTreeMap::new()) };
}

/// The store behind `crate::state`, one per thread.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod state {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use crate::items::{Items, ItemsBuilder};

    thread_local! {
        static STORE: RefCell<BTreeMap<Vec<u8>, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn get_many(keys: &[u8]) -> Vec<u8> {
        STORE.with_borrow(|store| {
            let mut values = ItemsBuilder::default();
            for key in &Items::new(keys.to_vec()) {
                values.push(key.and_then(|key| store.get(key)).map(Vec::as_slice));
            }
            values.finish()
        })
    }

    pub(crate) fn put_many(entries: &[u8]) {
        STORE.with_borrow_mut(|store| {
            let entries = Items::new(entries.to_vec());
            let mut entries = entries.iter();
            while let Some(key) = entries.next() {
                let key = key.expect("an entry has a key");
                match entries.next().expect("an entry has a value") {
                    Some(value) => store.insert(key.to_vec(), value.to_vec()),
                    None => store.remove(key),
                };
            }
        });
    }

    pub(super) fn clear() {
        STORE.take();
    }

    pub(crate) fn scan(start: &[u8], end: &[u8], limit: u32) -> Vec<u8> {
        STORE.with_borrow(|store| {
            let mut found = ItemsBuilder::default();
            let from_start = store.iter().filter(|(key, _)| key.as_slice() >= start);
            let below_end = from_start.filter(|(key, _)| end.is_empty() || key.as_slice() < end);
            for (key, value) in below_end.take(limit as usize) {
                found.push(Some(key));
                found.push(Some(value));
            }
            found.finish()
        })
    }
}

/// Makes a lookup table for modules configured by this test's thread.
pub fn set_table<'a>(name: &str, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let table = entries
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    TABLES.with_borrow_mut(|tables| tables.insert(name.into(), table));
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn has_table(name: &str) -> bool {
    TABLES.with_borrow(|tables| tables.contains_key(name))
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn table_get(name: &str, key: &[u8]) -> Option<Vec<u8>> {
    TABLES.with_borrow(|tables| tables.get(name)?.get(key).cloned())
}
