//! The rig: nodes, the way between them, and the quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
};
use headwater_protocol::record::{BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp};
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::controller;
use crate::group::{self, Groups};
use crate::metadata::image::Addresses;
use crate::metadata::topic::OFFSETS_TOPIC;
use crate::metadata::{Image, Node as NodeEntry, PartitionState, Publisher, Record, View};
use crate::partition::{
    Acks, AppendOptions, Appended, InSyncChange, InSyncRefused, InSyncSets, Isolation, Origin, Partition,
    Proposing, ReadRequest, Registry, registry,
};
use crate::peer::CallError;
use crate::replication::{Connecting, Ends, Leaders, Options, Replication};
use crate::server::{Server, Services};
use crate::share::{self, Shares};
use crate::sys::Sys;
use crate::sys::clock::Clock;
use crate::sys::disk::memory::MemoryDisk;
use crate::sys::random::Random;
use crate::sys::task::{Blocking, Kind, Tasks};
use crate::telemetry::{Health, Metrics};
use crate::transaction::{self, Transactions};
use crate::transport::{Carrier, ListenerKind, Peer, memory};

pub(super) const TOPIC: TopicId = TopicId([1; 16]);
pub(super) const ALL: AppendOptions = AppendOptions {
    acks: Acks::All,
    current_epoch: None,
    origin: Origin::Client,
    verified: None,
};
pub(super) const LEADER: AppendOptions = AppendOptions {
    acks: Acks::Leader,
    ..ALL
};

/// What the quorum would know, and whom it tells.
pub(super) struct Quorum {
    image: Mutex<Image>,
    publishers: Mutex<BTreeMap<NodeId, Publisher>>,
    /// Nodes whose proposals get no answer.
    pub(super) deaf: Mutex<BTreeSet<NodeId>>,
}

impl Quorum {
    pub(super) fn image(&self) -> Image {
        self.image.lock().unwrap().clone()
    }

    pub(super) fn say(&self, records: &[Record]) {
        let mut image = self.image.lock().unwrap();
        for record in records {
            let at = image.offset.plus(1);
            image.apply(at, record);
        }
        let image = Arc::new(image.clone());
        for publisher in self.publishers.lock().unwrap().values() {
            publisher.publish(Arc::clone(&image));
        }
    }

    pub(super) fn partition(&self, index: i32) -> PartitionState {
        let image = self.image.lock().unwrap();
        let topic = image.topic_by_id(TOPIC).expect("it was made");
        topic
            .partition(PartitionIndex(index))
            .expect("it was made")
            .clone()
    }

    pub(super) fn set(&self, index: i32, state: PartitionState) {
        self.say(&[Record::Partition {
            topic: TOPIC,
            index: PartitionIndex(index),
            state,
        }]);
    }

    fn decide(&self, change: &InSyncChange) -> Result<PartitionState, InSyncRefused> {
        if self.deaf.lock().unwrap().contains(&change.leader) {
            return Err(InSyncRefused::Unknown("no answer".to_owned()));
        }
        let state = self.partition(change.index.value());
        if state.leader != change.leader
            || state.leader_epoch != change.leader_epoch
            || state.partition_epoch != change.partition_epoch
        {
            return Err(InSyncRefused::Stale("compared and not equal".to_owned()));
        }
        let image = self.image();
        for member in change
            .in_sync
            .iter()
            .filter(|member| member.node != change.leader)
        {
            let node = &image.nodes[&member.node];
            if !node.is_active() || member.broker_epoch.is_some_and(|epoch| epoch != node.epoch) {
                return Err(InSyncRefused::Ineligible(format!("node {}", member.node)));
            }
        }
        let decided = PartitionState {
            isr: change.in_sync.iter().map(|member| member.node).collect(),
            partition_epoch: state.partition_epoch + 1,
            ..state
        };
        self.set(change.index.value(), decided.clone());
        Ok(decided)
    }
}

struct QuorumClient(Arc<Quorum>);

impl InSyncSets for QuorumClient {
    fn propose(&self, change: InSyncChange) -> Proposing {
        let quorum = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::task::yield_now().await;
            quorum.decide(&change)
        })
    }
}

/// The ways between the nodes.
#[derive(Default)]
struct Ways {
    servers: BTreeMap<NodeId, (Server, CancellationToken)>,
    /// From, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    open: Vec<(NodeId, NodeId, CancellationToken)>,
}

struct Way {
    me: NodeId,
    ways: Arc<Mutex<Ways>>,
}

impl Leaders for Way {
    fn connect(&self, node: NodeId) -> Connecting {
        let (me, ways) = (self.me, Arc::clone(&self.ways));
        Box::pin(async move {
            let mut ways = ways.lock().unwrap();
            let unreachable = || CallError::Unreachable {
                node,
                reason: "it is away".to_owned(),
            };
            if ways.cut.contains(&(me, node)) {
                return Err(unreachable());
            }
            let (server, down) = ways.servers.get(&node).cloned().ok_or_else(unreachable)?;
            let broken = down.child_token();
            let (here, there) = memory::pair(&broken);
            ways.open.push((me, node, broken));
            server.serve_stream(there, peer(Some(me)));
            Ok(Ends {
                reader: Box::new(here.reader),
                writer: Box::new(here.writer),
            })
        })
    }
}

pub(super) fn peer(node: Option<NodeId>) -> Peer {
    Peer {
        address: ([127, 0, 0, 1], 1).into(),
        certificate: None,
        node,
        transport: Carrier::Memory,
        listener: ListenerKind::Quic,
    }
}

/// One node that runs.
pub(super) struct Member {
    pub(super) registry: Registry,
    pub(super) server: Server,
    pub(super) groups: Groups,
    pub(super) sys: Sys,
    down: CancellationToken,
    _replication: Replication,
}

pub(super) struct Cluster {
    pub(super) clock: Clock,
    pub(super) quorum: Arc<Quorum>,
    pub(super) disks: BTreeMap<NodeId, MemoryDisk>,
    pub(super) members: BTreeMap<NodeId, Member>,
    ways: Arc<Mutex<Ways>>,
    random: Random,
    drive: Tasks,
    pace: Pace,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.drive.cancel();
    }
}

/// How time goes.
#[derive(Clone)]
pub(super) struct Pace {
    /// It moves on by as much whenever everybody has had many turns.
    pub(super) step: Duration,
    pub(super) lag_max_ms: u64,
    /// Where syncs run: on threads they take a while, in which a crash loses what waits for them.
    pub(super) blocking: Blocking,
}

/// So slowly that what takes no time shows none.
const SLOW: Pace = Pace {
    step: Duration::from_millis(1),
    lag_max_ms: 10_000,
    blocking: Blocking::Inline,
};
const TURNS: usize = 200;

async fn drive(clock: Clock, step: Duration, cancelled: CancellationToken) {
    while !cancelled.is_cancelled() {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        clock.advance(step);
    }
}

impl Cluster {
    /// Nodes 1 to `nodes`, and a topic with replicas on all of them. Node n stands in rack `rack n`.
    pub(super) async fn new(seed: u64, nodes: i32, partitions: i32, configs: &[(&str, &str)]) -> Self {
        Self::paced(seed, nodes, partitions, configs, SLOW).await
    }

    /// As `new`, with the topic in which consumer groups keep their offsets.
    pub(super) async fn of_groups(seed: u64, nodes: i32, partitions: i32) -> Self {
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "16384")];
        Self::with_topic(OFFSETS_TOPIC, seed, nodes, partitions, &configs, SLOW).await
    }

    pub(super) async fn paced(
        seed: u64,
        nodes: i32,
        partitions: i32,
        configs: &[(&str, &str)],
        pace: Pace,
    ) -> Self {
        Self::with_topic("t", seed, nodes, partitions, configs, pace).await
    }

    async fn with_topic(
        name: &str,
        seed: u64,
        nodes: i32,
        partitions: i32,
        configs: &[(&str, &str)],
        pace: Pace,
    ) -> Self {
        let random = Random::seeded(seed);
        let image = Image {
            offset: Offset(0),
            ..Image::default()
        };
        let quorum = Arc::new(Quorum {
            image: Mutex::new(image),
            publishers: Mutex::default(),
            deaf: Mutex::default(),
        });
        let ids: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let disks = ids.iter().map(|id| (*id, MemoryDisk::new(random.fork())));
        let mut cluster = Self {
            clock: Clock::manual(1_700_000_000_000),
            drive: Tasks::root("drive", Blocking::Inline),
            pace: pace.clone(),
            quorum,
            disks: disks.collect(),
            members: BTreeMap::new(),
            ways: Arc::default(),
            random,
        };
        let driver = drive(cluster.clock.clone(), pace.step, cluster.drive.cancelled());
        drop(cluster.drive.spawn("time", Kind::Critical, driver));
        for id in &ids {
            cluster.start(id.value()).await;
        }
        let mut records = vec![Record::Topic {
            id: TOPIC,
            name: name.to_owned(),
            internal: name == OFFSETS_TOPIC,
            mirror: None,
        }];
        records.extend(configs.iter().map(|(key, value)| Record::TopicConfig {
            topic: TOPIC,
            key: (*key).to_owned(),
            value: Some((*value).to_owned()),
        }));
        records.extend((0..partitions).map(|index| Record::Partition {
            topic: TOPIC,
            index: PartitionIndex(index),
            state: PartitionState::fresh(ids.clone()),
        }));
        cluster.quorum.say(&records);
        cluster.reconciled().await;
        cluster
    }

    /// Starts a node that is down: it registers, and is another incarnation.
    pub(super) async fn start(&mut self, id: i32) {
        let id = NodeId(id);
        let sys = Sys {
            clock: self.clock.clone(),
            tasks: Tasks::root("node", self.pace.blocking.clone()),
            disk: Arc::new(self.disks[&id].clone()),
            random: self.random.fork(),
            ..Sys::simulated(1)
        };
        let (publisher, view) = View::new(self.quorum.image());
        self.quorum.publishers.lock().unwrap().insert(id, publisher);
        self.register(id);
        let values = BTreeMap::from([
            ("data.dir".to_owned(), "data".to_owned()),
            ("node.id".to_owned(), id.to_string()),
            (
                "replica.lag.time.max.ms".to_owned(),
                self.pace.lag_max_ms.to_string(),
            ),
        ]);
        let config = NodeConfig::from_values(values).unwrap();
        let metrics = Metrics::default();
        let registry = Registry::start(registry::Options {
            me: id,
            broker: config.broker.clone(),
            maintenance_interval_ms: 300_000,
            view: view.clone(),
            sys: sys.clone(),
            health: Health::default(),
            metrics: metrics.clone(),
            in_sync_sets: Arc::new(QuorumClient(Arc::clone(&self.quorum))),
            replica_lag_max: config.replication.lag_max,
        });
        let replication = Replication::start(Options {
            me: id,
            settings: config.replication.clone(),
            broker: config.broker.clone(),
            sys: sys.clone(),
            view: view.clone(),
            registry: registry.clone(),
            leaders: Arc::new(Way {
                me: id,
                ways: Arc::clone(&self.ways),
            }),
            metrics: metrics.clone(),
        });
        // What it decides is of no interest here: the quorum is the test's.
        let machine = Sys {
            tasks: sys.tasks.clone(),
            clock: sys.clock.clone(),
            ..Sys::simulated(2)
        };
        let options = controller::Options::alone("lab", config.broker.clone(), &machine);
        let peers = options.peers.clone();
        let (controller, _) = controller::start(options).await.unwrap();
        let groups = Groups::start(group::Parts {
            me: id,
            config: config.group.clone(),
            voters: 0,
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            metrics: metrics.clone(),
        });
        let transactions = Transactions::start(transaction::Parts {
            me: id,
            config: config.transaction.clone(),
            voters: 0,
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            peers: peers.clone(),
            metrics: metrics.clone(),
        });
        let shares = Shares::start(share::Parts {
            me: id,
            config: config.share.clone(),
            broker: config.broker.clone(),
            voters: 0,
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            peers: peers.clone(),
            knows: crate::server::share_groups::known_by(&groups, &peers, id),
            metrics: metrics.clone(),
        });
        let server = Server::new(
            Services {
                config: Arc::new(config),
                sys: sys.clone(),
                metrics,
                view,
                controller,
                registry: registry.clone(),
                groups: groups.clone(),
                transactions: transactions.clone(),
                shares,
                peers,
            },
            None,
        );
        let down = CancellationToken::new();
        let way = (server.clone(), down.clone());
        self.ways.lock().unwrap().servers.insert(id, way);
        let member = Member {
            registry,
            server,
            groups,
            sys,
            down,
            _replication: replication,
        };
        self.members.insert(id, member);
        self.reconciled().await;
    }

    fn register(&self, id: NodeId) {
        let before = self.quorum.image().nodes.get(&id).map(|node| node.epoch);
        let addresses = Addresses::default();
        let mut node = NodeEntry::new(id, addresses, Some(format!("rack {id}")));
        node.epoch = BrokerEpoch(before.map_or(0, |epoch| epoch.value() + 1));
        self.quorum.say(&[Record::Node(node)]);
    }

    /// The power of one node goes: what was not synced may be lost.
    pub(super) async fn crash(&mut self, id: i32) {
        let id = NodeId(id);
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        self.quorum.publishers.lock().unwrap().remove(&id);
        self.ways.lock().unwrap().servers.remove(&id);
        member.down.cancel();
        // The disk first: what is being synced is lost, too.
        self.disks[&id].crash();
        member.sys.tasks.cancel();
        member.sys.tasks.ended().await;
    }

    /// No way between two nodes any more, in both directions.
    pub(super) fn cut(&self, one: i32, other: i32) {
        let mut ways = self.ways.lock().unwrap();
        for way in [(one, other), (other, one)] {
            let way = (NodeId(way.0), NodeId(way.1));
            ways.cut.insert(way);
            ways.open.retain(|(from, to, broken)| {
                let is_cut = (*from, *to) == way;
                if is_cut {
                    broken.cancel();
                }
                !is_cut
            });
        }
    }

    pub(super) fn heal(&self) {
        self.ways.lock().unwrap().cut.clear();
    }

    /// Returns when every node's partitions are those of the metadata.
    pub(super) async fn reconciled(&self) {
        let offset = self.quorum.image().offset;
        for member in self.members.values() {
            member.registry.reconciled(offset).await;
        }
    }

    /// Makes `leader` lead, with those in sync of the present set that `alive` names.
    pub(super) async fn elect(&self, index: i32, leader: i32, alive: &[i32]) {
        let state = self.quorum.partition(index);
        let in_sync = state.isr.iter().filter(|node| alive.contains(&node.value()));
        let isr: Vec<NodeId> = in_sync.copied().collect();
        assert!(isr.contains(&NodeId(leader)), "only one in sync may lead");
        self.quorum.set(
            index,
            PartitionState {
                leader: NodeId(leader),
                leader_epoch: LeaderEpoch(state.leader_epoch.value() + 1),
                partition_epoch: state.partition_epoch + 1,
                isr,
                ..state
            },
        );
        self.reconciled().await;
    }

    pub(super) fn get(&self, node: i32, index: i32) -> Partition {
        let registry = &self.members[&NodeId(node)].registry;
        registry
            .get_by_id(TOPIC, PartitionIndex(index))
            .expect("it is here")
    }

    /// Returns once `is_so`, or fails after a minute.
    pub(super) async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let until = self.clock.now() + Duration::from_secs(60);
        while !is_so(self) {
            assert!(self.clock.now() < until, "it never came: {what}");
            self.clock.sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns once all replicas of a partition that run have everything, and know it.
    pub(super) async fn converged(&self, index: i32) {
        self.until("all replicas are the same", |cluster| {
            let marks = cluster.members.keys().map(|node| {
                let marks = *cluster.get(node.value(), index).watermarks().borrow();
                (marks.log_end, marks.high_watermark)
            });
            let marks: BTreeSet<_> = marks.collect();
            marks.len() == 1 && marks.iter().all(|(end, committed)| end == committed)
        })
        .await;
    }

    /// All bytes below the watermark, as they lie in the log of one node.
    pub(super) async fn bytes(&self, node: i32, index: i32) -> Bytes {
        let partition = self.get(node, index);
        let (mut next, mut all) = (partition.watermarks().borrow().log_start, Vec::new());
        loop {
            let request = ReadRequest {
                from: next,
                max_bytes: 1 << 20,
                isolation: Isolation::Uncommitted,
                min_one: true,
                current_epoch: None,
                up_to_log_end: false,
            };
            let outcome = partition.read(request).await.expect("it can be read");
            if outcome.records.is_empty() && outcome.next == next {
                return all.into();
            }
            next = outcome.next;
            all.extend_from_slice(&outcome.contiguous());
        }
    }

    /// Offsets and values below the watermark of one node.
    pub(super) async fn records(&self, node: i32, index: i32) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        for batch in Batches::new(self.bytes(node, index).await) {
            let batch = batch.expect("whole");
            batch.check_crc().expect("unchanged");
            for record in &batch.records(1 << 20).expect("readable") {
                let record = record.expect("readable");
                let offset = batch.base_offset().plus(i64::from(record.offset_delta));
                let value = String::from_utf8(record.value.expect("set").to_vec()).expect("text");
                found.push((offset.value(), value));
            }
        }
        found
    }

    /// Fails unless all nodes that run have the same bytes.
    pub(super) async fn same_everywhere(&self, index: i32) {
        self.converged(index).await;
        let mut all = Vec::new();
        for node in self.members.keys() {
            all.push(self.bytes(node.value(), index).await);
        }
        assert!(
            all.windows(2).all(|pair| pair[0] == pair[1]),
            "the replicas differ"
        );
    }
}

pub(super) fn values(from: usize, count: usize) -> Vec<String> {
    (from..from + count)
        .map(|number| format!("value {number}"))
        .collect()
}

fn build(options: BatchOptions, values: &[String]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        let record = NewRecord {
            timestamp_ms: 1_700_000_000_000,
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        builder.append(&record).expect("it fits");
    }
    builder
        .build()
        .expect("it can be written")
        .expect("it has records")
}

pub(super) fn batch(values: &[String]) -> Bytes {
    build(BatchOptions::PLAIN, values)
}

/// Appends, and returns once every replica in sync has it.
pub(super) async fn write(leader: &Partition, batch: Bytes) -> Appended {
    let ticket = leader.append(batch, ALL).await.unwrap();
    ticket.done().await.unwrap()
}

pub(super) fn idempotent(producer: i64, sequence: i32, values: &[String]) -> Bytes {
    let producer = ProducerStamp {
        id: ProducerId(producer),
        epoch: ProducerEpoch(0),
        base_sequence: sequence,
    };
    build(
        BatchOptions {
            producer,
            ..BatchOptions::PLAIN
        },
        values,
    )
}
