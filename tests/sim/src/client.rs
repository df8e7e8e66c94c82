//! A Kafka client over the simulated net: calls by address, each with a deadline, and where partitions are led.
//!
//! Owns its connections; one that failed or was late is dropped. It must never retry by itself: who asks decides what an
//! unanswered call may have done.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use headwater::security::tls::{ALPN_KAFKA, Trust};
use headwater::sys::net::Net;
use headwater::sys::net::simulated::Host;
use headwater::sys::random::Random;
use headwater::transport::dialer::Credentials;
use headwater::transport::{Dialer, Session, Stream, quic};
use headwater_protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use headwater_protocol::kafka::{Request, decode_response, encode_request};
use headwater_protocol::primitives::Str;
use tokio::io::AsyncReadExt;

use crate::trace::Trace;

const FRAME_BYTES_MAX: u32 = 64 << 20;

/// Why a call has no answer. It may have happened.
#[derive(Debug, Clone)]
pub(crate) struct NoAnswer(pub(crate) String);

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) index: i32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// What a node coordinates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coordinated {
    Group(String),
    Transaction(String),
}

impl Coordinated {
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Group(key) | Self::Transaction(key) => key,
        }
    }

    /// As the protocol has it.
    fn kind(&self) -> i8 {
        match self {
            Self::Group(_) => 0,
            Self::Transaction(_) => 1,
        }
    }
}

pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    dialer: Dialer,
    /// Where nodes are reached before the first answer.
    bootstrap: Vec<String>,
    over_quic: bool,
    deadline: Duration,
    wires: BTreeMap<String, Wire>,
    leaders: BTreeMap<Partition, Leader>,
    coordinators: BTreeMap<Coordinated, String>,
    /// The newest epoch heard of: whoever tells of an older one is behind.
    epochs: BTreeMap<Partition, i32>,
}

/// Who leads a partition, as a node told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) address: String,
    pub(crate) epoch: i32,
    /// Where all who hold it are reached, the leader among them.
    pub(crate) replicas: Vec<String>,
}

/// One stream to one node, and what keeps it open.
struct Wire {
    stream: Stream,
    _session: Option<Session>,
    correlation_id: i32,
}

impl Client {
    pub(crate) fn new(
        name: String,
        host: Host,
        bootstrap: Vec<String>,
        random: Random,
        trace: Trace,
    ) -> Self {
        Self {
            name,
            over_quic: random.one_in(2),
            deadline: Duration::from_millis(500 + random.below(2_000)),
            random,
            trace,
            dialer: Dialer::new(Net::simulated(host), quic::Settings::default()),
            bootstrap,
            wires: BTreeMap::new(),
            leaders: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// What it does, for who wants to know everything.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        self.trace.detail_line(format_args!("{} {what}", self.name));
    }

    pub(crate) async fn pause_ms(&self, ms_max: u64) {
        let ms = self.random.below(ms_max + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    pub(crate) fn any_node(&self) -> String {
        let index = self.random.below(self.bootstrap.len() as u64) as usize;
        self.bootstrap[index].clone()
    }

    /// Asks the node at `address`, once.
    pub(crate) async fn call<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        version: i16,
    ) -> Result<R::Response, NoAnswer> {
        self.call_within(self.deadline, address, request, version).await
    }

    /// As `call`, where an answer takes its time.
    pub(crate) async fn call_within<R: Request>(
        &mut self,
        deadline: Duration,
        address: &str,
        request: &R,
        version: i16,
    ) -> Result<R::Response, NoAnswer> {
        let asked = tokio::time::timeout(deadline, self.ask(address, request, version)).await;
        let answer = asked.unwrap_or_else(|_| Err(NoAnswer("too late".to_owned())));
        if answer.is_err() {
            // Half an answer may be on its way.
            self.wires.remove(address);
        }
        answer
    }

    async fn ask<R: Request>(
        &mut self,
        address: &str,
        request: &R,
        version: i16,
    ) -> Result<R::Response, NoAnswer> {
        if !self.wires.contains_key(address) {
            let wire = self.dial(address).await?;
            self.wires.insert(address.to_owned(), wire);
        }
        let failed = |error: std::io::Error| NoAnswer(error.to_string());
        let wire = self.wires.get_mut(address).expect("inserted above");
        wire.correlation_id += 1;
        let name = Str::from(self.name.as_str());
        let frame = encode_request(request, version, wire.correlation_id, Some(&name));
        let mut frame = frame.map_err(|error| NoAnswer(error.to_string()))?;
        wire.stream
            .writer
            .write_buffers(&mut frame)
            .await
            .map_err(failed)?;
        let length = wire.stream.reader.read_u32().await.map_err(failed)?;
        assert!(length <= FRAME_BYTES_MAX, "an answer of {length} bytes");
        let mut frame = BytesMut::zeroed(length as usize);
        wire.stream.reader.read_exact(&mut frame).await.map_err(failed)?;
        let (id, response) =
            decode_response::<R>(frame.freeze(), version).expect("a node speaks the protocol");
        assert_eq!(
            id, wire.correlation_id,
            "answers come in the order of the requests"
        );
        Ok(response)
    }

    async fn dial(&self, address: &str) -> Result<Wire, NoAnswer> {
        let failed = |error: &dyn std::fmt::Display| NoAnswer(error.to_string());
        let (stream, session) = if self.over_quic {
            let credentials = Credentials {
                trust: Trust::AnyCertificate,
                identity: None,
                alpn: ALPN_KAFKA,
            };
            let session = self
                .dialer
                .dial(address, &credentials)
                .await
                .map_err(|error| failed(&error))?;
            let stream = session.open_stream().await.map_err(|error| failed(&error))?;
            (stream, Some(session))
        } else {
            let stream = self
                .dialer
                .dial_stream(address, None)
                .await
                .map_err(|error| failed(&error))?;
            (stream, None)
        };
        Ok(Wire {
            stream,
            _session: session,
            correlation_id: 0,
        })
    }

    /// The partition's leader, as far as it is known.
    pub(crate) async fn leader(&mut self, partition: &Partition) -> Option<Leader> {
        if let Some(leader) = self.leaders.get(partition) {
            return Some(leader.clone());
        }
        self.learn(&partition.topic).await;
        self.leaders.get(partition).cloned()
    }

    /// What was believed of the partition's leader was wrong.
    pub(crate) fn forget_leader(&mut self, partition: &Partition) {
        self.leaders.remove(partition);
    }

    /// Where somebody coordinates this, as far as it is known.
    pub(crate) async fn coordinator(&mut self, what: &Coordinated) -> Option<String> {
        if let Some(address) = self.coordinators.get(what) {
            return Some(address.clone());
        }
        let request = FindCoordinatorRequest {
            key: Str::from(what.key()),
            key_type: what.kind(),
            ..FindCoordinatorRequest::default()
        };
        let answer = self.call(&self.any_node(), &request, 3).await.ok()?;
        let address = format!("{}:{}", answer.host, answer.port);
        (answer.error_code == 0).then(|| {
            self.coordinators.insert(what.clone(), address.clone());
            address
        })
    }

    /// What was believed of the coordinator was wrong.
    pub(crate) fn forget_coordinator(&mut self, what: &Coordinated) {
        self.coordinators.remove(what);
    }

    /// Its process ends: whatever is under way has no answer.
    pub(crate) fn hang_up(&mut self) {
        self.wires.clear();
        self.leaders.clear();
        self.coordinators.clear();
    }

    /// Asks any node for the leaders of a topic.
    async fn learn(&mut self, topic: &str) {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(Str::from(topic)),
                ..MetadataRequestTopic::default()
            }]),
            ..MetadataRequest::default()
        };
        let Ok(answer) = self.call(&self.any_node(), &request, 9).await else {
            return;
        };
        let addresses: BTreeMap<i32, String> = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)))
            .collect();
        for found in answer.topics.iter().filter(|found| found.error_code == 0) {
            for led in found.partitions.iter().filter(|led| led.error_code == 0) {
                let partition = Partition {
                    topic: topic.to_owned(),
                    index: led.partition_index,
                };
                let replicas = led.replica_nodes.iter().filter_map(|id| addresses.get(id));
                if let Some(address) = addresses.get(&led.leader_id) {
                    let leader = Leader {
                        address: address.clone(),
                        epoch: led.leader_epoch,
                        replicas: replicas.cloned().collect(),
                    };
                    self.heard(partition, leader);
                }
            }
        }
    }

    fn heard(&mut self, partition: Partition, leader: Leader) {
        let newest = self.epochs.entry(partition.clone()).or_insert(leader.epoch);
        if leader.epoch >= *newest {
            *newest = leader.epoch;
            self.leaders.insert(partition, leader);
        }
    }
}
