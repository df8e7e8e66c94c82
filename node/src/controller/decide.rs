//! From a change to records: checks it against the image and says what has to be written. Pure.
//!
//! Owns the rules of what may change. Randomness and time are arguments; nothing is written here.

use super::change::Change;
use super::error::ProposeError;
use super::{Outcome, ProducerIdBlock, features, nodes, objects, reassign, topics};
use crate::config::BrokerConfig;
use crate::metadata::features::Supported;
use crate::metadata::{Image, Module, Record, Topic};
use headwater_protocol::ids::{NodeId, PartitionIndex, ProducerId, TopicId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many producer ids are handed out at once.
const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// What a decision may depend on besides the image.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The defaults in force, with what was set for all nodes.
    pub(super) broker: BrokerConfig,
    /// A fresh id, in case a topic is created.
    pub(super) topic_id: TopicId,
    /// Who votes in the quorum.
    pub(super) voters: BTreeSet<NodeId>,
    /// What this node reads and writes.
    pub(super) supported: Supported,
}

/// What is to be written for a change, and what to tell the one who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Empty: the change changes nothing, or was to be validated only.
    pub(super) records: Vec<Record>,
    pub(super) tell: Tell,
}

/// What the answer is made of, once the records are folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tell {
    Done,
    /// The topic of this name, as it is after the change.
    Topic(String),
    /// The topic as it would be: nothing is written.
    WouldBe(Arc<Topic>),
    Module {
        name: String,
        version: String,
    },
    ProducerIds(ProducerIdBlock),
    Node(NodeId),
    Partition(TopicId, PartitionIndex),
}

impl Decision {
    pub(super) fn done(records: Vec<Record>) -> Self {
        Self {
            records,
            tell: Tell::Done,
        }
    }
}

impl Tell {
    /// The outcome, read from the image after the change.
    pub(super) fn outcome(self, image: &Image) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Topic(name) => image
                .topic(&name)
                .map_or(Outcome::Done, |it| Outcome::Topic(Arc::clone(it))),
            Self::WouldBe(topic) => Outcome::Topic(topic),
            Self::Module { name, version } => {
                let module: Option<&Arc<Module>> = image.module(&name, &version);
                module.map_or(Outcome::Done, |it| Outcome::Module(Arc::clone(it)))
            }
            Self::ProducerIds(block) => Outcome::ProducerIds(block),
            Self::Node(id) => image
                .nodes
                .get(&id)
                .map_or(Outcome::Done, |node| Outcome::Node(node.clone())),
            Self::Partition(topic, index) => image
                .topic_by_id(topic)
                .and_then(|topic| topic.partition(index))
                .map_or(Outcome::Done, |state| Outcome::Partition(state.clone())),
        }
    }
}

/// Checks `change` against `image` and says what is to be written.
pub(super) fn decide(change: Change, image: &Image, context: &Context) -> Result<Decision, ProposeError> {
    match change {
        Change::CreateTopic(topic) => topics::create(topic, image, context),
        Change::DeleteTopic { topic } => topics::delete(&topic, image),
        Change::CreatePartitions {
            topic,
            count,
            assignments,
            validate_only,
        } => topics::add_partitions(&topic, count, &assignments, validate_only, image),
        Change::AlterTopicConfig {
            topic,
            changes,
            validate_only,
        } => topics::alter_config(&topic, &changes, validate_only, image, context),
        Change::SetMirror { topic, mirror } => topics::set_mirror(&topic, mirror, image),
        Change::AlterBrokerConfig {
            changes,
            validate_only,
        } => topics::alter_broker_config(&changes, validate_only, image, context),
        Change::UpdateFeatures {
            updates,
            validate_only,
        } => features::update(&updates, validate_only, image, context),
        Change::AllocateProducerIds => Ok(allocate_producer_ids(image)),
        Change::RegisterNode(node) => nodes::register(node, image, context),
        Change::FenceNode { node, epoch } => nodes::fence(node, epoch, image, context),
        Change::UnfenceNode { node, epoch } => nodes::unfence(node, epoch, image, context),
        Change::ShutDownNode { node, epoch } => nodes::shut_down(node, epoch, image, context),
        Change::UnregisterNode { node, as_of } => nodes::unregister(node, as_of, image, context),
        Change::ReplicasFailed {
            node,
            epoch,
            partitions,
        } => nodes::replicas_failed(node, epoch, &partitions, image, context),
        Change::AlterInSync(change) => nodes::alter_in_sync(change, image, context),
        Change::Reassign(reassignment) => reassign::reassign(reassignment, image, context),
        Change::ElectLeaders { leaders, partitions } => {
            Ok(nodes::elect(leaders, partitions.as_deref(), image, context))
        }
        Change::PutModule(module) => objects::put_module(module, image),
        Change::RemoveModule { name, version } => objects::remove_module(name, version, image),
        Change::PutTransform(transform) => objects::put_transform(transform, image),
        Change::SetTransformPaused { name, paused } => objects::pause_transform(&name, paused, image),
        Change::RemoveTransform { name } => objects::remove_transform(name, image),
        Change::PutSite(site) => objects::put_site(site),
        Change::PutLink(link) => objects::put_link(link, image),
        Change::SetLinkPaused { name, paused } => objects::pause_link(&name, paused, image),
        Change::RemoveLink { name } => objects::remove_link(name, image),
        Change::PutUpstream(upstream) => Ok(Decision::done(vec![Record::Upstream(upstream)])),
        Change::RemoveUpstream { link } => objects::remove_upstream(link, image),
    }
}

fn allocate_producer_ids(image: &Image) -> Decision {
    let first = image.producer_ids_next;
    let next = ProducerId(
        first
            .value()
            .checked_add(PRODUCER_IDS_PER_BLOCK)
            .expect("2^63 ids are never used up"),
    );
    Decision {
        records: vec![Record::ProducerIds { next }],
        tell: Tell::ProducerIds(ProducerIdBlock {
            first,
            count: PRODUCER_IDS_PER_BLOCK,
        }),
    }
}
