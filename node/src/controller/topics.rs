//! The rules for topics: names, partitions, replicas, properties. Pure.

use super::change::{ConfigChange, ConfigOperation, NewTopic, TopicRef};
use super::decide::{Context, Decision, Tell};
use super::error::ProposeError;
use super::placement;
use crate::config::properties::{Kind, PropertyError, list_items};
use crate::config::{BrokerConfig, Dynamic, server, topic};
use crate::metadata::topic::{NAME_BYTES_MAX, OFFSETS_TOPIC, is_reserved};
use crate::metadata::{Image, MirrorSource, PartitionState, Record, Topic};
use headwater_protocol::ids::{NodeId, PartitionIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Each partition costs a task and a few files on every replica.
const PARTITIONS_MAX: i32 = 10_000;

/// The quorum's own log, which is no topic of the metadata.
const RESERVED: &str = "__cluster_metadata";

/// Whether a topic may be called so.
pub fn check_name(name: &str) -> Result<(), ProposeError> {
    let refuse = |reason: &'static str| {
        Err(ProposeError::InvalidTopicName {
            name: name.chars().take(300).collect(),
            reason: reason.into(),
        })
    };
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name == "." || name == ".." {
        return refuse("it cannot be \".\" or \"..\"");
    }
    if name.len() > NAME_BYTES_MAX {
        return refuse("it is longer than 249 characters");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        return refuse("only letters, digits, '.', '_' and '-' may be used");
    }
    if name == RESERVED {
        return refuse("it belongs to the cluster");
    }
    Ok(())
}

pub(super) fn create(new: NewTopic, image: &Image, context: &Context) -> Result<Decision, ProposeError> {
    check_name(&new.name)?;
    if is_reserved(&new.name) && !new.internal {
        return Err(ProposeError::InvalidTopicName {
            name: new.name,
            reason: "the cluster makes it by itself when it is needed".into(),
        });
    }
    if image.topic(&new.name).is_some() {
        return Err(ProposeError::TopicExists(new.name));
    }
    let id = new.id.unwrap_or(context.topic_id);
    if image.topic_by_id(id).is_some() {
        return Err(ProposeError::Refused(format!(
            "a topic with the id {id} exists already"
        )));
    }
    let replicas = replicas(&new, image, context)?;
    let mut configs = BTreeMap::new();
    for (key, value) in &new.configs {
        configs.insert(key.clone(), topic::check(key, value)?);
    }
    let partitions: Vec<_> = replicas.into_iter().map(PartitionState::fresh).collect();
    let topic = Topic {
        id,
        name: Arc::from(new.name.as_str()),
        partitions,
        configs,
        mirror: new.mirror,
        internal: new.internal,
    };
    if new.validate_only {
        return Ok(Decision {
            records: Vec::new(),
            tell: Tell::WouldBe(Arc::new(topic)),
        });
    }
    Ok(Decision {
        records: topic.records().collect(),
        tell: Tell::Topic(new.name),
    })
}

/// The replicas of each partition of a new topic, as asked for or as placed.
fn replicas(new: &NewTopic, image: &Image, context: &Context) -> Result<Vec<Vec<NodeId>>, ProposeError> {
    if !new.assignments.is_empty() {
        if new.partitions != -1 || new.replication_factor != -1 {
            let reason = "neither a partition count nor a replication factor goes with an assignment";
            return Err(ProposeError::InvalidAssignment(reason.to_owned()));
        }
        let wanted = 0..new.assignments.len() as i32;
        if !new.assignments.keys().copied().eq(wanted) {
            let reason = "partitions must be numbered from 0 without gaps";
            return Err(ProposeError::InvalidAssignment(reason.to_owned()));
        }
        let assignments: Vec<_> = new.assignments.values().cloned().collect();
        check_assignments(&assignments, assignments[0].len(), image)?;
        return Ok(assignments);
    }
    let count = if new.partitions == -1 {
        context.broker.partitions_default()
    } else {
        new.partitions
    };
    check_count(count)?;
    let factor = match new.replication_factor {
        -1 => context.broker.replication_factor_default(),
        factor => factor,
    };
    placement::place(count, factor, 0, image)
}

fn check_count(count: i32) -> Result<(), ProposeError> {
    match count {
        1..=PARTITIONS_MAX => Ok(()),
        ..=0 => Err(ProposeError::InvalidPartitions(format!(
            "{count}, at least 1 is needed"
        ))),
        _ => Err(ProposeError::InvalidPartitions(format!(
            "{count}, at most {PARTITIONS_MAX} are possible"
        ))),
    }
}

fn check_assignments(assignments: &[Vec<NodeId>], factor: usize, image: &Image) -> Result<(), ProposeError> {
    for (index, replicas) in assignments.iter().enumerate() {
        let distinct: BTreeSet<_> = replicas.iter().collect();
        let wrong = if replicas.is_empty() {
            "no replica".to_owned()
        } else if distinct.len() != replicas.len() {
            "a node twice".to_owned()
        } else if replicas.len() != factor {
            format!("{} replicas where {factor} are needed", replicas.len())
        } else if let Some(stranger) = replicas.iter().find(|node| !image.nodes.contains_key(node)) {
            format!("node {stranger}, which is not known")
        } else {
            continue;
        };
        return Err(ProposeError::InvalidAssignment(format!(
            "partition {index} has {wrong}"
        )));
    }
    Ok(())
}

pub(super) fn delete(topic: &TopicRef, image: &Image) -> Result<Decision, ProposeError> {
    let found = match topic {
        TopicRef::Name(name) => image
            .topic(name)
            .ok_or_else(|| ProposeError::UnknownTopic(name.clone()))?,
        TopicRef::Id(id) => image.topic_by_id(*id).ok_or(ProposeError::UnknownTopicId(*id))?,
    };
    let name: &str = &found.name;
    let reader = image
        .transforms
        .values()
        .find(|transform| transform.source == name || transform.lookups.values().any(|topic| topic == name));
    if let Some(reader) = reader {
        return Err(ProposeError::InUse {
            kind: "topic".into(),
            name: name.to_owned(),
            by: format!("transform {:?}", reader.name),
        });
    }
    Ok(Decision::done(vec![Record::RemoveTopic { id: found.id }]))
}

fn known<'a>(name: &str, image: &'a Image) -> Result<&'a Arc<Topic>, ProposeError> {
    image
        .topic(name)
        .ok_or_else(|| ProposeError::UnknownTopic(name.to_owned()))
}

pub(super) fn add_partitions(
    name: &str,
    count: i32,
    assignments: &[Vec<NodeId>],
    validate_only: bool,
    image: &Image,
) -> Result<Decision, ProposeError> {
    let topic = known(name, image)?;
    if name == OFFSETS_TOPIC {
        return Err(ProposeError::InvalidPartitions(format!(
            "{count}: a group finds its partition by their number, which stays as it is"
        )));
    }
    let present = i32::try_from(topic.partitions.len()).expect("bounded by PARTITIONS_MAX");
    if count <= present {
        return Err(ProposeError::InvalidPartitions(format!(
            "{count}, the topic has {present} already"
        )));
    }
    check_count(count)?;
    let added = count - present;
    let factor = topic
        .partitions
        .first()
        // While its replicas are being moved it has more of them than it is to have.
        .map_or(1, |partition| partition.replicas.len() - partition.adding.len());
    let replicas = if assignments.is_empty() {
        placement::place(added, i16::try_from(factor).unwrap_or(i16::MAX), present, image)?
    } else {
        if assignments.len() != added as usize {
            let reason = format!("{} assignments for {added} new partitions", assignments.len());
            return Err(ProposeError::InvalidAssignment(reason));
        }
        check_assignments(assignments, factor, image)?;
        assignments.to_vec()
    };
    if validate_only {
        let mut would_be = Topic::clone(topic);
        would_be
            .partitions
            .extend(replicas.into_iter().map(PartitionState::fresh));
        return Ok(Decision {
            records: Vec::new(),
            tell: Tell::WouldBe(Arc::new(would_be)),
        });
    }
    let records = (present..)
        .map(PartitionIndex)
        .zip(replicas)
        .map(|(index, replicas)| Record::Partition {
            topic: topic.id,
            index,
            state: PartitionState::fresh(replicas),
        });
    Ok(Decision {
        records: records.collect(),
        tell: Tell::Topic(name.to_owned()),
    })
}

pub(super) fn set_mirror(
    name: &str,
    mirror: Option<MirrorSource>,
    image: &Image,
) -> Result<Decision, ProposeError> {
    let mut topic = Topic::clone(known(name, image)?);
    if topic.mirror == mirror {
        return Ok(Decision {
            records: Vec::new(),
            tell: Tell::Topic(name.to_owned()),
        });
    }
    topic.mirror = mirror;
    Ok(Decision {
        records: vec![topic.header()],
        tell: Tell::Topic(name.to_owned()),
    })
}

pub(super) fn alter_config(
    name: &str,
    changes: &[ConfigChange],
    validate_only: bool,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let topic = known(name, image)?;
    let mut configs = topic.configs.clone();
    let mut records = Vec::new();
    for change in changes {
        let property = topic::find(&change.key)?.property;
        let described = topic::describe(&configs, &context.broker);
        let in_force = described
            .into_iter()
            .find(|known| known.name == change.key)
            .map(|known| known.value);
        let value = changed_value(change, property.kind, in_force.unwrap_or_default())?;
        let value = value.map(|value| topic::check(&change.key, &value)).transpose()?;
        let unchanged = configs.get(&change.key) == value.as_ref();
        match &value {
            Some(value) => configs.insert(change.key.clone(), value.clone()),
            None => configs.remove(&change.key),
        };
        if !unchanged {
            records.push(Record::TopicConfig {
                topic: topic.id,
                key: change.key.clone(),
                value,
            });
        }
    }
    if validate_only {
        let would_be = Topic {
            configs,
            ..Topic::clone(topic)
        };
        return Ok(Decision {
            records: Vec::new(),
            tell: Tell::WouldBe(Arc::new(would_be)),
        });
    }
    Ok(Decision {
        records,
        tell: Tell::Topic(name.to_owned()),
    })
}

pub(super) fn alter_broker_config(
    changes: &[ConfigChange],
    validate_only: bool,
    image: &Image,
    context: &Context,
) -> Result<Decision, ProposeError> {
    let mut configs = BTreeMap::clone(&image.broker_configs);
    let mut records = Vec::new();
    for change in changes {
        let dynamic = Dynamic::read(&change.key);
        if let Some(node) = dynamic.node.filter(|node| !image.nodes.contains_key(node)) {
            return Err(super::nodes::unknown(node));
        }
        // As in Kafka, whatever its name: tools remove what they may have set, known here or not.
        if change.operation == ConfigOperation::Remove && !configs.contains_key(&change.key) {
            continue;
        }
        let property = server::find(dynamic.name)?.property;
        let broker: BrokerConfig = context.broker.with_cluster(Arc::new(configs.clone()));
        let in_force = configs.get(&change.key).cloned();
        let in_force = in_force.unwrap_or_else(|| broker.value(dynamic.name));
        let value = changed_value(change, property.kind, in_force)?;
        let value = value.map(|value| dynamic.check(&value)).transpose()?;
        let unchanged = configs.get(&change.key) == value.as_ref();
        match &value {
            Some(value) => configs.insert(change.key.clone(), value.clone()),
            None => configs.remove(&change.key),
        };
        if !unchanged {
            records.push(Record::BrokerConfig {
                key: change.key.clone(),
                value,
            });
        }
    }
    Ok(Decision::done(if validate_only { Vec::new() } else { records }))
}

/// The text a property has after a change; None: its default.
fn changed_value(
    change: &ConfigChange,
    kind: Kind,
    in_force: String,
) -> Result<Option<String>, PropertyError> {
    let not_a_list = || PropertyError::Misplaced {
        key: change.key.clone(),
        reason: "it is not a list that could be added to or taken from".into(),
    };
    match (&change.operation, kind) {
        (ConfigOperation::Set(value), _) => Ok(Some(value.clone())),
        (ConfigOperation::Remove, _) => Ok(None),
        (ConfigOperation::Append(added), Kind::ListOf(_)) => {
            let mut items: Vec<_> = list_items(&in_force).collect();
            items.extend(list_items(added).filter(|item| !list_items(&in_force).any(|known| known == *item)));
            Ok(Some(items.join(",")))
        }
        (ConfigOperation::Subtract(taken), Kind::ListOf(_)) => {
            let left = list_items(&in_force).filter(|item| !list_items(taken).any(|gone| gone == *item));
            Ok(Some(left.collect::<Vec<_>>().join(",")))
        }
        (ConfigOperation::Append(_) | ConfigOperation::Subtract(_), _) => Err(not_a_list()),
    }
}
