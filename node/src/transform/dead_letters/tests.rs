//! Dead letters of a node below its listeners: partitions over a disk in memory, and letters as a pipeline writes them.
//! Everything is awaited as an event; the patience below only ends a test that hangs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use headwater_protocol::record::Record;

use super::testing::{batch, story};
use super::*;
use crate::config::BrokerConfig;
use crate::controller::{self, Change, Controller, NewTopic};
use crate::metadata::features::Level;
use crate::metadata::{Module, ModuleRef, World};
use crate::partition::{AppendOptions, Isolation, Partition, ReadRequest, registry};
use crate::sys::clock::Clock;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::random::Random;
use crate::sys::task::Blocking;
use crate::telemetry::Health;
use crate::transform::TransformSpec;
use headwater_protocol::record::Batches;

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;

struct Rig {
    controller: Controller,
    registry: Registry,
    letters: DeadLetters,
}

impl Rig {
    /// A node with the topics `raw`, of four partitions, and `raw.dead`, of some, and the transform `clean`.
    async fn new(dead_partitions: i32) -> Self {
        let sys = Sys {
            clock: Clock::system(),
            tasks: Tasks::root("test", Blocking::Threads),
            disk: Arc::new(MemoryDisk::new(Random::seeded(7))),
            ..Sys::simulated(1)
        };
        let (metrics, health) = (Metrics::default(), Health::default());
        let broker = BrokerConfig::new(BTreeMap::new());
        let options = controller::Options::alone("test", broker.clone(), &sys);
        let (controller, view) = controller::start(options).await.unwrap();
        controller.show();
        let registry = Registry::start(registry::Options {
            me: NodeId(1),
            broker,
            maintenance_interval_ms: 60_000,
            view: view.clone(),
            sys: sys.clone(),
            health,
            metrics: metrics.clone(),
            in_sync_sets: Arc::new(crate::partition::FixedSets),
            replica_lag_max: Duration::from_secs(10),
        });
        let addresses = crate::metadata::image::Addresses::default();
        let mut node = crate::metadata::Node::new(NodeId(1), addresses, None);
        node.features = crate::metadata::features::Supported::default().registered();
        controller.propose(Change::RegisterNode(node)).await.unwrap();
        let parts = Parts {
            sys,
            view,
            registry: registry.clone(),
            metrics,
        };
        let rig = Self {
            controller,
            registry,
            letters: DeadLetters::new(parts),
        };
        rig.topic("raw", PARTITIONS).await;
        rig.topic("raw.dead", dead_partitions).await;
        rig.declare("raw").await;
        rig
    }

    async fn topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic {
            partitions,
            ..NewTopic::named(name)
        };
        let applied = self.controller.propose(Change::CreateTopic(topic)).await.unwrap();
        self.registry.reconciled(applied.offset).await;
    }

    /// The transform `clean`, which reads that topic.
    async fn declare(&self, source: &str) {
        let module = Module {
            name: "filter".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "0".to_owned(),
            size: 1,
            world: World::Filter,
            description: String::new(),
            params: Vec::new(),
            imports: Vec::new(),
            builtin: false,
            created_ms: 0,
        };
        let used = ModuleRef {
            name: module.name.clone(),
            version: module.version.clone(),
        };
        self.controller.propose(Change::PutModule(module)).await.unwrap();
        let spec = TransformSpec {
            dead_letter: Some("raw.dead".to_owned()),
            ..TransformSpec::new("clean", used, source, "out")
        };
        let transform = spec.complete(World::Filter, Level::FIRST, 0).unwrap();
        self.controller
            .propose(Change::PutTransform(transform))
            .await
            .unwrap();
    }

    fn partition(&self, topic: &str, index: i32) -> Partition {
        self.registry
            .get(topic, PartitionIndex(index))
            .expect("it was made")
    }

    /// Appends records with these values, each with the headers that `headers` gives it.
    async fn append<'a>(
        &self,
        dead_partition: i32,
        values: impl Iterator<Item = i64>,
        headers: impl Fn(i64) -> Vec<(&'a str, Option<&'a str>)>,
    ) {
        let mut all = BytesMut::new();
        for value in values {
            let text = format!("v{value}");
            all.extend_from_slice(&batch(Some("k"), Some(&text), &headers(value)));
        }
        let dead = self.partition("raw.dead", dead_partition);
        let ticket = dead.append(all.freeze(), AppendOptions::OWN).await.unwrap();
        ticket.done().await.unwrap();
    }

    /// All records of a partition of the source.
    async fn source(&self, index: i32) -> Vec<Record> {
        let partition = self.partition("raw", index);
        let request = ReadRequest {
            from: Offset::ZERO,
            max_bytes: 1 << 20,
            isolation: Isolation::Committed,
            min_one: true,
            current_epoch: None,
            up_to_log_end: false,
        };
        let outcome = partition.read(request).await.unwrap();
        let batches = Batches::new(outcome.contiguous());
        batches
            .flat_map(|batch| batch.unwrap().records(1 << 20).unwrap().into_iter())
            .map(Result::unwrap)
            .collect()
    }

    async fn ended(&self, id: &str) -> Redrive {
        let shown = self.letters.find("clean", id).unwrap();
        let ended = tokio::time::timeout(PATIENCE, shown.ended()).await;
        ended.expect("the redrive does not end");
        shown.now()
    }
}

fn query(limit: usize) -> PageQuery {
    PageQuery {
        filter: Filter::default(),
        partition: None,
        order: Order::Newest,
        cursor: Cursor::default(),
        limit,
    }
}

fn many(rate: u32) -> Many {
    Many {
        filter: Filter::default(),
        partition: None,
        from: None,
        until: None,
        limit: None,
        rate,
        again: Again::Refuse,
        mode: Mode::Write,
    }
}

fn at(offset: i64) -> Place {
    Place {
        partition: PartitionIndex(0),
        offset: Offset(offset),
    }
}

fn offsets(page: &Page) -> Vec<i64> {
    let letters = page.letters.iter();
    letters.map(|it| it.letter.place.offset.0).collect()
}

/// A letter of `raw`, partition 3; every hundredth was late.
fn told(value: i64) -> Vec<(&'static str, Option<&'static str>)> {
    story(if value % 100 == 0 { "late" } else { "trap" })
}

fn window(value: i64) -> Vec<(&'static str, Option<&'static str>)> {
    let mut headers = told(value);
    headers.push((names::WINDOW_END, Some("60000")));
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_each_letter_once_the_newest_first() {
    let rig = Rig::new(2).await;
    rig.append(0, 0..2_500, told).await;
    rig.append(1, 0..30, told).await;
    let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), Cursor::default(), 0);
    loop {
        let asked = PageQuery { cursor, ..query(400) };
        let page = rig.letters.page("clean", asked).await.unwrap();
        pages += 1;
        for shelved in page.letters {
            assert!(seen.insert(shelved.letter.place), "{:?}", shelved.letter.place);
        }
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (2_530, 7));
    let one = PageQuery {
        partition: Some(PartitionIndex(0)),
        ..query(3)
    };
    let newest = rig.letters.page("clean", one.clone()).await.unwrap();
    assert_eq!(offsets(&newest), [2_499, 2_498, 2_497]);
    let up = PageQuery {
        order: Order::From(Offset(1_200)),
        ..one.clone()
    };
    let up = rig.letters.page("clean", up).await.unwrap();
    assert_eq!(offsets(&up), [1_200, 1_201, 1_202]);
    assert_eq!(up.next.map(|it| it.to_string()).as_deref(), Some("0:1203"));
    let late = Filter {
        reason: Some("late".to_owned()),
        ..Filter::default()
    };
    let late = PageQuery {
        filter: late,
        limit: 100,
        ..one
    };
    let late = rig.letters.page("clean", late).await.unwrap();
    assert_eq!((late.letters.len(), late.next), (25, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_summary_counts_what_is_the_transforms_own() {
    let rig = Rig::new(1).await;
    rig.append(0, 0..300, told).await;
    rig.append(0, 0..5, |_| Vec::new()).await;
    let foreign = |_| {
        let mut headers = told(1);
        headers.retain(|it| it.0 != names::TRANSFORM);
        headers.push((names::TRANSFORM, Some("other")));
        headers
    };
    rig.append(0, 0..7, foreign).await;
    let whole = rig.letters.summary("clean", 10_000).await.unwrap();
    let counts = |summary: &Summary| -> Vec<(String, u64, u64)> {
        let groups = summary.groups.iter();
        groups
            .map(|it| (it.reason.clone(), it.count, it.redriven))
            .collect()
    };
    let expected = [("trap".to_owned(), 297, 0), ("late".to_owned(), 3, 0)];
    assert_eq!((counts(&whole), whole.others), (expected.to_vec(), 12));
    assert!(whole.scanned[0].is_whole());
    let part = rig.letters.summary("clean", 12 + 50).await.unwrap();
    assert_eq!(counts(&part), [("trap".to_owned(), 50, 0)]);
    assert_eq!(
        (part.scanned[0].from, part.scanned[0].is_whole()),
        (Offset(250), false)
    );
    assert_eq!(
        rig.letters.summary("nobody", 1).await,
        Err(LetterError::UnknownTransform("nobody".to_owned()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_letter_is_mended_and_written_back_once() {
    let rig = Rig::new(1).await;
    rig.append(0, 0..2, told).await;
    rig.append(0, 2..3, window).await;
    let mended = Edit {
        value: Some(Some(Bytes::from_static(b"mended"))),
        ..Edit::default()
    };
    let one = async |offset, edit: &Edit, again, mode| {
        rig.letters
            .redrive_one("clean", at(offset), edit.clone(), again, mode)
            .await
    };
    let tried = one(1, &mended, Again::Refuse, Mode::DryRun).await.unwrap();
    assert_eq!((tried.redriven, tried.last), (1, None));
    assert!(rig.source(3).await.is_empty());

    let done = one(1, &mended, Again::Refuse, Mode::Write).await.unwrap();
    let to = Place {
        partition: PartitionIndex(3),
        offset: Offset(0),
    };
    assert_eq!((done.state, done.last), (RedriveState::Done, Some(to)));
    let [record] = &rig.source(3).await[..] else {
        panic!("not one record");
    };
    assert_eq!(record.value.as_deref(), Some(&b"mended"[..]));
    assert_eq!(
        record.headers().header_count(),
        4,
        "its history, and nothing else"
    );
    let page = rig.letters.page("clean", query(10)).await.unwrap();
    let marks: Vec<_> = page.letters.iter().map(|it| it.mark.clone()).collect();
    assert_eq!(
        marks[1].as_ref().map(|mark| (&mark.redrive, mark.to)),
        Some((&done.id, Some(to)))
    );
    assert_eq!((&marks[0], &marks[2]), (&None, &None));
    assert_eq!(page.letters[0].refusal, Some(Refusal::Window));

    let again = one(1, &mended, Again::Refuse, Mode::Write).await;
    let redrive = done.id.clone();
    assert_eq!(again, Err(LetterError::Refused(Refusal::Already { redrive })));
    one(1, &mended, Again::Allow, Mode::Write).await.unwrap();
    assert_eq!(rig.source(3).await.len(), 2);
    assert_eq!(
        one(2, &mended, Again::Refuse, Mode::Write).await,
        Err(LetterError::Refused(Refusal::Window))
    );
    let missing = one(77, &mended, Again::Refuse, Mode::Write).await;
    assert_eq!(missing, Err(LetterError::NoLetter(at(77))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_letters_are_written_back_once_each_and_in_order() {
    let rig = Rig::new(1).await;
    rig.append(0, 0..200, told).await;
    rig.append(0, 200..203, window).await;
    let dry = Many {
        mode: Mode::DryRun,
        ..many(1)
    };
    let dry = rig.letters.redrive("clean", &dry).unwrap();
    assert_eq!(rig.ended(&dry.id).await.redriven, 200);
    assert!(rig.source(3).await.is_empty());

    let late = Many {
        filter: Filter {
            reason: Some("late".to_owned()),
            ..Filter::default()
        },
        ..many(10_000)
    };
    let late = rig.letters.redrive("clean", &late).unwrap();
    assert_eq!(late.state, RedriveState::Running);
    let late = rig.ended(&late.id).await;
    // One window among the last three would have been late, too.
    assert_eq!((late.state, late.redriven), (RedriveState::Done, 2));
    let all = rig.letters.redrive("clean", &many(10_000)).unwrap();
    // What comes after the beginning is not part of it.
    rig.append(0, 203..204, told).await;
    let all = rig.ended(&all.id).await;
    let passed: Vec<_> = all.passed.iter().map(|it| (it.why.code(), it.count)).collect();
    assert_eq!(passed, [("already-redriven", 2), ("window", 3)]);
    assert_eq!((all.redriven, all.error), (198, None));
    let span = all.spans[0];
    assert_eq!((span.position, span.until), (Offset(203), Offset(203)));
    let values: Vec<_> = rig
        .source(3)
        .await
        .into_iter()
        .map(|it| it.value.unwrap())
        .collect();
    let rest = (0..200).filter(|it| it % 100 != 0);
    let expected: Vec<_> = [0, 100]
        .into_iter()
        .chain(rest)
        .map(|it| format!("v{it}"))
        .collect();
    assert_eq!(values, expected);
    let ids: Vec<_> = rig
        .letters
        .redrives("clean")
        .unwrap()
        .into_iter()
        .map(|it| it.id)
        .collect();
    assert_eq!(ids, [all.id, late.id, dry.id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_is_cancelled_says_where_it_was() {
    let rig = Rig::new(1).await;
    rig.append(0, 0..50, told).await;
    let begun = rig.letters.redrive("clean", &many(1)).unwrap();
    let running = rig.letters.redrive("clean", &many(1)).unwrap_err();
    assert_eq!(running, LetterError::Running(begun.id.clone()));
    let mut watermarks = rig.partition("raw", 3).watermarks();
    let first = watermarks.wait_for(|it| it.high_watermark > Offset::ZERO);
    tokio::time::timeout(PATIENCE, first).await.unwrap().unwrap();
    let ended = rig.letters.cancel("clean", &begun.id).await.unwrap();
    assert_eq!(ended.state, RedriveState::Cancelled);
    let written = rig.source(3).await.len();
    assert!((1..50).contains(&written), "{written}");
    assert_eq!(ended.redriven, written as u64);
    assert_eq!(ended.spans[0].position, Offset(written as i64));
    // The next one goes on behind it.
    let rest = rig.letters.redrive("clean", &many(10_000)).unwrap();
    let rest = rig.ended(&rest.id).await;
    assert_eq!(
        (rest.redriven, rig.source(3).await.len()),
        (50 - written as u64, 50)
    );
    let unknown = rig.letters.cancel("clean", "nothing").await;
    assert_eq!(unknown, Err(LetterError::UnknownRedrive("nothing".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_another_source_stay_where_they_are() {
    let rig = Rig::new(1).await;
    rig.append(0, 0..3, told).await;
    let limited = Many {
        limit: Some(2),
        ..many(100)
    };
    let limited = rig.letters.redrive("clean", &limited).unwrap();
    let limited = rig.ended(&limited.id).await;
    assert_eq!((limited.state, limited.redriven), (RedriveState::Done, 2));
    rig.topic("other", 1).await;
    rig.declare("other").await;
    let redrive = rig.letters.redrive("clean", &many(100)).unwrap();
    let redrive = rig.ended(&redrive.id).await;
    let passed: Vec<_> = redrive
        .passed
        .iter()
        .map(|it| (it.why.code(), it.count))
        .collect();
    assert_eq!((redrive.redriven, passed), (0, vec![("other-source", 3)]));
}
