//! The properties of a node, by Kafka's server property names where Kafka has one, and their typed tree.

use super::cleaner;
use super::client_metrics;
use super::dynamic::Dynamic;
use super::group::{self, GroupConfig};
use super::properties::{Kind, Property, PropertyError, nearest};
use super::share::{self, ShareConfig};
use super::tls::{self, Tls};
use super::topic::{self, Source};
use super::transaction::{self, TransactionConfig};
use headwater_protocol::ids::NodeId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A property of the node.
#[derive(Debug, Clone, Copy)]
pub struct ServerProperty {
    pub property: Property,
    pub change: When,
}

/// When a change of a property takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At the next start; it belongs to this node.
    Start,
    /// At once; it may also be set for all nodes while they run.
    Live,
}

pub(super) const fn node(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> ServerProperty {
    ServerProperty {
        property: Property {
            name,
            kind,
            default,
            doc,
        },
        change: When::Start,
    }
}

pub(super) const fn live(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> ServerProperty {
    ServerProperty {
        property: Property {
            name,
            kind,
            default,
            doc,
        },
        change: When::Live,
    }
}

pub(super) const INT_MAX: i64 = i32::MAX as i64;
const NODE_ID_DEFAULT: i32 = 1;

/// The properties of a node, besides those of its groups, its transactions, the cleaner, TLS and clients' metrics, and the defaults
/// for topics that `topic::PROPERTIES` names.
const PROPERTIES: &[ServerProperty] = &[
    node(
        "node.id",
        Kind::Number { min: 0, max: INT_MAX },
        "1",
        "This node's number in its cluster.",
    ),
    node(
        "cluster.id",
        Kind::Text,
        "",
        "The cluster to belong to; empty makes a new one at the first start.",
    ),
    node(
        "cluster.secret",
        Kind::Text,
        "",
        "What the nodes of a cluster prove to each other that they know; empty: knowing the cluster's id is enough.",
    ),
    node("data.dir", Kind::Text, "", "Where everything is stored."),
    node(
        "broker.rack",
        Kind::Text,
        "",
        "Where the node stands, for placing replicas apart.",
    ),
    node(
        "listen.tcp",
        Kind::Text,
        "0.0.0.0:9092",
        "Where Kafka over TCP is accepted; empty turns it off.",
    ),
    node(
        "listen.tls",
        Kind::Text,
        "",
        "Where Kafka over TLS is accepted, beside listen.tcp; empty: nowhere.",
    ),
    node(
        "listen.quic",
        Kind::Text,
        "0.0.0.0:9092",
        "Where Kafka over QUIC is accepted; empty turns it off.",
    ),
    node(
        "listen.http",
        Kind::Text,
        "0.0.0.0:8080",
        "Where HTTP is accepted; empty turns it off.",
    ),
    node(
        "advertise.tcp",
        Kind::Text,
        "",
        "The TCP address clients are told; empty tells the bound one.",
    ),
    node(
        "advertise.tls",
        Kind::Text,
        "",
        "The address of the TLS listener that clients are told; empty tells the bound one.",
    ),
    node(
        "advertise.quic",
        Kind::Text,
        "",
        "The QUIC address clients are told; empty tells the bound one.",
    ),
    node(
        "advertise.http",
        Kind::Text,
        "",
        "The HTTP address people are told; empty tells the bound one.",
    ),
    node(
        "voters",
        Kind::Text,
        "",
        "The quorum, as ID@HOST:PORT with commas between; empty: this node alone.",
    ),
    node(
        "controller.quorum.election.timeout.ms",
        Kind::Ms { min: 10, max: 60_000 },
        "150",
        "How long a quorum waits for its silent leader: three to four times as long until another one is elected.",
    ),
    node(
        "controller.quorum.heartbeat.interval.ms",
        Kind::Ms { min: 5, max: 30_000 },
        "50",
        "How often the quorum's leader tells that it is there.",
    ),
    node(
        "broker.heartbeat.interval.ms",
        Kind::Ms { min: 10, max: 60_000 },
        "100",
        "How often a node tells the controller that it is there.",
    ),
    node(
        "broker.session.timeout.ms",
        Kind::Ms {
            min: 50,
            max: 600_000,
        },
        "600",
        "How long a node may be silent before others take over what it leads.",
    ),
    node(
        "worker.threads",
        Kind::Number { min: 0, max: 1024 },
        "0",
        "Threads that run tasks; 0: one per core.",
    ),
    node(
        "telemetry.log.format",
        Kind::OneOf(&["text", "json"]),
        "text",
        "How log lines are written to standard error.",
    ),
    node(
        "telemetry.log.filter",
        Kind::Text,
        "info,openraft=off",
        "Which log lines are written, as LEVEL or TARGET=LEVEL,...",
    ),
    node(
        "max.connections",
        Kind::Number { min: 1, max: INT_MAX },
        "10000",
        "How many connections are open at once, over all listeners.",
    ),
    node(
        "socket.request.max.bytes",
        Kind::Bytes {
            min: 1024,
            max: INT_MAX,
        },
        "104857600",
        "The largest request that is read.",
    ),
    node(
        "queued.max.request.bytes",
        Kind::Bytes {
            min: 1 << 20,
            max: i64::MAX,
        },
        "268435456",
        "How many bytes of requests are in memory at once, over all connections.",
    ),
    node(
        "connections.max.idle.ms",
        Kind::Ms {
            min: 1000,
            max: i64::MAX,
        },
        "600000",
        "How long a connection may be silent before it is closed.",
    ),
    node(
        "fetch.max.bytes",
        Kind::Bytes {
            min: 1024,
            max: INT_MAX,
        },
        "57671680",
        "The most bytes one fetch is answered with.",
    ),
    node(
        "max.incremental.fetch.session.cache.slots",
        Kind::Number { min: 0, max: INT_MAX },
        "1000",
        "How many fetch sessions are remembered.",
    ),
    node(
        "replica.lag.time.max.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "10000",
        "How long a replica may lack something of its leader before it is not in sync any more.",
    ),
    node(
        "replica.fetch.max.bytes",
        Kind::Bytes {
            min: 1024,
            max: INT_MAX,
        },
        "1048576",
        "How much a replica asks for of one partition at once; a larger batch comes all the same.",
    ),
    node(
        "replica.fetch.response.max.bytes",
        Kind::Bytes {
            min: 1024,
            max: INT_MAX,
        },
        "10485760",
        "How much a replica asks for of all partitions of one leader at once.",
    ),
    node(
        "replica.fetch.wait.max.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "500",
        "How long a leader may let a replica's fetch wait that brings nothing; less than replica.lag.time.max.ms.",
    ),
    node(
        "replica.catch.up.percent",
        Kind::Number { min: 1, max: 100 },
        "50",
        "How much of its time a replica spends copying that is more than replica.fetch.max.bytes behind; 100: all of it.",
    ),
    node(
        "replica.fetch.backoff.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "1000",
        "How long a replica waits at most before it asks again after something failed.",
    ),
    node(
        "log.retention.check.interval.ms",
        Kind::Ms {
            min: 100,
            max: i64::MAX,
        },
        "300000",
        "How often old segments and forgotten producers are looked for.",
    ),
    live(
        "log.scrub.interval.ms",
        Kind::Ms {
            min: -1,
            max: i64::MAX,
        },
        "604800000",
        "How often each log is read from front to end to find damage; -1: only when asked to.",
    ),
    live(
        "log.scrub.bytes.per.second",
        Kind::Bytes {
            min: 65_536,
            max: i64::MAX,
        },
        "16777216",
        "How fast the logs of a node are read for that.",
    ),
    node(
        "shutdown.timeout.ms",
        Kind::Ms {
            min: 0,
            max: i64::MAX,
        },
        "30000",
        "How long requests in flight are waited for at shutdown.",
    ),
    live(
        "auto.create.topics.enable",
        Kind::Bool,
        "true",
        "Whether asking for an unknown topic creates it.",
    ),
    live(
        "num.partitions",
        Kind::Number { min: 1, max: 100_000 },
        "1",
        "Partitions of a topic that names no count.",
    ),
    live(
        "default.replication.factor",
        Kind::Number { min: 1, max: 32767 },
        "1",
        "Replicas of a topic that names no count.",
    ),
    live(
        "leader.replication.throttled.rate",
        Kind::Bytes {
            min: 1,
            max: i64::MAX,
        },
        "9223372036854775807",
        "How many bytes a second a leader gives to replicas that are not in sync, where the topic names them.",
    ),
    live(
        "follower.replication.throttled.rate",
        Kind::Bytes {
            min: 1,
            max: i64::MAX,
        },
        "9223372036854775807",
        "How many bytes a second a node copies of replicas that are not in sync, where the topic names them.",
    ),
    live(
        "auto.leader.rebalance.enable",
        Kind::Bool,
        "true",
        "Whether partitions that are not led by the first of their replicas are given back to it.",
    ),
    live(
        "leader.imbalance.check.interval.seconds",
        Kind::Number { min: 1, max: INT_MAX },
        "300",
        "How often that is looked at.",
    ),
    live(
        "leader.imbalance.per.broker.percentage",
        Kind::Number { min: 0, max: 100 },
        "10",
        "How many of the partitions that a node should lead others may lead before they are given back.",
    ),
    live(
        "producer.id.expiration.ms",
        Kind::Ms { min: 1, max: INT_MAX },
        "86400000",
        "How long a partition remembers a silent idempotent producer.",
    ),
];

/// Every property that is a node's own: all but the defaults for topics.
fn own() -> impl Iterator<Item = &'static ServerProperty> {
    let others = [
        group::PROPERTIES,
        transaction::PROPERTIES,
        share::PROPERTIES,
        cleaner::PROPERTIES,
        tls::PROPERTIES,
        client_metrics::PROPERTIES,
    ];
    PROPERTIES.iter().chain(others.into_iter().flatten())
}

/// Properties whose values nobody is shown.
pub fn is_secret(name: &str) -> bool {
    name == "cluster.secret"
}

/// What was set for one node, and by the cluster, before defaults: by server property name.
pub type Values = BTreeMap<String, String>;

/// Finds a server property, topic defaults included, or says which one may have been meant.
pub fn find(name: &str) -> Result<ServerProperty, PropertyError> {
    if let Some(known) = own().find(|known| known.property.name == name) {
        return Ok(*known);
    }
    let mut defaults = topic::PROPERTIES.iter();
    if let Some(known) = defaults.find(|known| known.broker == Some(name)) {
        let broker = known.broker.expect("it was found by this name");
        return Ok(ServerProperty {
            property: Property {
                name: broker,
                ..known.property
            },
            change: When::Live,
        });
    }
    let names = own().map(|known| known.property.name);
    let defaults = topic::PROPERTIES.iter().filter_map(|known| known.broker);
    Err(PropertyError::Unknown {
        key: name.to_owned(),
        nearest: nearest(name, names.chain(defaults)),
    })
}

/// Checks one property of a node and gives the form it is kept in.
pub fn check(name: &str, value: &str) -> Result<String, PropertyError> {
    let known = find(name)?;
    let kept = known.property.normalize(value)?;
    match topic::PROPERTIES.iter().find(|topic| topic.broker == Some(name)) {
        Some(default) => topic::check(default.property.name, &kept),
        None => Ok(kept),
    }
}

/// The whole tree. Each part goes to the module that owns the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    pub node_id: NodeId,
    /// None: the one in the data directory, or a new one.
    pub cluster_id: Option<String>,
    /// Empty: none.
    pub cluster_secret: String,
    pub data_dir: PathBuf,
    pub rack: Option<String>,
    pub listen: Listen,
    pub advertise: Advertise,
    /// Empty: a cluster of one.
    pub voters: Vec<Voter>,
    pub liveness: Liveness,
    pub tls: Tls,
    /// 0: one per core.
    pub worker_threads: usize,
    pub telemetry: Telemetry,
    pub server: ServerLimits,
    pub replication: Replication,
    pub group: GroupConfig,
    pub transaction: TransactionConfig,
    pub share: ShareConfig,
    pub retention_check_interval_ms: i64,
    pub shutdown_timeout_ms: i64,
    /// By feature, the highest level that this node owns up to: an older binary, to simulations of upgrades. No property
    /// sets it.
    pub feature_levels_max: BTreeMap<String, i16>,
    pub broker: BrokerConfig,
}

/// Where requests are accepted; None turns a listener off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub tcp: Option<String>,
    pub tls: Option<String>,
    pub quic: Option<String>,
    pub http: Option<String>,
}

/// What others are told to connect to; None tells what was bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    pub tcp: Option<String>,
    pub tls: Option<String>,
    pub quic: Option<String>,
    pub http: Option<String>,
}

/// A member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    pub id: NodeId,
    pub address: String,
}

/// How fast the nodes of a cluster notice that one of them is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    pub election_timeout_ms: u64,
    pub quorum_heartbeat_ms: u64,
    pub heartbeat_ms: u64,
    pub session_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Limits of the Kafka listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    pub connections_max: usize,
    pub request_bytes_max: usize,
    pub requests_bytes_max: usize,
    pub idle_ms_max: i64,
    pub fetch_bytes_max: usize,
    pub fetch_sessions_max: usize,
}

/// How partitions are copied between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    pub lag_max: Duration,
    /// Of one partition, and of all of one leader.
    pub fetch_bytes_max: usize,
    pub response_bytes_max: usize,
    pub wait_max: Duration,
    pub backoff_max: Duration,
    /// Of the time of a replica that is far behind, to be spent copying.
    pub catch_up_percent: u32,
}

/// When preferred leaders are given their partitions back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderBalance {
    pub interval: Duration,
    /// Of the partitions a node should lead, so many may be led by others.
    pub percentage: i64,
}

/// Properties that may change while running: this node's own values under those set for all nodes, and those under what
/// was set for this one meanwhile.
///
/// - A clone is cheap; a change makes a new one (`with_cluster`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    me: NodeId,
    node: Arc<Values>,
    /// By key, as `Dynamic` reads it.
    cluster: Arc<Values>,
}

impl BrokerConfig {
    /// `node`: what this node's file, variables and flags say.
    pub fn new(node: Values) -> Self {
        let me = node.get("node.id").and_then(|id| id.parse().ok());
        Self {
            me: NodeId(me.unwrap_or(NODE_ID_DEFAULT)),
            node: Arc::new(node),
            cluster: Arc::default(),
        }
    }

    /// The same node under other values of what is set while nodes run: `Image::broker_configs`.
    pub fn with_cluster(&self, cluster: Arc<Values>) -> Self {
        Self {
            me: self.me,
            node: Arc::clone(&self.node),
            cluster,
        }
    }

    /// The same without what was set for this node alone.
    pub fn of_all_nodes(&self) -> Self {
        Self {
            me: NodeId::NONE,
            ..self.clone()
        }
    }

    /// What was set for `name`, the value in force first; nothing if only the default is left.
    pub fn layers(&self, name: &str) -> impl Iterator<Item = (String, Source)> {
        let set = |key: &str| self.cluster.get(key).cloned();
        let mine = Dynamic::of_node(self.me, name);
        // Most clusters set nothing.
        let mine = (!self.cluster.is_empty()).then(|| set(&mine.key())).flatten();
        let mine = mine.map(|value| (value, Source::Broker));
        let cluster = set(name).map(|value| (value, Source::Cluster));
        let node = self.node.get(name).map(|value| (value.clone(), Source::Node));
        mine.into_iter().chain(cluster).chain(node)
    }

    /// What was set for one group.
    pub fn of_group(&self, group: &str, name: &str) -> Option<String> {
        self.cluster.get(&Dynamic::of_group(group, name).key()).cloned()
    }

    /// The value in force.
    pub fn value(&self, name: &str) -> String {
        let known = find(name).expect("only declared properties are asked for");
        match self.layers(name).next() {
            Some((value, _)) => value,
            None => known.property.default.to_owned(),
        }
    }

    pub fn auto_create_topics(&self) -> bool {
        self.value("auto.create.topics.enable") == "true"
    }

    pub fn partitions_default(&self) -> i32 {
        i32::try_from(self.number("num.partitions")).unwrap_or(1)
    }

    pub fn replication_factor_default(&self) -> i16 {
        i16::try_from(self.number("default.replication.factor")).unwrap_or(1)
    }

    /// How preferred leaders come back; None: by themselves they do not.
    pub fn leader_balance(&self) -> Option<LeaderBalance> {
        let seconds = self.number("leader.imbalance.check.interval.seconds");
        (self.value("auto.leader.rebalance.enable") == "true").then(|| LeaderBalance {
            interval: Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)),
            percentage: self.number("leader.imbalance.per.broker.percentage"),
        })
    }

    /// Bytes per second; None: as fast as it goes.
    pub fn leader_throttle(&self) -> Option<u64> {
        self.rate("leader.replication.throttled.rate")
    }

    /// Bytes per second; None: as fast as it goes.
    pub fn follower_throttle(&self) -> Option<u64> {
        self.rate("follower.replication.throttled.rate")
    }

    fn rate(&self, name: &str) -> Option<u64> {
        let rate = self.number(name);
        u64::try_from(rate).ok().filter(|_| rate < i64::MAX)
    }

    /// None: only when somebody asks.
    pub fn scrub_interval_ms(&self) -> Option<i64> {
        Some(self.number("log.scrub.interval.ms")).filter(|interval_ms| *interval_ms >= 0)
    }

    pub fn scrub_bytes_per_second(&self) -> u64 {
        u64::try_from(self.number("log.scrub.bytes.per.second")).unwrap_or(0)
    }

    pub fn producer_expiration_ms(&self) -> i64 {
        self.number("producer.id.expiration.ms")
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        let known = find(name).expect("only declared properties are asked for");
        self.value(name)
            .parse()
            .or_else(|_| known.property.default.parse())
            .expect("the default of a numeric property is a number")
    }

    /// All server properties with their values, for DescribeConfigs on a broker.
    pub fn describe(&self) -> Vec<topic::Described> {
        let defaults = topic::PROPERTIES.iter().filter_map(|known| known.broker);
        let mut names: Vec<_> = own().map(|known| known.property.name).chain(defaults).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| self.describe_one(name)).collect()
    }

    fn describe_one(&self, name: &str) -> topic::Described {
        let known = find(name)
            .expect("only declared properties are asked for")
            .property;
        let mut synonyms: Vec<_> = self
            .layers(name)
            .map(|(value, source)| (known.name, value, source))
            .collect();
        synonyms.push((known.name, known.default.to_owned(), Source::Default));
        let (_, value, source) = synonyms[0].clone();
        topic::Described {
            name: known.name,
            value,
            source,
            kind: known.kind,
            doc: known.doc,
            synonyms,
        }
    }
}

impl NodeConfig {
    /// The typed tree of values that were checked one by one (`file::Layers`).
    pub fn from_values(values: Values) -> Result<Self, PropertyError> {
        let broker = BrokerConfig::new(values);
        let text = |name| Some(broker.value(name)).filter(|value| !value.is_empty());
        let count = |name| usize::try_from(broker.number(name)).unwrap_or(0);
        let milliseconds = |name| u64::try_from(broker.number(name)).unwrap_or(0);
        let ms = |name| Duration::from_millis(u64::try_from(broker.number(name)).unwrap_or(0));
        let data_dir = text("data.dir").ok_or_else(|| PropertyError::Invalid {
            key: "data.dir".to_owned(),
            value: String::new(),
            reason: "name a folder by --data-dir, HEADWATER_DATA_DIR or data.dir in the file".to_owned(),
        })?;
        Ok(Self {
            node_id: NodeId(i32::try_from(broker.number("node.id")).unwrap_or(i32::MAX)),
            cluster_id: text("cluster.id"),
            cluster_secret: broker.value("cluster.secret"),
            data_dir: PathBuf::from(data_dir),
            rack: text("broker.rack"),
            listen: Listen {
                tcp: text("listen.tcp"),
                tls: text("listen.tls"),
                quic: text("listen.quic"),
                http: text("listen.http"),
            },
            advertise: Advertise {
                tcp: text("advertise.tcp"),
                tls: text("advertise.tls"),
                quic: text("advertise.quic"),
                http: text("advertise.http"),
            },
            voters: parse_voters(&broker.value("voters"))?,
            liveness: Liveness {
                election_timeout_ms: milliseconds("controller.quorum.election.timeout.ms"),
                quorum_heartbeat_ms: milliseconds("controller.quorum.heartbeat.interval.ms"),
                heartbeat_ms: milliseconds("broker.heartbeat.interval.ms"),
                session_timeout_ms: milliseconds("broker.session.timeout.ms"),
            },
            tls: Tls::of(&broker)?,
            worker_threads: count("worker.threads"),
            telemetry: Telemetry {
                format: match broker.value("telemetry.log.format").as_str() {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Text,
                },
                filter: broker.value("telemetry.log.filter"),
            },
            server: ServerLimits {
                connections_max: count("max.connections"),
                request_bytes_max: count("socket.request.max.bytes"),
                requests_bytes_max: count("queued.max.request.bytes"),
                idle_ms_max: broker.number("connections.max.idle.ms"),
                fetch_bytes_max: count("fetch.max.bytes"),
                fetch_sessions_max: count("max.incremental.fetch.session.cache.slots"),
            },
            replication: Replication {
                lag_max: ms("replica.lag.time.max.ms"),
                fetch_bytes_max: count("replica.fetch.max.bytes"),
                response_bytes_max: count("replica.fetch.response.max.bytes"),
                wait_max: ms("replica.fetch.wait.max.ms"),
                backoff_max: ms("replica.fetch.backoff.ms"),
                catch_up_percent: u32::try_from(broker.number("replica.catch.up.percent")).unwrap_or(100),
            },
            group: GroupConfig::of(&broker),
            transaction: TransactionConfig::of(&broker),
            share: ShareConfig::of(&broker),
            retention_check_interval_ms: broker.number("log.retention.check.interval.ms"),
            shutdown_timeout_ms: broker.number("shutdown.timeout.ms"),
            feature_levels_max: BTreeMap::new(),
            broker,
        })
    }
}

fn parse_voters(text: &str) -> Result<Vec<Voter>, PropertyError> {
    super::properties::list_items(text)
        .map(|item| {
            let (id, address) = item.split_once('@')?;
            let (host, port) = address.rsplit_once(':')?;
            port.parse::<u16>().ok()?;
            let id = id.parse().ok().filter(|id| *id >= 0)?;
            (!host.is_empty()).then(|| Voter {
                id: NodeId(id),
                address: address.to_owned(),
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| PropertyError::Invalid {
            key: "voters".to_owned(),
            value: text.to_owned(),
            reason: "ID@HOST:PORT with commas between".to_owned(),
        })
}
