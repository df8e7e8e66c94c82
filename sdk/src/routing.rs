//! Which node leads which partition, as far as the client knows.
//!
//! Pure: answers go in, a new image comes out. It must never go back to an older leader epoch because a
//! broker lags behind (KIP-320), nor confuse a topic with an earlier one of the same name.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::metadata::{
    MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};

use crate::config::{Address, Transport};

/// What a client knows of its cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How brokers are reached; their addresses belong to it.
    pub transport: Transport,
    pub cluster_id: Option<String>,
    pub controller: Option<NodeId>,
    pub brokers: BTreeMap<NodeId, Broker>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
}

/// One broker's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// One topic as last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    /// [`TopicId::NONE`] from a broker that knows no ids.
    pub id: TopicId,
    pub internal: bool,
    /// By index; a partition the broker did not mention has no leader.
    pub partitions: Vec<Partition>,
}

/// One partition as last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub leader: Option<NodeId>,
    /// -1 when not known.
    pub leader_epoch: LeaderEpoch,
    pub replicas: Vec<NodeId>,
    pub isr: Vec<NodeId>,
}

impl Partition {
    const UNKNOWN: Self = Self {
        leader: None,
        leader_epoch: LeaderEpoch(-1),
        replicas: Vec::new(),
        isr: Vec::new(),
    };

    fn new(answer: &MetadataResponsePartition) -> Self {
        let nodes = |ids: &[i32]| ids.iter().map(|id| NodeId(*id)).collect();
        Self {
            leader: (answer.leader_id >= 0).then_some(NodeId(answer.leader_id)),
            leader_epoch: LeaderEpoch(answer.leader_epoch),
            replicas: nodes(&answer.replica_nodes),
            isr: nodes(&answer.isr_nodes),
        }
    }
}

/// A leader as an error answer hints at it (KIP-951).
#[derive(Clone, Debug)]
pub(crate) struct LeaderHint {
    pub(crate) leader: NodeId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) broker: Option<Broker>,
}

/// Partitions that an answer may leave out: an index from the wire must not decide how much memory is taken.
const PARTITIONS_UNNAMED_MAX: usize = 1024;

impl Cluster {
    /// Nothing known yet.
    pub(crate) fn empty(transport: Transport) -> Self {
        Self {
            transport,
            cluster_id: None,
            controller: None,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// A topic by its id, for answers that carry no name.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics
            .values()
            .find(|topic| topic.id == id && id != TopicId::NONE)
    }

    /// The leader of a partition and its epoch, if it is known to have one.
    pub fn leader(&self, topic: &str, partition: PartitionIndex) -> Option<(NodeId, LeaderEpoch)> {
        let index = usize::try_from(partition.0).ok()?;
        let partition = self.topic(topic)?.partitions.get(index)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// Where a broker listens.
    pub fn address(&self, node: NodeId) -> Option<Address> {
        let broker = self.brokers.get(&node)?;
        Some(Address {
            transport: self.transport,
            host: broker.host.clone(),
            port: broker.port,
        })
    }

    /// The image after an answer to Metadata for some topics. Brokers are replaced; topics in the answer
    /// are replaced or, if the broker does not know them, removed; others stay.
    pub(crate) fn apply(&self, transport: Transport, answer: &MetadataResponse) -> Self {
        let mut next = self.clone();
        next.transport = transport;
        next.cluster_id = answer
            .cluster_id
            .as_ref()
            .map(|id| id.to_string())
            .or(next.cluster_id);
        next.controller = (answer.controller_id >= 0).then_some(NodeId(answer.controller_id));
        next.brokers = answer
            .brokers
            .iter()
            .filter_map(|broker| {
                let port = u16::try_from(broker.port).ok()?;
                let rack = broker.rack.as_ref().map(|rack| rack.to_string());
                Some((
                    NodeId(broker.node_id),
                    Broker {
                        host: broker.host.to_string(),
                        port,
                        rack,
                    },
                ))
            })
            .collect();
        for topic in &answer.topics {
            next.apply_topic(topic);
        }
        next
    }

    fn apply_topic(&mut self, answer: &MetadataResponseTopic) {
        let Some(name) = &answer.name else { return };
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID => {
                self.topics.remove(name.as_str());
                return;
            }
            // Being created, or not ours to see: what is known stays.
            _ => return,
        }
        let known = self
            .topics
            .get(name.as_str())
            .filter(|known| known.id == TopicId::from(answer.topic_id));
        let count = answer
            .partitions
            .iter()
            .map(|partition| partition.partition_index)
            .max();
        let count = count.map_or(0, |last| usize::try_from(last).map_or(0, |last| last + 1));
        let mut partitions =
            vec![Partition::UNKNOWN; count.min(answer.partitions.len() + PARTITIONS_UNNAMED_MAX)];
        for partition in &answer.partitions {
            let Ok(index) = usize::try_from(partition.partition_index) else {
                continue;
            };
            let Some(place) = partitions.get_mut(index) else {
                continue;
            };
            let fresh = Partition::new(partition);
            let kept = known.and_then(|known| known.partitions.get(index));
            *place = match kept.filter(|kept| kept.leader_epoch > fresh.leader_epoch) {
                Some(newer) => newer.clone(),
                None => fresh,
            };
        }
        let name: Arc<str> = Arc::from(name.as_str());
        let id = TopicId::from(answer.topic_id);
        let topic = Topic {
            name: Arc::clone(&name),
            id,
            internal: answer.is_internal,
            partitions,
        };
        self.topics.insert(name, Arc::new(topic));
    }

    /// The image after a leader's hint, or `None` when it says nothing new.
    pub(crate) fn learn(&self, topic: &str, partition: PartitionIndex, hint: &LeaderHint) -> Option<Self> {
        let index = usize::try_from(partition.0).ok()?;
        let known = self.topic(topic)?.partitions.get(index)?;
        if hint.leader.0 < 0 || hint.leader_epoch <= known.leader_epoch {
            return None;
        }
        let mut next = self.clone();
        match &hint.broker {
            Some(broker) => drop(next.brokers.insert(hint.leader, broker.clone())),
            None if !next.brokers.contains_key(&hint.leader) => return None,
            None => {}
        }
        let changed = Arc::make_mut(next.topics.get_mut(topic)?);
        let place = changed.partitions.get_mut(index)?;
        place.leader = Some(hint.leader);
        place.leader_epoch = hint.leader_epoch;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::kafka::metadata::MetadataResponseBroker;
    use headwater_protocol::primitives::{Str, Uuid};

    use super::*;

    fn answer(id: u128, leaders: &[(i32, i32)]) -> MetadataResponse {
        let partitions =
            leaders
                .iter()
                .enumerate()
                .map(|(index, (leader, epoch))| MetadataResponsePartition {
                    partition_index: index as i32,
                    leader_id: *leader,
                    leader_epoch: *epoch,
                    ..Default::default()
                });
        let broker = |node_id| MetadataResponseBroker {
            node_id,
            host: Str::from_static("h"),
            port: 9092,
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            controller_id: 1,
            topics: vec![MetadataResponseTopic {
                name: Some(Str::from_static("t")),
                topic_id: Uuid::from_u128(id),
                partitions: partitions.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn leader(cluster: &Cluster) -> Option<(NodeId, LeaderEpoch)> {
        cluster.leader("t", PartitionIndex(0))
    }

    #[test]
    fn a_lagging_broker_does_not_bring_an_old_leader_back() {
        let cluster = Cluster::empty(Transport::Tcp).apply(Transport::Tcp, &answer(7, &[(2, 5)]));
        let cluster = cluster.apply(Transport::Tcp, &answer(7, &[(1, 4)]));
        assert_eq!(leader(&cluster), Some((NodeId(2), LeaderEpoch(5))));
        let cluster = cluster.apply(Transport::Tcp, &answer(7, &[(1, 6)]));
        assert_eq!(leader(&cluster), Some((NodeId(1), LeaderEpoch(6))));
    }

    #[test]
    fn a_topic_made_anew_starts_from_its_own_epochs() {
        let cluster = Cluster::empty(Transport::Tcp).apply(Transport::Tcp, &answer(7, &[(2, 5)]));
        let cluster = cluster.apply(Transport::Tcp, &answer(8, &[(1, 0)]));
        assert_eq!(leader(&cluster), Some((NodeId(1), LeaderEpoch(0))));
    }

    #[test]
    fn an_unknown_topic_is_forgotten_and_one_in_trouble_is_kept() {
        let cluster = Cluster::empty(Transport::Tcp).apply(Transport::Tcp, &answer(7, &[(2, 5)]));
        let mut trouble = answer(7, &[]);
        trouble.topics[0].error_code = ErrorCode::LEADER_NOT_AVAILABLE.0;
        assert!(leader(&cluster.apply(Transport::Tcp, &trouble)).is_some());
        trouble.topics[0].error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
        assert!(cluster.apply(Transport::Tcp, &trouble).topic("t").is_none());
    }

    #[test]
    fn a_hint_counts_only_when_it_is_newer_and_the_node_is_known() {
        let cluster = Cluster::empty(Transport::Tcp).apply(Transport::Tcp, &answer(7, &[(2, 5)]));
        let hint = |leader, epoch| LeaderHint {
            leader: NodeId(leader),
            leader_epoch: LeaderEpoch(epoch),
            broker: None,
        };
        let learn = |leader, epoch| cluster.learn("t", PartitionIndex(0), &hint(leader, epoch));
        assert!(learn(1, 5).is_none());
        assert!(learn(3, 6).is_none(), "node 3 has no address");
        assert_eq!(leader(&learn(1, 6).unwrap()), Some((NodeId(1), LeaderEpoch(6))));
        let mut told = hint(3, 6);
        told.broker = Some(Broker {
            host: "x".into(),
            port: 1,
            rack: None,
        });
        assert_eq!(
            cluster
                .learn("t", PartitionIndex(0), &told)
                .unwrap()
                .address(NodeId(3))
                .unwrap()
                .port,
            1
        );
    }

    #[test]
    fn a_huge_partition_index_takes_no_memory() {
        let mut wild = answer(7, &[(1, 0)]);
        wild.topics[0].partitions[0].partition_index = i32::MAX;
        let cluster = Cluster::empty(Transport::Tcp).apply(Transport::Tcp, &wild);
        assert!(cluster.topic("t").unwrap().partitions.len() <= 1 + PARTITIONS_UNNAMED_MAX);
    }
}
