//! Transforms of a whole node below its listeners: a controller, partitions and pipelines over a disk in memory that
//! loses what was not synced. Everything is awaited as an event; the patience below only ends a test that hangs.

mod streams;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{NodeId, Offset, PartitionIndex};
use headwater_protocol::record::{BatchBuilder, BatchOptions, Batches, NewRecord};

use super::testing::wasm;
use super::*;
use crate::config::NodeConfig;
use crate::controller::{self, Change, Controller, NewTopic};
use crate::metadata::{Delivery, ErrorPolicy, ModuleRef, View};
use crate::node::transforms::{self as around, Cluster};
use crate::partition::registry::{self, Registry};
use crate::partition::{Acks, AppendOptions, Isolation, Origin, Partition, ReadRequest};
use crate::sys::Sys;
use crate::sys::clock::Clock;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::random::Random;
use crate::sys::task::{Blocking, Tasks};
use crate::telemetry::{Health, Metrics};
use crate::transaction::{self, Transactions};

mod depot;
mod exactly_once;
mod hostile;
mod interrupted;
mod joins;
mod queries;

use interrupted::Interrupted;

const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    disk: MemoryDisk,
    sys: Sys,
    view: View,
    controller: Controller,
    registry: Registry,
    outside: Arc<Interrupted>,
    transforms: Transforms,
}

impl Rig {
    async fn new() -> Self {
        Self::boot(MemoryDisk::new(Random::seeded(5))).await
    }

    async fn boot(disk: MemoryDisk) -> Self {
        let sys = Sys {
            clock: Clock::system(),
            tasks: Tasks::root("test", Blocking::Threads),
            disk: Arc::new(disk.clone()),
            ..Sys::simulated(1)
        };
        let (metrics, health) = (Metrics::default(), Health::default());
        let values = [("data.dir", "data"), ("node.id", "1")];
        let values = values.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = NodeConfig::from_values(values.into()).unwrap();
        let broker = config.broker.clone();
        let options = controller::Options::alone("test", broker.clone(), &sys);
        let peers = options.peers.clone();
        let (controller, view) = controller::start(options).await.unwrap();
        controller.show();
        let registry = Registry::start(registry::Options {
            me: NodeId(1),
            broker: broker.clone(),
            // Records here are of 1970: retention must not come upon them, however slow the machine is.
            maintenance_interval_ms: 24 * 3_600_000,
            view: view.clone(),
            sys: sys.clone(),
            health,
            metrics: metrics.clone(),
            in_sync_sets: Arc::new(crate::partition::FixedSets),
            replica_lag_max: Duration::from_secs(10),
        });
        if !view.image().nodes.contains_key(&NodeId(1)) {
            let addresses = crate::metadata::image::Addresses::default();
            let mut node = crate::metadata::Node::new(NodeId(1), addresses, None);
            node.features = crate::metadata::features::Supported::default().registered();
            controller.propose(Change::RegisterNode(node)).await.unwrap();
        }
        registry.reconciled(view.image().offset).await;
        let transactions = Transactions::start(transaction::Parts {
            me: NodeId(1),
            config: config.transaction.clone(),
            voters: 1,
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            peers: peers.clone(),
            metrics: metrics.clone(),
        });
        let cluster = Cluster::new(around::Parts {
            me: NodeId(1),
            clock: sys.clock.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            peers,
            broker,
            transactions,
            transaction_timeout_max: config.transaction.timeout_max,
        });
        let outside = Arc::new(Interrupted::new(cluster));
        let transforms = Transforms::start(Parts {
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            metrics,
            node: NodeId(1),
            folder: PathBuf::from("modules"),
            replication_factor: 3,
            voters: 1,
            outside: Arc::clone(&outside) as Arc<dyn Outside>,
        })
        .await
        .unwrap();
        Self {
            disk,
            sys,
            view,
            controller,
            registry,
            outside,
            transforms,
        }
    }

    /// The power goes, without a word to anybody, and comes back.
    async fn crash(self) -> Self {
        let Self {
            disk, sys, outside, ..
        } = self;
        disk.crash();
        outside.let_go();
        // What runs still holds files of before the crash; it ends, and nothing it does reaches the disk any more.
        let _ = sys.tasks.stop(&sys.clock, PATIENCE).await;
        Self::boot(disk).await
    }

    async fn topic(&self, name: &str, partitions: i32) {
        self.topic_with(name, partitions, &[]).await;
    }

    async fn topic_with(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let topic = NewTopic {
            partitions,
            configs: configs.collect(),
            ..NewTopic::named(name)
        };
        let applied = self.controller.propose(Change::CreateTopic(topic)).await.unwrap();
        self.registry.reconciled(applied.offset).await;
    }

    fn partition(&self, topic: &str, index: i32) -> Partition {
        let found = self.registry.get(topic, PartitionIndex(index));
        found.unwrap_or_else(|| panic!("{topic} {index} is here"))
    }

    /// The same for a partition that somebody else is about to make.
    async fn awaited(&self, topic: &str, index: i32) -> Partition {
        let mut reconciled = self.registry.watch();
        let found = async {
            loop {
                reconciled.borrow_and_update();
                if let Some(found) = self.registry.get(topic, PartitionIndex(index)) {
                    return found;
                }
                reconciled.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{topic} {index} is not here"))
    }

    async fn upload(&self, name: &str) -> ModuleRef {
        let called = name.rsplit('/').next().unwrap().replace('_', "-");
        self.upload_as(called, wasm(name)).await
    }

    async fn upload_as(&self, name: String, wasm: Vec<u8>) -> ModuleRef {
        let module = self
            .transforms
            .upload(wasm.into(), Some(name), None)
            .await
            .unwrap();
        ModuleRef {
            name: module.name.clone(),
            version: module.version.clone(),
        }
    }

    async fn deploy(&self, module: &str, change: impl FnOnce(&mut TransformSpec)) -> Result<(), DeployError> {
        let module = self.upload(module).await;
        let name = module.name.clone();
        let mut spec = TransformSpec::new(&name, module, "in", "out");
        change(&mut spec);
        self.transforms.deploy(spec).await.map(drop)
    }

    /// Appends records, each its own key, with these timestamps.
    async fn append(&self, topic: &str, index: i32, records: &[(i64, &str)]) {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for (timestamp_ms, value) in records {
            let value = Some(value.as_bytes());
            let record = NewRecord {
                timestamp_ms: *timestamp_ms,
                key: value,
                value,
                headers: &[],
            };
            builder.append(&record).unwrap();
        }
        let options = AppendOptions {
            acks: Acks::All,
            current_epoch: None,
            origin: Origin::Client,
            verified: None,
        };
        let batch = builder.build().unwrap().unwrap();
        let ticket = self.partition(topic, index).append(batch, options).await.unwrap();
        ticket.done().await.unwrap();
    }

    /// Waits until a partition holds this many committed records.
    async fn reached(&self, topic: &str, index: i32, count: usize) {
        let mut watermarks = self.awaited(topic, index).await.watermarks();
        let reached = async {
            loop {
                watermarks.borrow_and_update();
                if self.read(topic, index).await.len() >= count {
                    return;
                }
                watermarks.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        if reached.is_err() {
            panic!("{topic} {index} did not reach {count}: {:#?}", self.states());
        }
    }

    /// Waits until a transform has committed this position on a partition.
    async fn committed(&self, transform: &str, index: i32, position: i64) {
        let state = self
            .awaited(&format!("__transform_state.{transform}"), index)
            .await;
        let mut watermarks = state.watermarks();
        let wait = async {
            loop {
                watermarks.borrow_and_update();
                if self
                    .position(transform, index)
                    .await
                    .is_some_and(|at| at >= Offset(position))
                {
                    return;
                }
                watermarks.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            reached.is_ok(),
            "{transform} {index} did not reach {position}: {:#?}",
            self.states()
        );
        self.settled(transform).await;
    }

    /// Waits until nothing of what a transform has sent is open: the markers of a transaction come to each partition by
    /// themselves.
    async fn settled(&self, transform: &str) {
        let image = self.view.image();
        let transform = image.transforms.get(transform).expect("it is deployed");
        let topics = transform.sinks.iter().chain(&transform.late_sink);
        let topics = topics.chain([&transform.dead_letter]);
        for topic in topics.filter_map(|name| image.topic(name)) {
            for index in topic.indexes() {
                let partition = self.awaited(&topic.name, index.value()).await;
                let ended = self.outside.end(partition.name().clone());
                let ended = tokio::time::timeout(PATIENCE, ended).await;
                ended.expect("transactions end").expect("it is led here");
            }
        }
    }

    /// The position that a transform has committed on a partition.
    async fn position(&self, transform: &str, index: i32) -> Option<Offset> {
        let commit = self.restored(transform, index).await.commit;
        commit.map(|commit| commit.position)
    }

    /// What of a changelog is committed. A whole commit takes away what is before it, and may do so while it is read: then
    /// it is read anew.
    async fn restored(&self, transform: &str, index: i32) -> changelog::Restored {
        let state = self.partition(&format!("__transform_state.{transform}"), index);
        let (mut from, mut replay) = (Offset::ZERO, changelog::Replay::default());
        loop {
            let Ok(read) = self.outside.read(state.name().clone(), from).await else {
                (from, replay) = (Offset::ZERO, changelog::Replay::default());
                continue;
            };
            for batch in Batches::new(read.batches).map(Result::unwrap) {
                if !batch.header().is_control() {
                    replay.batch(&batch).unwrap();
                }
            }
            if read.next <= from {
                return replay.finish();
            }
            from = read.next;
        }
    }

    fn states(&self) -> Vec<Option<TransformStatus>> {
        let image = self.view.image();
        image
            .transforms
            .keys()
            .map(|name| self.transforms.status(name))
            .collect()
    }

    /// Values and headers of every committed record of a partition.
    async fn read(&self, topic: &str, index: i32) -> Vec<(String, BTreeMap<String, String>)> {
        let partition = self.partition(topic, index);
        let end = partition.watermarks().borrow().last_stable;
        let (mut from, mut found) = (Offset::ZERO, Vec::new());
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
        while from < end {
            let request = ReadRequest {
                from,
                max_bytes: 1 << 20,
                isolation: Isolation::Committed,
                min_one: true,
                current_epoch: None,
                up_to_log_end: false,
            };
            let outcome = partition.read(request).await.unwrap();
            for batch in Batches::new(outcome.visible()).map(Result::unwrap) {
                if batch.header().is_control() {
                    continue;
                }
                for record in &batch.records(1 << 20).unwrap() {
                    let record = record.unwrap();
                    let headers = record.headers.map(|header| header.unwrap());
                    let headers = headers.map(|header| (text(Some(header.key)), text(header.value)));
                    found.push((text(record.value), headers.collect()));
                }
            }
            from = outcome.next;
        }
        found
    }

    async fn values(&self, topic: &str, index: i32) -> Vec<String> {
        self.read(topic, index)
            .await
            .into_iter()
            .map(|(value, _)| value)
            .collect()
    }
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|index| format!("v{index}")).collect()
}

fn records(values: &[String]) -> Vec<(i64, &str)> {
    let timed = values.iter().enumerate();
    timed.map(|(at, value)| (at as i64 + 1, value.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_costs_one_record_and_its_letter_tells_the_story() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("hostile/trap_on_record_7", |_| ()).await.unwrap();
    let values = numbered(0, 20);
    rig.append("in", 0, &records(&values)).await;
    rig.committed("trap-on-record-7", 0, 20).await;
    rig.reached("out", 0, 19).await;
    let expected: Vec<_> = values.iter().filter(|value| *value != "v7").cloned().collect();
    assert_eq!(rig.values("out", 0).await, expected);
    let letters = rig.read("in.dead-letter", 0).await;
    let [(value, headers)] = &letters[..] else {
        panic!("one letter, not {letters:?}");
    };
    assert_eq!(value, "v7");
    assert_eq!(headers["headwater-error-reason"], "trap");
    assert_eq!(headers["headwater-error-offset"], "7");
    assert!(headers["headwater-error-message"].contains("cannot stand offset 7"));
    let status = rig.transforms.status("trap-on-record-7").unwrap();
    assert_eq!(
        (
            status.totals.records_in,
            status.totals.records_out,
            status.totals.failed
        ),
        (20, 19, 1)
    );
    assert_eq!(status.state, RunState::Running);
    assert_eq!(status.last_error.unwrap().offset, Some(Offset(7)));
    assert!(!rig.transforms.logs("trap-on-record-7").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_loops_stalls_only_its_own_transform() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.topic("other", 1).await;
    rig.deploy("hostile/loop_forever", |_| ()).await.unwrap();
    let values = numbered(0, 2_000);
    rig.append("in", 0, &records(&values)).await;
    let sound = rig.deploy("hostile/trap_on_record_7", |spec| {
        spec.source = "other".to_owned();
        spec.sinks = vec!["fine".to_owned()];
    });
    sound.await.unwrap();
    rig.append("other", 0, &records(&values)).await;
    rig.reached("fine", 0, 1_999).await;
    let looping = rig.transforms.status("loop-forever").unwrap();
    assert!(looping.lag > 0, "it cannot be through: {looping:?}");
    // It must end at once although its guest does not.
    rig.transforms.pause("loop-forever").await.unwrap();
    assert_eq!(
        rig.transforms.status("loop-forever").unwrap().state,
        RunState::Paused
    );
    rig.transforms.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_and_position_survive_the_power() {
    let mut rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("examples/longest", |spec| spec.window_ms = Some(100))
        .await
        .unwrap();
    let key = |at: i64| at % 100;
    // Three rounds, each ended by a crash, fill the window 0..100 of keys 0 to 59; the last record closes it.
    for round in 0..3 {
        let values: Vec<_> = (round * 20..round * 20 + 20)
            .map(|at| format!("k{}", key(at)))
            .collect();
        let timed: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, value)| (round * 20 + at as i64, &**value))
            .collect();
        rig.append("in", 0, &timed).await;
        rig.committed("longest", 0, round * 20 + 20).await;
        rig = rig.crash().await;
    }
    rig.append("in", 0, &[(500, "end")]).await;
    rig.reached("out", 0, 60).await;
    let mut sent = rig.values("out", 0).await;
    sent.sort();
    let mut expected: Vec<_> = (0..60).map(|at| format!("k{at}")).collect();
    expected.sort();
    assert_eq!(sent, expected, "every accumulator of before the crashes, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_transform_stops_and_goes_on_with_another_version() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.deploy("hostile/trap_on_record_7", |spec| {
        spec.on_error = Some(ErrorPolicy::Stop)
    })
    .await
    .unwrap();
    rig.append("in", 0, &records(&numbered(0, 10))).await;
    rig.committed("trap-on-record-7", 0, 7).await;
    rig.reached("out", 0, 7).await;
    // The same transform, with a policy that lets it go on: from the very record.
    let again = rig.deploy("hostile/trap_on_record_7", |spec| {
        spec.on_error = Some(ErrorPolicy::Skip)
    });
    again.await.unwrap();
    rig.reached("out", 0, 9).await;
    let expected: Vec<_> = numbered(0, 10)
        .into_iter()
        .filter(|value| value != "v7")
        .collect();
    assert_eq!(rig.values("out", 0).await, expected);
    rig.transforms.remove("trap-on-record-7").await.unwrap();
    let mut images = rig.view.watch();
    let gone = images.wait_for(|image| image.topic("__transform_state.trap-on-record-7").is_none());
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the state goes with the transform")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_set_up_is_not_deployed() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    let refused = rig.deploy("hostile/refuse_configure", |_| ()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the module refuses its parameters: the moon is not full"
    );
    let unknown = rig.deploy("examples/late_flights", |spec| {
        spec.params.insert("wher".to_owned(), "x".to_owned());
    });
    assert_eq!(
        unknown.await.unwrap_err().to_string(),
        "the module has no parameter \"wher\""
    );
    assert!(rig.view.image().transforms.is_empty());
    let waiting = rig.deploy("examples/late_flights", |spec| spec.source = "nowhere".to_owned());
    waiting.await.unwrap();
    let state = rig.transforms.status("late-flights").unwrap().state;
    assert_eq!(state.reason(), Some("source topic \"nowhere\" does not exist"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_shows_what_would_happen_and_leaves_no_trace() {
    let rig = Rig::new().await;
    rig.topic("in", 2).await;
    let module = rig.upload("hostile/trap_on_record_7").await;
    rig.append("in", 0, &records(&numbered(0, 10))).await;
    let before = rig.view.image().topics.len();
    let report = rig
        .transforms
        .dry_run(DryRun {
            module,
            params: BTreeMap::new(),
            source: "in".to_owned(),
            partition: None,
            offset: None,
            limit: 5,
            lookups: BTreeMap::new(),
            window_ms: None,
            window: None,
        })
        .await
        .unwrap();
    let fates: Vec<_> = report
        .results
        .iter()
        .map(|tried| (tried.input.offset.value(), tried.fate))
        .collect();
    let kept = |offset| (offset, Fate::Kept);
    assert_eq!(fates, [kept(5), kept(6), (7, Fate::Failed), kept(8), kept(9)]);
    assert!(
        report.results[2]
            .error
            .as_ref()
            .unwrap()
            .contains("cannot stand offset 7")
    );
    assert_eq!(rig.view.image().topics.len(), before);
}
