//! The golden files of `wasm-modules/golden` through the real components: what `cargo test` there shows of the modules'
//! code, this shows of the code in Wasm, with the node's own buffers on either side.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_golden::{Expected, Golden, Output, Record, of_module};
use headwater_protocol::ids::Offset;
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, HeaderRef, NewRecord};

use super::answer::{self, Failures};
use super::bytes::put_varint;
use super::engine::Engine;
use super::input::Input;
use super::instance::{Instance, Module, StartError};
use super::keyed::KeyedStore;
use super::outbox::Sink;
use super::table::Table;
use super::testing::{engine, module, plain_engine, setup};

/// One output or failure as a line of text, so that a difference can be read.
type Lines = Vec<String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn filters_judge_as_written() {
    filters(&engine());
}

/// The modules are built with vector instructions, of which the oldest machines have few: the engine makes do.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn old_machines_judge_alike() {
    filters(&plain_engine());
}

fn filters(engine: &Arc<Engine>) {
    each(engine, "filter", |golden, instance| {
        let (buffer, count) = batch(golden);
        let (verdicts, failures) = instance.filter(&buffer, count).unwrap();
        answer::check_verdicts(&verdicts, &failures, count).unwrap();
        let mut messages = failures.iter();
        let seen: Vec<Expected> = verdicts
            .iter()
            .map(|verdict| match verdict {
                0 => Expected::Drop,
                1 => Expected::Keep,
                _ => Expected::Fail(messages.next().unwrap().message.clone()),
            })
            .collect();
        let expected: Vec<_> = golden.records.iter().map(|case| case.expected.clone()).collect();
        assert_eq!(seen, expected, "{}", golden.name);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn maps_send_as_written() {
    for module in ["enrich", "route", "dedup", "anomaly", "join"] {
        each(&engine(), module, |golden, instance| {
            let (buffer, count) = batch(golden);
            let (outputs, failures) = instance.transform(&buffer, count).unwrap();
            let inputs: Vec<_> = golden.records.iter().map(|case| case.record.clone()).collect();
            let mut seen = sent(&outputs, &failures, &inputs, golden);
            seen.extend(failed(&failures));
            let mut expected = Lines::new();
            for (index, case) in golden.records.iter().enumerate() {
                if let Expected::Sends(outputs) = &case.expected {
                    let line = |output: &Output| {
                        line(index, output.topic.as_deref(), &output.from_input(&case.record))
                    };
                    expected.extend(outputs.iter().map(line));
                }
            }
            expected.extend(failures_of(golden));
            compare(&golden.name, &seen, &expected);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn aggregates_fold_and_emit_as_written() {
    each(&engine(), "aggregate", |golden, instance| {
        let window_ms = golden.window_ms.expect("an aggregate's file has a window");
        let (buffer, count) = batch(golden);
        let (keys, key_failures) = instance.keys(&buffer, count).unwrap();
        let mut keyed = Vec::new();
        answer::read_keys(&keys, &key_failures, count, &mut keyed).unwrap();
        let mut windows: BTreeMap<(i64, &[u8]), u32> = BTreeMap::new();
        for record in keyed.iter().flatten() {
            windows.insert(
                (record.event_time_ms.div_euclid(window_ms) * window_ms, record.key),
                0,
            );
        }
        for (number, group) in windows.values_mut().enumerate() {
            *group = number as u32;
        }
        let group = |record: &Option<answer::Keyed<'_>>| {
            record.map_or(answer::NO_GROUP, |record| {
                windows[&(record.event_time_ms.div_euclid(window_ms) * window_ms, record.key)]
            })
        };
        let groups: Vec<u32> = keyed.iter().map(group).collect();
        let count = windows.len() as u32;
        let mut none = count.to_le_bytes().to_vec();
        none.resize(4 + windows.len(), 1);
        let (folded, fold_failures) = instance.fold(&none, &groups, &buffer).unwrap();
        let mut states = Vec::new();
        answer::read_states(&folded, count, |_| true, &mut states).unwrap();
        let open = windows
            .keys()
            .zip(&states)
            .filter_map(|(window, state)| state.map(|state| (*window, state)));
        let (closed, inputs) = close(open.collect(), window_ms);
        let (outputs, emit_failures) = instance.emit(&closed, inputs.len() as u32).unwrap();
        let seen = sent(&outputs, &emit_failures, &inputs, golden);
        let expected: Lines = golden
            .closing
            .iter()
            .enumerate()
            .map(|(index, output)| line(index, output.topic.as_deref(), &output.from_input(&inputs[index])))
            .collect();
        compare(&golden.name, &seen, &expected);
        let mut failed: Lines = failed(&key_failures).chain(failed(&fold_failures)).collect();
        failed.sort();
        compare(&golden.name, &failed, &failures_of(golden).collect::<Lines>());
    });
}

/// Runs every file of a module in an instance of its own; those that must be refused are refused here.
fn each(engine: &Arc<Engine>, name: &str, mut run: impl FnMut(&Golden, &mut Instance)) {
    let module = module(engine, name);
    for golden in of_module(name) {
        match (start(&module, &golden), &golden.refusal) {
            (Ok(mut instance), None) => run(&golden, &mut instance),
            (Err(StartError::Refused { message }), Some(expected)) => {
                assert_eq!(message, *expected, "{}", golden.name);
            }
            (Ok(_), Some(expected)) => panic!("{}: not refused with {expected}", golden.name),
            (Err(error), _) => panic!("{}: {error}", golden.name),
        }
    }
}

fn start(module: &Module, golden: &Golden) -> Result<Instance, StartError> {
    let mut setup = setup();
    setup.params = golden.params.clone();
    let mut tables = BTreeMap::new();
    for entry in &golden.tables {
        let table = tables
            .entry(entry.table.clone())
            .or_insert_with(|| Arc::new(Table::new(&entry.table, 1 << 20)));
        let record = Record {
            key: Some(entry.key.clone()),
            value: Some(entry.value.clone()),
            ..Record::default()
        };
        table.apply(&kafka_batch([&record])).unwrap();
    }
    setup.tables = Arc::new(tables);
    Instance::start(module, setup, KeyedStore::new(1 << 20)).map_err(|failed| failed.error)
}

fn kafka_batch<'a>(records: impl IntoIterator<Item = &'a Record>) -> BatchView {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| HeaderRef {
                key,
                value: Some(value.as_bytes()),
            })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let record = NewRecord {
            timestamp_ms: record.timestamp_ms,
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
            headers: &headers,
        };
        builder.append(&record).unwrap();
    }
    BatchView::parse(builder.build().unwrap().unwrap()).unwrap()
}

fn batch(golden: &Golden) -> (Vec<u8>, u32) {
    let mut input = Input::default();
    input
        .push(
            kafka_batch(golden.records.iter().map(|case| &case.record)),
            Offset(0),
            1 << 20,
        )
        .unwrap();
    let mut buffer = Vec::new();
    input.encode(0..input.len(), &mut buffer);
    (buffer, input.len() as u32)
}

/// Windows as `emit` is given them, and what their outputs inherit.
fn close(open: Vec<((i64, &[u8]), &[u8])>, window_ms: i64) -> (Vec<u8>, Vec<Record>) {
    let mut closed = (open.len() as u32).to_le_bytes().to_vec();
    let mut inputs = Vec::new();
    for ((start_ms, key), state) in open {
        closed.extend(start_ms.to_le_bytes());
        closed.extend((start_ms + window_ms).to_le_bytes());
        for part in [key, state] {
            put_varint(&mut closed, part.len() as i32);
            closed.extend_from_slice(part);
        }
        inputs.push(Record {
            key: Some(text(key)),
            timestamp_ms: start_ms + window_ms - 1,
            ..Record::default()
        });
    }
    (closed, inputs)
}

/// The outputs, each with what it takes from its input.
fn sent(outputs: &[u8], failures: &Failures, inputs: &[Record], golden: &Golden) -> Lines {
    let first = Sink {
        name: "".into(),
        partitions: 1,
        message_bytes_max: 1 << 20,
    };
    let named = golden.records.iter().filter_map(|case| match &case.expected {
        Expected::Sends(outputs) => Some(outputs),
        Expected::Keep | Expected::Drop | Expected::Fail(_) => None,
    });
    let topics = named.flatten().filter_map(|output| output.topic.as_deref());
    let sinks: Vec<Sink> = std::iter::once(first.clone())
        .chain(topics.map(|name| Sink {
            name: name.into(),
            ..first.clone()
        }))
        .collect();
    let mut reader = answer::Outputs::new(outputs, inputs.len() as u32, failures, &sinks).unwrap();
    let mut lines = Lines::new();
    while let Some(output) = reader.next().unwrap() {
        let input = &inputs[output.input as usize];
        let headers = output.headers.map(|headers| {
            let headers = headers.map(Result::unwrap);
            headers
                .map(|header| (text(header.key), text(header.value.unwrap_or_default())))
                .collect()
        });
        let record = Record {
            key: output.key.map_or_else(|| input.key.clone(), |key| key.map(text)),
            value: output
                .value
                .map_or_else(|| input.value.clone(), |value| value.map(text)),
            timestamp_ms: output.timestamp_ms.unwrap_or(input.timestamp_ms),
            headers: headers.unwrap_or_else(|| input.headers.clone()),
        };
        let topic = Some(&*sinks[output.sink].name).filter(|name| !name.is_empty());
        lines.push(line(output.input as usize, topic, &record));
    }
    lines
}

fn line(index: usize, topic: Option<&str>, record: &Record) -> String {
    format!("{index} to {topic:?}: {record:?}")
}

fn failed(failures: &Failures) -> impl Iterator<Item = String> {
    failures
        .iter()
        .map(|failure| format!("{:04} failed: {}", failure.index, failure.message))
}

fn failures_of(golden: &Golden) -> impl Iterator<Item = String> {
    golden
        .records
        .iter()
        .enumerate()
        .filter_map(|(index, case)| match &case.expected {
            Expected::Fail(message) => Some(format!("{index:04} failed: {message}")),
            Expected::Keep | Expected::Drop | Expected::Sends(_) => None,
        })
}

fn compare(name: &str, seen: &[String], expected: &[String]) {
    assert!(
        seen == expected,
        "{name}: seen\n{}\nin place of\n{}",
        seen.join("\n"),
        expected.join("\n")
    );
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
