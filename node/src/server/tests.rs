//! The edge through its public face: a raw client over the memory transport, a real controller and real partitions on
//! a disk in memory, a clock that stands still until it is moved.

mod admin;
mod cluster;
mod flow;
mod groups;
mod hostile;
mod journeys;
mod operate;
mod shares;
mod tls;
mod transactions;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headwater_protocol::frame;
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use headwater_protocol::kafka::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use headwater_protocol::kafka::{Request, decode_response, encode_request};
use headwater_protocol::primitives::{Records, Str, Uuid};
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, Batches, NewRecord, ProducerStamp, RECORDS_BYTES_MAX,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Server, Services};
use crate::config::{BrokerConfig, NodeConfig};
use crate::controller::{self, Change, NewTopic, Outcome};
use crate::group::{self, Groups};
use crate::metadata::image::Addresses;
use crate::metadata::{Node, Topic, features};
use crate::partition::{FixedSets, Registry, registry};
use crate::share::{self, Shares};
use crate::sys::Sys;
use crate::sys::task::Tasks;
use crate::telemetry::{Health, Metrics};
use crate::transaction::{self, Transactions};
use crate::transport::{Listener, ListenerKind, Stream, memory};

/// A node's edge with everything below it.
struct Edge {
    server: Server,
    services: Services,
    tcp: memory::Connector,
    tls: memory::Connector,
    quic: memory::Connector,
    /// The tasks of the controller, which end with these.
    controlling: Tasks,
}

impl Edge {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With properties set.
    async fn with(set: &[(&str, &str)]) -> Self {
        Self::on(Sys::simulated(7), set).await
    }

    /// On a data directory that a binary of this feature level left.
    async fn at_level(level: i16) -> Self {
        let sys = Sys::simulated(7);
        let former = Sys {
            tasks: Sys::simulated(7).tasks,
            ..sys.clone()
        };
        let max = BTreeMap::from([(features::VERSION.to_owned(), level)]);
        let options = controller::Options {
            supported: features::Supported::up_to(&max),
            ..controller::Options::alone("lab", BrokerConfig::new(BTreeMap::new()), &former)
        };
        let (controller, _) = controller::start(options).await.unwrap();
        controller.propose(Change::AllocateProducerIds).await.unwrap();
        assert_eq!(controller.known().level(), features::Level(level));
        former.tasks.cancel();
        former.tasks.ended().await;
        Self::on(sys, &[]).await
    }

    async fn on(sys: Sys, set: &[(&str, &str)]) -> Self {
        let mut values = BTreeMap::from([("data.dir".to_owned(), "data".to_owned())]);
        values.extend(
            set.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        let config = NodeConfig::from_values(values).unwrap();
        let (metrics, health) = (Metrics::default(), Health::default());
        let controlling = sys.tasks.child("controlling");
        let apart = Sys {
            tasks: controlling.clone(),
            ..sys.clone()
        };
        let options = controller::Options::alone("lab", config.broker.clone(), &apart);
        let peers = options.peers.clone();
        let (controller, view) = controller::start(options).await.unwrap();
        controller.show();
        let registry = Registry::start(registry::Options {
            me: config.node_id,
            broker: config.broker.clone(),
            maintenance_interval_ms: config.retention_check_interval_ms,
            view: view.clone(),
            sys: sys.clone(),
            health,
            metrics: metrics.clone(),
            in_sync_sets: std::sync::Arc::new(FixedSets),
            replica_lag_max: config.replication.lag_max,
        });
        let addresses = Addresses {
            tcp: "tcp.example:9092".to_owned(),
            tls: "tls.example:9093".to_owned(),
            quic: "quic.example:9094".to_owned(),
            http: String::new(),
        };
        let mut me = Node::new(config.node_id, addresses, Some("shelf".to_owned()));
        me.features = features::Supported::default().registered();
        me.directory = Uuid::from_u128(1).to_string();
        controller.propose(Change::RegisterNode(me)).await.unwrap();
        let groups = Groups::start(group::Parts {
            me: config.node_id,
            config: config.group.clone(),
            voters: 0,
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            metrics: metrics.clone(),
        });
        let transactions = Transactions::start(transaction::Parts {
            me: config.node_id,
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
            me: config.node_id,
            config: config.share.clone(),
            broker: config.broker.clone(),
            voters: 0,
            sys: sys.clone(),
            view: view.clone(),
            controller: controller.clone(),
            registry: registry.clone(),
            peers: peers.clone(),
            knows: super::share_groups::known_by(&groups, &peers, config.node_id),
            metrics: metrics.clone(),
        });
        let services = Services {
            config: std::sync::Arc::new(config),
            sys,
            metrics,
            view,
            controller,
            registry,
            groups,
            transactions,
            shares,
            peers,
        };
        let server = Server::new(services.clone(), None);
        server.open();
        let (tcp, tcp_listener) = memory::listener(ListenerKind::Tcp);
        let (tls, tls_listener) = memory::listener(ListenerKind::Tls);
        let (quic, quic_listener) = memory::listener(ListenerKind::Quic);
        server.listen(Listener::Memory(tcp_listener));
        server.listen(Listener::Memory(tls_listener));
        server.listen(Listener::Memory(quic_listener));
        Self {
            server,
            services,
            tcp,
            tls,
            quic,
            controlling,
        }
    }

    async fn client(&self) -> Client {
        Client::over(self.tcp.stream().await.unwrap())
    }

    async fn topic(&self, name: &str, partitions: i32) -> std::sync::Arc<Topic> {
        self.topic_with(NewTopic {
            partitions,
            ..NewTopic::named(name)
        })
        .await
    }

    async fn topic_with(&self, new: NewTopic) -> std::sync::Arc<Topic> {
        let applied = self
            .services
            .controller
            .propose(Change::CreateTopic(new))
            .await
            .unwrap();
        self.services.registry.reconciled(applied.offset).await;
        let Outcome::Topic(topic) = applied.outcome else {
            panic!("no topic")
        };
        topic
    }

    /// Moves time on, and lets everybody see it.
    async fn pass(&self, duration: Duration) {
        self.services.sys.clock.advance(duration);
        settle().await;
    }
}

/// Lets every task run until it waits for something else than its turn.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// A client that sees every byte.
struct Client {
    stream: Stream,
    correlation_id: i32,
}

impl Client {
    fn over(stream: Stream) -> Self {
        Self {
            stream,
            correlation_id: 0,
        }
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.writer.write_all(bytes).await.unwrap();
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.correlation_id += 1;
        let client = Str::from_static("test");
        let mut frame = encode_request(request, version, self.correlation_id, Some(&client)).unwrap();
        self.stream.writer.write_buffers(&mut frame).await.unwrap();
        self.correlation_id
    }

    /// The next frame; `None` when the server has ended or broken the stream.
    async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.reader.read_u32().await.ok()?;
        let mut frame = BytesMut::zeroed(length as usize);
        self.stream.reader.read_exact(&mut frame).await.ok()?;
        Some(frame.freeze())
    }

    async fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        decode_response::<R>(self.frame().await.expect("an answer"), version).unwrap()
    }

    async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let sent = self.send(request, version).await;
        let (answered, response) = self.receive::<R>(version).await;
        assert_eq!(answered, sent);
        response
    }

    /// Produces to one partition.
    async fn produce(&mut self, topic: &Topic, batch: Bytes) -> PartitionProduceResponse {
        one(self.call(&produce(topic, 0, batch, -1), 9).await)
    }

    /// Fetches one partition from `offset` on, without waiting.
    async fn fetch(&mut self, topic: &Topic, offset: i64) -> PartitionData {
        let request = FetchRequest {
            topics: vec![fetch_topic(topic, &[0], offset)],
            ..fetch_now()
        };
        only(self.call(&request, 12).await)
    }
}

fn one(mut response: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1);
    response.responses[0].partition_responses.remove(0)
}

fn only(mut response: FetchResponse) -> PartitionData {
    assert_eq!((response.error_code, response.responses.len()), (0, 1));
    response.responses[0].partitions.remove(0)
}

fn produce(topic: &Topic, index: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData {
        index,
        records: Some(Records::from(batch)),
        ..Default::default()
    };
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: Str::from(&*topic.name),
            partition_data: vec![data],
            ..Default::default()
        }],
        ..ProduceRequest::default()
    }
}

fn fetch_now() -> FetchRequest {
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        ..FetchRequest::default()
    }
}

fn fetch_topic(topic: &Topic, partitions: &[i32], offset: i64) -> FetchTopic {
    let partitions = partitions.iter().map(|index| FetchPartition {
        partition: *index,
        fetch_offset: offset,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 1 << 20,
        high_watermark: i64::MAX,
        ..FetchPartition::default()
    });
    FetchTopic {
        topic: Str::from(&*topic.name),
        partitions: partitions.collect(),
        ..FetchTopic::default()
    }
}

/// A batch of records with these values.
fn batch(values: &[&str]) -> Bytes {
    batch_of(values, ProducerStamp::NONE)
}

fn batch_of(values: &[&str], producer: ProducerStamp) -> Bytes {
    let options = BatchOptions {
        producer,
        ..BatchOptions::PLAIN
    };
    batch_with(options, values)
}

fn batch_with(options: BatchOptions, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        let record = NewRecord {
            timestamp_ms: 1_700_000_000_000,
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    builder.build().unwrap().unwrap()
}

fn stamp(id: i64, base_sequence: i32) -> ProducerStamp {
    ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
        base_sequence,
    }
}

/// The values in fetched batches, with their offsets.
fn values(data: &PartitionData) -> Vec<(i64, String)> {
    let records = data.records.clone().unwrap_or_default().into_bytes();
    let mut found = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch.unwrap();
        batch.check_crc().unwrap();
        if batch.header().is_control() {
            continue;
        }
        for record in batch.records(RECORDS_BYTES_MAX).unwrap().iter() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            found.push((
                batch.base_offset().value() + i64::from(record.offset_delta),
                value,
            ));
        }
    }
    found
}

/// A frame as the wire carries it.
fn framed(body: &[u8]) -> Vec<u8> {
    [&frame::prefix(body.len()).unwrap()[..], body].concat()
}
