//! What the metadata says this node should run of one transform: pure, from the image alone.
//! It owns what a pipeline depends on: when any of it changes, the pipeline is started anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::{NodeId, PartitionIndex, TopicId};

use super::changelog::MESSAGE_BYTES_MAX;
use crate::controller::NewTopic;
use crate::metadata::{ErrorPolicy, Image, Join, Module, ParamKind, Placement, Topic, Transform};

const STATE_PREFIX: &str = "__transform_state.";
/// What the error headers of a dead letter may add to a record.
const LETTER_BYTES_MAX: u64 = 64 << 10;
const MESSAGE_BYTES: u64 = 1_048_588;

/// The changelog topic of a transform.
pub(crate) fn state_topic(transform: &str) -> String {
    format!("{STATE_PREFIX}{transform}")
}

/// The transform whose changelog a topic is.
pub(crate) fn owner_of_state(topic: &str) -> Option<&str> {
    topic.strip_prefix(STATE_PREFIX)
}

/// What to do about one transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    Run(Box<RunPlan>),
    /// Not here: it was paused, or belongs to other nodes.
    Rest(Rest),
    /// Topics that must be there first.
    Create(Vec<NewTopic>),
    /// The changelog must have as many partitions as the source.
    GrowState {
        topic: String,
        count: i32,
    },
    /// It cannot run as things are.
    Blocked {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Paused,
    PlacedElsewhere,
}

/// What a pipeline is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunPlan {
    pub(crate) transform: Arc<Transform>,
    pub(crate) module: Arc<Module>,
    pub(crate) source: Arc<Topic>,
    /// The second source of a join.
    pub(crate) right: Option<Arc<Topic>>,
    pub(crate) sinks: Vec<Arc<Topic>>,
    pub(crate) late_sink: Option<Arc<Topic>>,
    pub(crate) dead_letter: Option<Arc<Topic>>,
    pub(crate) state: Arc<Topic>,
    /// By the name that the module opens.
    pub(crate) tables: BTreeMap<String, Arc<Topic>>,
    /// The partitions of the source that this node leads.
    pub(crate) partitions: Vec<PartitionIndex>,
}

/// When this changes, the pipelines of a transform are started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    revision: i64,
    digest: String,
    /// Identity and partition count of every topic, in the order of the plan.
    topics: Vec<(TopicId, usize)>,
}

impl RunPlan {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let topics = [&self.source, &self.state].into_iter();
        let topics = topics
            .chain(&self.right)
            .chain(&self.sinks)
            .chain(&self.late_sink)
            .chain(&self.dead_letter)
            .chain(self.tables.values());
        Fingerprint {
            revision: self.transform.revision,
            digest: self.module.digest.clone(),
            topics: topics.map(|topic| (topic.id, topic.partitions.len())).collect(),
        }
    }
}

/// Decides about one transform.
pub(crate) fn plan(transform: &Arc<Transform>, image: &Image, node: NodeId) -> Plan {
    if transform.paused {
        return Plan::Rest(Rest::Paused);
    }
    if !is_placed_here(&transform.placement, image) {
        return Plan::Rest(Rest::PlacedElsewhere);
    }
    match resolve(transform, image, node) {
        Ok(plan) | Err(plan) => plan,
    }
}

fn resolve(transform: &Arc<Transform>, image: &Image, node: NodeId) -> Result<Plan, Plan> {
    let blocked = |reason: String| Plan::Blocked { reason };
    let module = image
        .module(&transform.module.name, &transform.module.version)
        .ok_or_else(|| {
            blocked(format!(
                "module {} {} is not known",
                transform.module.name, transform.module.version
            ))
        })?;
    let source = image
        .topic(&transform.source)
        .ok_or_else(|| blocked(format!("source topic {:?} does not exist", transform.source)))?;
    let right = match &transform.join {
        Some(join) => Some(right_of(join, source, image).map_err(blocked)?),
        None => None,
    };
    let tables = tables(transform, module)
        .map(|(table, topic)| match image.topic(topic) {
            Some(found) => Ok((table, Arc::clone(found))),
            None => Err(blocked(format!("lookup topic {topic:?} does not exist"))),
        })
        .collect::<Result<_, _>>()?;
    let mut written = transform.sinks.iter().chain(&transform.late_sink);
    if let Some(mirror) = written.find(|sink| image.topic(sink).is_some_and(|it| it.mirror.is_some())) {
        return Err(blocked(format!(
            "sink {mirror:?} is a mirror: only its link writes to it"
        )));
    }
    let missing = missing_topics(transform, source, image);
    if !missing.is_empty() {
        return Err(Plan::Create(missing));
    }
    let there = |name: &str| Arc::clone(image.topic(name).expect("what is missing was found above"));
    let state = there(&state_topic(&transform.name));
    if state.partitions.len() < source.partitions.len() {
        let (topic, count) = (state.name.to_string(), source.partitions.len() as i32);
        return Err(Plan::GrowState { topic, count });
    }
    let led = |index: &PartitionIndex| {
        source
            .partition(*index)
            .is_some_and(|partition| partition.leader == node)
    };
    Ok(Plan::Run(Box::new(RunPlan {
        sinks: transform.sinks.iter().map(|sink| there(sink)).collect(),
        late_sink: transform.late_sink.as_deref().map(there),
        dead_letter: (transform.on_error == ErrorPolicy::DeadLetter).then(|| there(&transform.dead_letter)),
        partitions: source.indexes().filter(led).collect(),
        transform: Arc::clone(transform),
        module: Arc::clone(module),
        source: Arc::clone(source),
        right,
        state,
        tables,
    })))
}

/// The right side of a join, if its partitions are those of the left side.
fn right_of(join: &Join, source: &Topic, image: &Image) -> Result<Arc<Topic>, String> {
    let right = image.topic(&join.topic);
    let right = right.ok_or_else(|| format!("the topic to join with, {:?}, does not exist", join.topic))?;
    check_partitions(join, source, right).map(|()| Arc::clone(right))
}

/// Whether records of one key lie in the partition of the same number on both sides.
pub(crate) fn check_partitions(join: &Join, source: &Topic, right: &Topic) -> Result<(), String> {
    let (left_count, right_count) = (source.partitions.len(), right.partitions.len());
    if left_count != right_count {
        return Err(format!(
            "topics {:?} and {:?} cannot be joined: they have {left_count} and {right_count} partitions, and must have as many as \
             each other, with records of a key in the same one. Write one of them into a topic with {} partitions by a transform \
             with the module `filter` and the parameter `where=true`, and join that topic",
            source.name,
            right.name,
            left_count.max(right_count),
        ));
    }
    let pointers = [(&source.name, &join.left_key), (&right.name, &join.right_key)];
    match pointers.into_iter().find(|(_, key)| key.is_some()) {
        Some((topic, Some(key))) if left_count > 1 => Err(format!(
            "topic {topic:?} cannot be joined by {key:?}: its partitions, of which there are {left_count}, follow the records' own \
             keys. Write it into a topic whose records have that as their key, and join that topic"
        )),
        Some(_) | None => Ok(()),
    }
}

/// An edge is a cluster that dials a core.
fn is_placed_here(placement: &Placement, image: &Image) -> bool {
    match placement {
        Placement::Any => true,
        Placement::Edge => !image.upstreams.is_empty(),
        Placement::Core => image.upstreams.is_empty(),
        Placement::Site(site) => image.upstreams.values().any(|upstream| upstream.site == *site),
    }
}

/// The tables a module may open, with their topics: what its parameters of kind `table` name.
pub(crate) fn tables<'a>(
    transform: &'a Transform,
    module: &'a Module,
) -> impl Iterator<Item = (String, &'a str)> {
    let params = module
        .params
        .iter()
        .filter(|param| param.kind == ParamKind::Table);
    params.filter_map(|param| {
        let table = transform.params.get(&param.name).or(param.default.as_ref())?;
        Some((
            table.clone(),
            transform.lookups.get(table).unwrap_or(table).as_str(),
        ))
    })
}

fn missing_topics(transform: &Transform, source: &Topic, image: &Image) -> Vec<NewTopic> {
    let count = source.partitions.len() as i32;
    let replication_factor = replicas_of(source, image);
    let is_missing = |name: &str| image.topic(name).is_none();
    let mut missing = Vec::new();
    let written = transform.sinks.iter().chain(&transform.late_sink);
    for sink in written.filter(|sink| is_missing(sink)) {
        missing.push(NewTopic {
            partitions: count,
            replication_factor,
            ..NewTopic::named(sink.clone())
        });
    }
    if transform.on_error == ErrorPolicy::DeadLetter && is_missing(&transform.dead_letter) {
        let bytes = source
            .configs
            .get("max.message.bytes")
            .and_then(|bytes| bytes.parse::<u64>().ok());
        let bytes = (bytes.unwrap_or(MESSAGE_BYTES) + LETTER_BYTES_MAX).min(i32::MAX as u64);
        let configs = BTreeMap::from([("max.message.bytes".to_owned(), bytes.to_string())]);
        missing.push(NewTopic {
            partitions: 1,
            replication_factor,
            configs,
            ..NewTopic::named(transform.dead_letter.clone())
        });
    }
    let state = state_topic(&transform.name);
    if is_missing(&state) {
        let bytes = MESSAGE_BYTES_MAX.to_string();
        let configs = [
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("cleanup.policy", "delete"),
            ("max.message.bytes", &bytes),
        ];
        let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        missing.push(NewTopic {
            partitions: count,
            replication_factor,
            configs: configs.into(),
            internal: true,
            ..NewTopic::named(state)
        });
    }
    missing
}

/// As many as the source has, if it has several: what survives a node's end there is worth nothing if what comes of it does not.
/// -1 otherwise: as topics have by default.
fn replicas_of(source: &Topic, image: &Image) -> i16 {
    let partitions = source.partitions.iter();
    let count = partitions.map(|partition| partition.replicas.len()).max();
    // Since it was made nodes may have left.
    let count = count.unwrap_or(0).min(image.nodes.len());
    match i16::try_from(count) {
        Ok(several @ 2..) => several,
        Ok(_) | Err(_) => -1,
    }
}

#[cfg(test)]
mod tests;
