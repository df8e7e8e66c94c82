//! The rules for nodes and for the partitions they hold: registration, fencing, handing over, in-sync sets. Pure.

use super::change::{InSyncChange, Leaders, PartitionRef};
use super::decide::{Context, Decision, Tell};
use super::elections::{self, Departure, Rules};
use super::error::ProposeError;
use super::features;
use crate::config::{Dynamic, TopicConfig};
use crate::metadata::features::Level;
use crate::metadata::{Image, Node, NodeState, PartitionState, Record, Topic};
use headwater_protocol::ids::{BrokerEpoch, NodeId, Offset, PartitionIndex};

/// A process tells that it is this node from now on.
pub(super) fn register(mut node: Node, image: &Image, context: &Context) -> Result<Decision, ProposeError> {
    features::admit(&node, image)?;
    if context.supported.level() < Level::FEATURES {
        node.features.clear();
    }
    let known = image.nodes.get(&node.id);
    if let Some(known) = known {
        if known.incarnation == node.incarnation && !node.incarnation.is_empty() {
            // Told twice. Where it is reached may have become known in between.
            node.epoch = known.epoch;
            node.state = known.state;
            let is_news = *known != node;
            return Ok(Decision {
                records: if is_news {
                    vec![Record::Node(node.clone())]
                } else {
                    Vec::new()
                },
                tell: Tell::Node(node.id),
            });
        }
        if !known.directory.is_empty() && known.directory != node.directory {
            return Err(ProposeError::Refused(format!(
                "node {} is known on data directory {}, and came back on {}: what it held is gone; remove it from the \
                 cluster before it joins anew",
                node.id, known.directory, node.directory
            )));
        }
    }
    // Above every epoch given before: those were given at earlier entries.
    node.epoch = BrokerEpoch(image.offset.value() + 1);
    let is_alone = image.nodes.keys().all(|id| *id == node.id);
    node.state = if is_alone {
        NodeState::Active
    } else {
        NodeState::Fenced
    };
    let id = node.id;
    let mut records = vec![Record::Node(node)];
    if known.is_some() {
        let is_active = |it: NodeId| it != id && is_active(image, it);
        records.extend(departures(image, context, id, Departure::Lost, &is_active));
    }
    Ok(Decision {
        records,
        tell: Tell::Node(id),
    })
}

/// A node is not heard of any more.
pub(super) fn fence(
    id: NodeId,
    epoch: BrokerEpoch,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let node = current(id, epoch, image)?;
    if node.state == NodeState::Fenced {
        return Ok(Decision::done(Vec::new()));
    }
    let mut records = vec![in_state(node, NodeState::Fenced)];
    let is_active = |it: NodeId| it != id && is_active(image, it);
    // After a handover, too: what it still led has no leader now.
    records.extend(departures(image, context, id, Departure::Lost, &is_active));
    Ok(Decision::done(records))
}

/// A node that has caught up with the metadata takes part.
pub(super) fn unfence(
    id: NodeId,
    epoch: BrokerEpoch,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let node = current(id, epoch, image)?;
    if node.state != NodeState::Fenced {
        return Ok(Decision::done(Vec::new()));
    }
    let mut records = vec![in_state(node, NodeState::Active)];
    let is_active = |it: NodeId| it == id || is_active(image, it);
    records.extend(changed_partitions(image, context, |state, rules| {
        if !state.replicas.contains(&id) {
            return None;
        }
        elections::revived(state, rules, is_active)
    }));
    Ok(Decision::done(records))
}

/// A node asks to stop: what others can lead is handed over.
pub(super) fn shut_down(
    id: NodeId,
    epoch: BrokerEpoch,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let node = current(id, epoch, image)?;
    let mut records = Vec::new();
    if node.state == NodeState::Active {
        records.push(in_state(node, NodeState::ShuttingDown));
    }
    let is_active = |it: NodeId| it != id && is_active(image, it);
    records.extend(departures(image, context, id, Departure::Handover, &is_active));
    Ok(Decision::done(records))
}

/// A node leaves the cluster. Nothing is lost by it: it holds nothing.
pub(super) fn unregister(
    id: NodeId,
    as_of: Option<Offset>,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let node = image.nodes.get(&id).ok_or_else(|| unknown(id))?;
    // The epoch is the entry by which it registered.
    if as_of.is_some_and(|as_of| node.epoch.value() > as_of.value()) {
        return Err(ProposeError::Refused(format!(
            "node {id} has registered since this was asked"
        )));
    }
    if context.voters.contains(&id) {
        return Err(ProposeError::Refused(format!(
            "node {id} has a vote in the quorum: take it away first"
        )));
    }
    let states = image.topics.values().flat_map(|topic| &topic.partitions);
    let held = states.filter(|state| state.replicas.contains(&id)).count();
    if held > 0 {
        return Err(ProposeError::Refused(format!(
            "node {id} holds replicas of {held} partitions: move them to other nodes first"
        )));
    }
    // What was set for it goes with it: its number may come back as another node.
    let own = image
        .broker_configs
        .keys()
        .filter(|key| Dynamic::read(key).node == Some(id));
    let own = own.map(|key| Record::BrokerConfig {
        key: key.clone(),
        value: None,
    });
    let gone = Record::RemoveNode { id };
    Ok(Decision::done(own.chain([gone]).collect()))
}

/// Replicas of a node can not be trusted any more, although the node goes on.
pub(super) fn replicas_failed(
    id: NodeId,
    epoch: BrokerEpoch,
    partitions: &[PartitionRef],
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    current(id, epoch, image)?;
    let is_active = |it: NodeId| it != id && is_active(image, it);
    let mut records = Vec::new();
    for PartitionRef { topic, index } in partitions {
        let Some(topic) = image.topic_by_id(*topic) else {
            continue;
        };
        let Some(state) = topic.partition(*index) else {
            continue;
        };
        let rules = rules(topic, context);
        if let Some(next) = elections::without(state, id, Departure::Lost, rules, is_active) {
            records.push(record(topic, *index, next));
        }
    }
    Ok(Decision::done(records))
}

/// A leader asks for another in-sync set (KIP-497).
pub(super) fn alter_in_sync(
    change: InSyncChange,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let topic = image
        .topic_by_id(change.topic)
        .ok_or(ProposeError::UnknownTopicId(change.topic))?;
    let state = topic
        .partition(change.index)
        .ok_or_else(|| ProposeError::UnknownTopic(format!("{}-{}", topic.name, change.index)))?;
    current(change.node, change.node_epoch, image)?;
    if state.leader != change.node || state.leader_epoch != change.leader_epoch {
        return Err(ProposeError::StaleLeader {
            leader: state.leader,
            epoch: state.leader_epoch,
        });
    }
    if state.partition_epoch != change.partition_epoch {
        return Err(ProposeError::StalePartition {
            current: state.partition_epoch,
        });
    }
    let wrong = |reason: String| Err(ProposeError::Refused(reason));
    if !change.in_sync.contains(&change.node) {
        return wrong("a leader is in its own in-sync set".to_owned());
    }
    for member in &change.in_sync {
        let is_known = state.replicas.contains(member);
        let is_eligible = state.isr.contains(member) || is_active(image, *member);
        if !is_known || !is_eligible {
            return Err(ProposeError::IneligibleReplica(*member));
        }
    }
    for (member, epoch) in &change.epochs {
        if image.nodes.get(member).is_none_or(|node| node.epoch != *epoch) {
            return Err(ProposeError::IneligibleReplica(*member));
        }
    }
    let rules = rules(topic, context);
    let mut next = elections::resized(state, &change.in_sync, rules);
    super::reassign::finish(&mut next, rules, |node| is_active(image, node));
    let tell = Tell::Partition(change.topic, change.index);
    if next.isr == state.isr && next.eligible == state.eligible && next.replicas == state.replicas {
        return Ok(Decision {
            records: Vec::new(),
            tell,
        });
    }
    Ok(Decision {
        records: vec![record(topic, change.index, next)],
        tell,
    })
}

/// Leaders are chosen anew where that is possible, for some partitions or all.
pub(super) fn elect(
    leaders: Leaders,
    partitions: Option<&[PartitionRef]>,
    image: &Image,
    context: &Context,
) -> Decision {
    let is_active = |it: NodeId| is_active(image, it);
    let chosen = |topic: &Topic, index: PartitionIndex| {
        partitions.is_none_or(|chosen| chosen.iter().any(|it| it.topic == topic.id && it.index == index))
    };
    let mut records = Vec::new();
    for topic in image.topics.values() {
        let rules = rules(topic, context);
        for (index, state) in topic.indexes().zip(&topic.partitions) {
            if !chosen(topic, index) {
                continue;
            }
            let next = match leaders {
                Leaders::Preferred => elections::preferred(state, is_active),
                Leaders::Unclean => elections::revived(
                    state,
                    Rules {
                        unclean: true,
                        ..rules
                    },
                    is_active,
                ),
            };
            records.extend(next.map(|next| record(topic, index, next)));
        }
    }
    Decision::done(records)
}

fn departures<'a>(
    image: &'a Image,
    context: &'a Context,
    gone: NodeId,
    departure: Departure,
    is_active: &'a dyn Fn(NodeId) -> bool,
) -> Vec<Record> {
    changed_partitions(image, context, |state, rules| {
        elections::without(state, gone, departure, rules, is_active)
    })
}

fn changed_partitions(
    image: &Image,
    context: &Context,
    next: impl Fn(&PartitionState, Rules) -> Option<PartitionState>,
) -> Vec<Record> {
    let mut records = Vec::new();
    for topic in image.topics.values() {
        let mut known = None;
        for (index, state) in topic.indexes().zip(&topic.partitions) {
            let rules = *known.get_or_insert_with(|| rules(topic, context));
            records.extend(next(state, rules).map(|next| record(topic, index, next)));
        }
    }
    records
}

fn in_state(node: &Node, state: NodeState) -> Record {
    Record::Node(Node {
        state,
        ..node.clone()
    })
}

pub(super) fn record(topic: &Topic, index: PartitionIndex, state: PartitionState) -> Record {
    Record::Partition {
        topic: topic.id,
        index,
        state,
    }
}

pub(super) fn rules(topic: &Topic, context: &Context) -> Rules {
    Rules::of(&TopicConfig::resolve(&topic.configs, &context.broker))
}

pub(super) fn is_active(image: &Image, node: NodeId) -> bool {
    image.nodes.get(&node).is_some_and(Node::is_active)
}

pub(super) fn unknown(id: NodeId) -> ProposeError {
    ProposeError::Unknown {
        kind: "node".into(),
        name: id.to_string(),
    }
}

/// The node, if the process that speaks for it is the newest.
pub(super) fn current(id: NodeId, epoch: BrokerEpoch, image: &Image) -> Result<&Node, ProposeError> {
    let node = image.nodes.get(&id).ok_or_else(|| unknown(id))?;
    if node.epoch == epoch {
        Ok(node)
    } else {
        Err(ProposeError::StaleNode {
            node: id,
            current: node.epoch,
        })
    }
}
