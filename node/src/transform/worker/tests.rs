//! Workers with real modules, driven by hand: what is sent where, what becomes a dead letter, what is kept.

mod counting;
mod hostile;

use std::collections::BTreeMap;

use headwater_protocol::ids::LeaderEpoch;
use headwater_protocol::record::{BatchBuilder, BatchOptions, Compression, NewRecord};

use super::super::engine::Engine;
use super::super::letter;
use super::super::testing::{engine, module, setup};
use super::super::windows::Settings;
use super::*;
use crate::metadata::{ModuleRef, WindowShape};

struct Driven {
    /// Values by sink and partition, in order.
    sent: BTreeMap<(usize, i32), Vec<String>>,
    /// Reason and source offset of every dead letter.
    letters: Vec<(String, i64)>,
    /// What they say.
    messages: Vec<String>,
    counts: Counts,
    calls: usize,
    position: Option<Offset>,
    /// Set when the worker blamed the module itself, or a strict one a record.
    stopped: Option<Blame>,
}

/// A log of batches of `per_batch` records from offset 0 on; each record's key is its value.
fn log(values: &[String], per_batch: usize, compression: Compression) -> Vec<Bytes> {
    let mut builder = BatchBuilder::new(BatchOptions {
        leader_epoch: LeaderEpoch(3),
        ..BatchOptions::compressed(compression)
    });
    let mut batches = Vec::new();
    for (number, chunk) in values.chunks(per_batch).enumerate() {
        builder.options_mut().base_offset = Offset((number * per_batch) as i64);
        for (index, value) in chunk.iter().enumerate() {
            let timestamp_ms = (number * per_batch + index) as i64;
            let value = Some(value.as_bytes());
            builder
                .append(&NewRecord {
                    timestamp_ms,
                    key: value,
                    value,
                    headers: &[],
                })
                .unwrap();
        }
        batches.push(builder.build().unwrap().unwrap());
    }
    batches
}

fn joined(batches: &[Bytes]) -> Bytes {
    match batches {
        [one] => one.clone(),
        several => several.concat().into(),
    }
}

fn rules() -> Rules {
    Rules {
        batch_bytes_max: 1 << 20,
        state_bytes_max: 1 << 20,
        is_strict: false,
        has_dead_letters: true,
        has_late_sink: false,
        emit: Emit::Close,
    }
}

fn sinks(partitions: u32) -> Arc<[Sink]> {
    let sink = |name: &str, partitions| Sink {
        name: name.into(),
        partitions,
        message_bytes_max: 1 << 20,
    };
    Arc::new([sink("out", partitions), sink("dead", 1)])
}

fn worker(
    engine: &Arc<Engine>,
    name: &str,
    rules: Rules,
    windows: Option<Windows>,
    partitions: u32,
) -> Worker {
    let module = Arc::new(module(engine, name));
    Worker::new(Parts {
        join: None,
        module,
        setup: setup(),
        rules,
        keyed: KeyedStore::new(1 << 20),
        windows,
        sinks: sinks(partitions),
        origin: origin(),
    })
}

fn origin() -> Origin {
    Origin {
        transform: "t".to_owned(),
        module: ModuleRef {
            name: "m".to_owned(),
            version: "1".to_owned(),
        },
        topic: "in".to_owned(),
        partition: PartitionIndex(0),
    }
}

/// Does all the work there is, as a pipeline does with the policy `dead-letter`.
fn drive(worker: &mut Worker) -> Driven {
    let mut driven = Driven {
        sent: BTreeMap::new(),
        letters: Vec::new(),
        messages: Vec::new(),
        counts: Counts::default(),
        calls: 0,
        position: None,
        stopped: None,
    };
    while let Some(Attempt { work, result, .. }) = worker.attempt() {
        driven.calls += 1;
        let ran = match result {
            Ok(ran) => Some(ran),
            Err(Blame::Range(error)) => worker
                .cut(work)
                .map(|one| worker.write_off(one, error.reason(), &error.to_string()).unwrap()),
            Err(blame) => {
                driven.stopped = Some(blame);
                return driven;
            }
        };
        let Some(ran) = ran else { continue };
        worker.accept();
        driven.take(ran);
    }
    driven
}

impl Driven {
    fn take(&mut self, ran: Ran) {
        let Counts {
            taken,
            sent,
            dropped,
            failed,
            late,
        } = ran.counts;
        self.counts.taken += taken;
        self.counts.sent += sent;
        self.counts.dropped += dropped;
        self.counts.failed += failed;
        self.counts.late += late;
        self.position = ran.position.or(self.position);
        for append in ran.appends {
            for batch in Batches::new(append.batches.clone()) {
                let batch = batch.unwrap();
                batch.check_produced().unwrap();
                for record in &batch.records(1 << 20).unwrap() {
                    let record = record.unwrap();
                    let text =
                        |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or(b"-").to_vec()).unwrap();
                    if append.sink == 1 {
                        let header = |name| text(record.headers.find(name).unwrap());
                        self.letters
                            .push((header(letter::REASON), header(letter::OFFSET).parse().unwrap()));
                        self.messages.push(header(letter::MESSAGE));
                    } else {
                        let key = (append.sink, append.partition.value());
                        self.sent.entry(key).or_default().push(text(record.value));
                    }
                }
            }
        }
    }
}

fn values(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("v{index}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_trap_costs_exactly_the_record_that_causes_it() {
    let engine = engine();
    for compression in [Compression::None, Compression::Lz4] {
        for per_batch in [1, 4, 20] {
            let mut worker = worker(&engine, "hostile/trap_on_record_7", rules(), None, 1);
            assert!(
                worker
                    .load(joined(&log(&values(20), per_batch, compression)), Offset(0), 5)
                    .is_empty()
            );
            let driven = drive(&mut worker);
            assert_eq!(driven.letters, [("trap".to_owned(), 7)]);
            let expected: Vec<_> = values(20).into_iter().filter(|value| value != "v7").collect();
            assert_eq!(driven.sent[&(0, 0)], expected);
            assert_eq!(
                driven.counts,
                Counts {
                    taken: 20,
                    sent: 19,
                    failed: 1,
                    ..Counts::default()
                }
            );
            assert_eq!(driven.position, Some(Offset(20)));
            assert!(driven.calls <= 2 * 5 + 1, "{} calls for 20 records", driven.calls);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_kept_whole_is_passed_on_as_it_lies() {
    let engine = engine();
    for (partitions, shared) in [(1, true), (3, false)] {
        let mut worker = worker(&engine, "hostile/trap_on_record_7", rules(), None, partitions);
        let batches = log(&values(5), 5, Compression::Zstd);
        worker.load(joined(&batches), Offset(0), 5);
        let attempt = worker.attempt().unwrap();
        let ran = attempt.result.unwrap();
        let is_shared = ran
            .appends
            .iter()
            .any(|append| append.batches.as_ptr() == batches[0].as_ptr());
        assert_eq!(is_shared, shared, "{partitions} partitions");
        assert_eq!(ran.counts.sent, 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn records_that_a_module_rejects_are_dead_letters_or_end_a_strict_range() {
    let engine = engine();
    let text = [r#"{"delay":20}"#, "no delay", r#"{"delay":3}"#, r#"{"delay":16}"#].map(str::to_owned);
    let run = |rules| {
        let mut worker = worker(&engine, "examples/late_flights", rules, None, 1);
        worker.load(joined(&log(&text, 4, Compression::None)), Offset(0), 5);
        drive(&mut worker)
    };
    let driven = run(rules());
    assert_eq!(driven.letters, [("rejected".to_owned(), 1)]);
    assert_eq!(driven.sent[&(0, 0)], [text[0].clone(), text[3].clone()]);
    assert_eq!(
        driven.counts,
        Counts {
            taken: 4,
            sent: 2,
            dropped: 1,
            failed: 1,
            late: 0
        }
    );

    let silent = run(Rules {
        has_dead_letters: false,
        ..rules()
    });
    assert_eq!((silent.letters.len(), silent.counts.failed), (0, 1));

    let strict = run(Rules {
        is_strict: true,
        ..rules()
    });
    assert!(matches!(
        strict.stopped,
        Some(Blame::One {
            index: 1,
            reason: "rejected",
            ..
        })
    ));
    assert!(strict.sent.is_empty(), "nothing of the range counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_map_sends_what_differs_and_inherits_the_rest() {
    let engine = engine();
    let mut worker = worker(&engine, "examples/split_lines", rules(), None, 1);
    let lines = ["a\nb", "c", ""].map(str::to_owned);
    worker.load(joined(&log(&lines, 2, Compression::Snappy)), Offset(0), 5);
    let driven = drive(&mut worker);
    assert_eq!(driven.sent[&(0, 0)], ["a", "b", "c"]);
    assert_eq!(driven.counts.taken, 3);
    assert_eq!(driven.position, Some(Offset(3)));
}

fn windows(size_ms: i64) -> Option<Windows> {
    Some(Windows::new(Settings {
        shape: WindowShape::Tumbling { size_ms },
        lateness_ms: 0,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_aggregate_tells_about_windows_as_they_close() {
    let engine = engine();
    let mut texts = values(25);
    // The longest value per key: every record is its own key, so each window has one group per record.
    texts[3] = "a longer one".to_owned();
    for per_batch in [1, 7, 25] {
        let mut worker = worker(&engine, "examples/longest", rules(), windows(10), 1);
        let mut kept = Changes::default();
        let mut told = 0;
        worker.load(joined(&log(&texts, per_batch, Compression::None)), Offset(0), 5);
        while let Some(attempt) = worker.attempt() {
            let ran = attempt.result.unwrap();
            told += ran.counts.sent;
            kept.extend(worker.accept());
        }
        assert_eq!(told, 20, "the windows 0..10 and 10..20 have closed");
        let open = kept.groups.values().filter(|state| state.is_some()).count();
        assert_eq!((open, kept.groups.len()), (5, 25));
        worker.close_all_windows(6);
        assert_eq!(drive(&mut worker).counts.sent, 5);
        assert!(worker.windows().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn updates_are_told_with_every_change() {
    let engine = engine();
    let rules = Rules {
        emit: Emit::Update,
        ..rules()
    };
    let mut worker = worker(&engine, "examples/longest", rules, windows(10), 1);
    worker.load(joined(&log(&values(25), 5, Compression::None)), Offset(0), 5);
    assert_eq!(drive(&mut worker).counts.sent, 25);
    assert_eq!(worker.windows().unwrap().groups().count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn state_that_outgrows_its_bound_stops_the_module() {
    let engine = engine();
    let mut worker = worker(&engine, "hostile/fold_grows_states", rules(), windows(10), 1);
    worker.load(joined(&log(&values(2), 1, Compression::None)), Offset(0), 5);
    match drive(&mut worker).stopped {
        Some(Blame::Module { reason }) => {
            assert!(reason.contains("more than 1048576 bytes of state"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn windows_a_module_cannot_tell_about_are_dead_letters() {
    let engine = engine();
    let mut worker = worker(&engine, "hostile/emit_cut", rules(), windows(10), 1);
    worker.load(joined(&log(&values(12), 12, Compression::None)), Offset(0), 5);
    assert_eq!(drive(&mut worker).counts.taken, 12);
    worker.close_all_windows(6);
    let driven = drive(&mut worker);
    assert_eq!(driven.letters, [("bad-answer".to_owned(), 11)]);
    assert_eq!(driven.counts.failed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_is_folded_into_each_of_its_windows() {
    let engine = engine();
    let hopping = || {
        let shape = WindowShape::Hopping {
            size_ms: 10,
            advance_ms: 5,
        };
        Some(Windows::new(Settings {
            shape,
            lateness_ms: 0,
        }))
    };
    for per_batch in [1, 7, 25] {
        let mut worker = worker(&engine, "examples/longest", rules(), hopping(), 1);
        worker.load(
            joined(&log(&values(25), per_batch, Compression::None)),
            Offset(0),
            5,
        );
        let driven = drive(&mut worker);
        // 5 in the window -5..5, and 10 in each of those from 0, 5 and 10 on.
        assert_eq!((driven.counts.taken, driven.counts.sent), (25, 35));
        worker.close_all_windows(6);
        assert_eq!(drive(&mut worker).counts.sent, 15);
        assert!(worker.windows().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn windows_beyond_number_stop_the_module() {
    let engine = engine();
    let shape = WindowShape::Sliding { size_ms: 100_000 };
    let sliding = Some(Windows::new(Settings {
        shape,
        lateness_ms: 0,
    }));
    let texts = vec!["the same key".to_owned(); 1_200];
    let mut worker = worker(&engine, "examples/longest", rules(), sliding, 1);
    worker.load(joined(&log(&texts, 1_200, Compression::None)), Offset(0), 5);
    match drive(&mut worker).stopped {
        Some(Blame::Module { reason }) => {
            assert!(reason.contains("windows, the limit is 1000"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}
