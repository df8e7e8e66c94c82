//! The cluster as the records so far describe it. A pure fold: records go in, the next image comes out.
//!
//! Clones share what did not change. It never refuses a record: what may be written is the controller's to decide,
//! and what was written is true.

use super::features::{self, Level, LevelRange};
use super::{Link, Module, ModuleRef, PartitionState, Record, Site, Topic, Transform, Upstream};
use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset, PartitionIndex, ProducerId, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node of the cluster and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub addresses: Addresses,
    pub rack: Option<String>,
    /// Rises at each registration: whoever names an older one speaks for a process that is gone (KIP-903).
    #[serde(default, skip_serializing_if = "is_default")]
    pub epoch: BrokerEpoch,
    /// Drawn anew by each process, so that a registration sent twice is one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub incarnation: String,
    /// Which data directory it runs on: another one under the same id has lost what the first one held.
    #[serde(default, skip_serializing_if = "is_default")]
    pub directory: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: NodeState,
    /// Of the binary that it runs; empty where that did not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: String,
    /// What it supports (`features::Supported::of`); empty where it did not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub features: BTreeMap<String, LevelRange>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Node {
    /// An active node of the first epoch.
    pub fn new(id: NodeId, addresses: Addresses, rack: Option<String>) -> Self {
        Self {
            id,
            addresses,
            rack,
            epoch: BrokerEpoch(0),
            incarnation: String::new(),
            directory: String::new(),
            state: NodeState::Active,
            version: String::new(),
            features: BTreeMap::new(),
        }
    }

    /// Whether it leads and may be in an in-sync set.
    pub fn is_active(&self) -> bool {
        self.state == NodeState::Active
    }
}

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It leads and is in sync.
    #[default]
    Active,
    /// Nobody has heard of it for too long, or it has not caught up with the metadata since its start: it leads nothing
    /// and is in no in-sync set.
    Fenced,
    /// It asked to stop: it hands its partitions over.
    ShuttingDown,
}

/// Where a node is reached, as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Addresses {
    pub tcp: String,
    /// Of the listener that speaks nothing but TLS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tls: String,
    pub quic: String,
    pub http: String,
}

/// The state of the cluster after the record at `offset`. Cheap to clone.
///
/// - `topics` and `topic_names` name the same topics, one by name and one by id.
/// - Two images with the same offset are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The last entry of the metadata log that was folded in; -1 before the first.
    pub offset: Offset,
    /// The last of them that changed anything: what a decision rests on.
    pub changed: Offset,
    pub cluster_id: String,
    pub nodes: Arc<BTreeMap<NodeId, Node>>,
    pub topics: Arc<BTreeMap<Arc<str>, Arc<Topic>>>,
    pub topic_names: Arc<BTreeMap<TopicId, Arc<str>>>,
    pub modules: Arc<BTreeMap<ModuleRef, Arc<Module>>>,
    pub transforms: Arc<BTreeMap<String, Arc<Transform>>>,
    pub sites: Arc<BTreeMap<String, Arc<Site>>>,
    pub links: Arc<BTreeMap<String, Arc<Link>>>,
    /// By link.
    pub upstreams: Arc<BTreeMap<String, Arc<Upstream>>>,
    /// What was set for all nodes while running, and for single ones under keys of theirs; a node's own file supplies the
    /// rest.
    pub broker_configs: Arc<BTreeMap<String, String>>,
    /// The level in force of each feature that was ever told one.
    pub features: Arc<BTreeMap<String, Level>>,
    pub producer_ids_next: ProducerId,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            offset: Offset(-1),
            changed: Offset(-1),
            cluster_id: String::new(),
            nodes: Arc::default(),
            topics: Arc::default(),
            topic_names: Arc::default(),
            modules: Arc::default(),
            transforms: Arc::default(),
            sites: Arc::default(),
            links: Arc::default(),
            upstreams: Arc::default(),
            broker_configs: Arc::default(),
            features: Arc::default(),
            producer_ids_next: ProducerId(0),
        }
    }
}

impl Image {
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    /// The level of records and calls that is in force.
    pub fn level(&self) -> Level {
        let told = self.features.get(features::VERSION);
        told.copied().unwrap_or(Level::FIRST)
    }

    /// The level of a feature that is in force; None: none was ever told.
    pub fn finalized(&self, feature: &str) -> Option<Level> {
        if feature == features::VERSION {
            return Some(self.level());
        }
        self.features.get(feature).copied()
    }

    pub fn module(&self, name: &str, version: &str) -> Option<&Arc<Module>> {
        self.modules.get(&ModuleRef {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Whether a component is one of the modules, under any name.
    pub fn has_digest(&self, digest: &str) -> bool {
        self.modules.values().any(|module| module.digest == digest)
    }

    /// Folds the entry at `offset` in, which holds one record.
    pub fn apply(&mut self, offset: Offset, record: &Record) {
        self.apply_all(offset, std::slice::from_ref(record));
    }

    /// Folds the entry at `offset` in, with all its records.
    pub fn apply_all(&mut self, offset: Offset, records: &[Record]) {
        self.pass(offset);
        self.changed = offset;
        records.iter().for_each(|record| self.fold(record));
    }

    /// Folds records in that are not an entry yet: what a decision that follows in the same entry rests on.
    pub fn amend(&mut self, records: &[Record]) {
        records.iter().for_each(|record| self.fold(record));
    }

    /// Passes over the entry at `offset`, which changes nothing.
    pub fn pass(&mut self, offset: Offset) {
        assert!(
            offset > self.offset,
            "entries are folded in order: {offset} after {}",
            self.offset
        );
        self.offset = offset;
    }

    fn fold(&mut self, record: &Record) {
        match record {
            Record::Cluster { cluster_id } => self.cluster_id.clone_from(cluster_id),
            Record::Node(node) => {
                Arc::make_mut(&mut self.nodes).insert(node.id, node.clone());
            }
            Record::RemoveNode { id } => {
                Arc::make_mut(&mut self.nodes).remove(id);
            }
            Record::Topic { .. }
            | Record::Partition { .. }
            | Record::RemoveTopic { .. }
            | Record::TopicConfig { .. } => self.apply_topic(record),
            Record::BrokerConfig { key, value } => {
                put_or_remove(Arc::make_mut(&mut self.broker_configs), key, value.clone());
            }
            Record::FeatureLevel { feature, level } => {
                Arc::make_mut(&mut self.features).insert(feature.clone(), *level);
            }
            Record::ProducerIds { next } => self.producer_ids_next = *next,
            Record::Module(module) => {
                let key = ModuleRef {
                    name: module.name.clone(),
                    version: module.version.clone(),
                };
                Arc::make_mut(&mut self.modules).insert(key, Arc::new(module.clone()));
            }
            Record::RemoveModule { name, version } => {
                let key = ModuleRef {
                    name: name.clone(),
                    version: version.clone(),
                };
                Arc::make_mut(&mut self.modules).remove(&key);
            }
            Record::Transform(transform) => {
                put(&mut self.transforms, &transform.name, transform);
            }
            Record::RemoveTransform { name } => {
                Arc::make_mut(&mut self.transforms).remove(name);
            }
            Record::Site(site) => put(&mut self.sites, &site.name, site),
            Record::Link(link) => put(&mut self.links, &link.name, link),
            Record::RemoveLink { name } => {
                Arc::make_mut(&mut self.links).remove(name);
            }
            Record::Upstream(upstream) => put(&mut self.upstreams, &upstream.link, upstream),
            Record::RemoveUpstream { link } => {
                Arc::make_mut(&mut self.upstreams).remove(link);
            }
        }
    }

    fn apply_topic(&mut self, record: &Record) {
        match record {
            Record::Topic {
                id,
                name,
                internal,
                mirror,
            } => {
                let name: Arc<str> = Arc::from(name.as_str());
                let (partitions, configs) = match self.topic_by_id(*id) {
                    Some(known) => (known.partitions.clone(), known.configs.clone()),
                    None => Default::default(),
                };
                let topic = Topic {
                    id: *id,
                    name: Arc::clone(&name),
                    partitions,
                    configs,
                    mirror: mirror.clone(),
                    internal: *internal,
                };
                Arc::make_mut(&mut self.topic_names).insert(*id, Arc::clone(&name));
                Arc::make_mut(&mut self.topics).insert(name, Arc::new(topic));
            }
            Record::Partition { topic, index, state } => {
                self.change_topic(*topic, |topic| {
                    put_partition(&mut topic.partitions, *index, state)
                });
            }
            Record::RemoveTopic { id } => {
                if let Some(name) = Arc::make_mut(&mut self.topic_names).remove(id) {
                    Arc::make_mut(&mut self.topics).remove(&name);
                }
            }
            Record::TopicConfig { topic, key, value } => {
                self.change_topic(*topic, |topic| {
                    put_or_remove(&mut topic.configs, key, value.clone())
                });
            }
            Record::Cluster { .. }
            | Record::Node(_)
            | Record::RemoveNode { .. }
            | Record::BrokerConfig { .. }
            | Record::FeatureLevel { .. }
            | Record::ProducerIds { .. }
            | Record::Module(_)
            | Record::RemoveModule { .. }
            | Record::Transform(_)
            | Record::RemoveTransform { .. }
            | Record::Site(_)
            | Record::Link(_)
            | Record::RemoveLink { .. }
            | Record::Upstream(_)
            | Record::RemoveUpstream { .. } => unreachable!("the caller passes records of topics only"),
        }
    }

    fn change_topic(&mut self, id: TopicId, change: impl FnOnce(&mut Topic)) {
        let Some(name) = self.topic_names.get(&id) else {
            return;
        };
        if let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(name) {
            change(Arc::make_mut(topic));
        }
    }

    /// The records that make an image equal to this one, for a snapshot. Their order is that of the fold.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = vec![Record::Cluster {
            cluster_id: self.cluster_id.clone(),
        }];
        records.push(Record::ProducerIds {
            next: self.producer_ids_next,
        });
        for (feature, level) in self.features.iter() {
            records.push(Record::FeatureLevel {
                feature: feature.clone(),
                level: *level,
            });
        }
        records.extend(self.nodes.values().cloned().map(Record::Node));
        for (key, value) in self.broker_configs.iter() {
            records.push(Record::BrokerConfig {
                key: key.clone(),
                value: Some(value.clone()),
            });
        }
        for topic in self.topics.values() {
            records.extend(topic.records());
        }
        records.extend(
            self.modules
                .values()
                .map(|module| Record::Module(Module::clone(module))),
        );
        records.extend(
            self.transforms
                .values()
                .map(|it| Record::Transform(Transform::clone(it))),
        );
        records.extend(self.sites.values().map(|site| Record::Site(Site::clone(site))));
        records.extend(self.links.values().map(|link| Record::Link(Link::clone(link))));
        records.extend(
            self.upstreams
                .values()
                .map(|it| Record::Upstream(Upstream::clone(it))),
        );
        records
    }

    /// The image that `records` of a snapshot taken at `offset` describe.
    pub fn from_snapshot(offset: Offset, records: &[Record]) -> Self {
        let mut image = Self::default();
        for record in records {
            image.fold(record);
        }
        (image.offset, image.changed) = (offset, offset);
        image
    }
}

fn put<T: Clone>(map: &mut Arc<BTreeMap<String, Arc<T>>>, key: &str, value: &T) {
    Arc::make_mut(map).insert(key.to_owned(), Arc::new(value.clone()));
}

fn put_or_remove(map: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
}

fn put_partition(partitions: &mut Vec<PartitionState>, index: PartitionIndex, state: &PartitionState) {
    let position = usize::try_from(index.value()).expect("a partition index is not negative");
    match partitions.get_mut(position) {
        Some(known) => known.clone_from(state),
        None => {
            assert_eq!(
                position,
                partitions.len(),
                "partitions are added in order, without gaps"
            );
            partitions.push(state.clone());
        }
    }
}
