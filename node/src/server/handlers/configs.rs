//! What the config APIs share: which resource is meant, how changes are proposed, and what kinds and sources are called
//! on the wire.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::primitives::Str;

use super::refusal::Refusal;
use crate::config::Dynamic;
use crate::config::properties::Kind;
use crate::config::topic::Source;
use crate::controller::Change;
use crate::controller::change::ConfigChange;
use crate::server::request::Context;

/// Kafka's resource types (`ConfigResource.Type`).
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// What a config request is about.
pub(super) enum Resource {
    Topic(String),
    /// This node.
    Broker,
    /// All nodes: the broker resource with an empty name.
    AllBrokers,
    /// One group, whether or not there is one.
    Group(String),
}

impl Resource {
    pub(super) fn read(context: &Context, kind: i8, name: &str) -> Result<Self, Refusal> {
        let refuse = |message: String| Err(Refusal::new(ErrorCode::INVALID_REQUEST, message));
        match kind {
            TOPIC => Ok(Self::Topic(name.to_owned())),
            BROKER if name.is_empty() => Ok(Self::AllBrokers),
            BROKER => match name.parse::<i32>() {
                Ok(id) if id == context.services().node_id().0 => Ok(Self::Broker),
                Ok(id) => refuse(format!(
                    "this is broker {}, not {id}",
                    context.services().node_id()
                )),
                Err(_) => refuse(format!("{name:?} is no broker id")),
            },
            GROUP if name.is_empty() => refuse("a group has a name".to_owned()),
            GROUP => Ok(Self::Group(name.to_owned())),
            other => refuse(format!("resource type {other} has no properties here")),
        }
    }
}

/// What a request wants of one resource: its changes, or why they cannot be read.
pub(super) struct Wanted {
    pub(super) kind: i8,
    pub(super) name: Str,
    pub(super) changes: Result<Vec<ConfigChange>, Refusal>,
}

/// What became of one resource, as an answer says it.
pub(super) struct Outcome {
    pub(super) kind: i8,
    pub(super) name: Str,
    pub(super) code: i16,
    pub(super) message: Option<Str>,
}

/// Proposes the changes of each resource, one after the other: a refused one stops none behind it. What a resource
/// wants is asked when its turn has come.
pub(super) async fn propose_each(
    context: &Context,
    wanted: impl Iterator<Item = Wanted>,
    validate_only: bool,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for Wanted { kind, name, changes } in wanted {
        let proposed = match changes {
            Ok(changes) => propose(context, kind, &name, changes, validate_only).await,
            Err(refusal) => Err(refusal),
        };
        let (code, message) = match proposed {
            Ok(()) => (ErrorCode::NONE.0, None),
            Err(refusal) => (refusal.code.0, refusal.text()),
        };
        outcomes.push(Outcome {
            kind,
            name,
            code,
            message,
        });
    }
    outcomes
}

async fn propose(
    context: &Context,
    kind: i8,
    name: &str,
    changes: Vec<ConfigChange>,
    validate_only: bool,
) -> Result<(), Refusal> {
    let change = match Resource::read(context, kind, name)? {
        Resource::Topic(topic) => Change::AlterTopicConfig {
            topic,
            changes,
            validate_only,
        },
        Resource::Broker => Change::AlterBrokerConfig {
            changes: changes
                .into_iter()
                .map(|change| of_this_node(context, change))
                .collect(),
            validate_only,
        },
        Resource::AllBrokers => Change::AlterBrokerConfig {
            changes: changes.into_iter().map(of_all_nodes).collect::<Result<_, _>>()?,
            validate_only,
        },
        Resource::Group(group) => Change::AlterBrokerConfig {
            changes: changes
                .into_iter()
                .map(|change| of_group(&group, change))
                .collect(),
            validate_only,
        },
    };
    context.services().controller.propose(change).await?;
    Ok(())
}

fn of_this_node(context: &Context, change: ConfigChange) -> ConfigChange {
    let dynamic = Dynamic::of_node(context.services().node_id(), &change.key);
    ConfigChange {
        key: dynamic.key(),
        ..change
    }
}

fn of_group(group: &str, change: ConfigChange) -> ConfigChange {
    let name = format!("group.{}", change.key);
    ConfigChange {
        key: Dynamic::of_group(group, &name).key(),
        ..change
    }
}

/// A node or a group is named by the resource, and by nothing else.
fn of_all_nodes(change: ConfigChange) -> Result<ConfigChange, Refusal> {
    let Dynamic { node, group, .. } = Dynamic::read(&change.key);
    match (node, group) {
        (None, None) => Ok(change),
        (Some(_), _) | (_, Some(_)) => {
            let message = format!("unknown key {:?}", change.key);
            Err(Refusal::new(ErrorCode::INVALID_CONFIG, message))
        }
    }
}

/// Kafka's `ConfigSource`.
pub(super) fn source_code(source: Source) -> i8 {
    match source {
        Source::Topic => 1,
        Source::Group => 8,
        // DYNAMIC_BROKER_CONFIG: set for this broker.
        Source::Broker => 2,
        // DYNAMIC_DEFAULT_BROKER_CONFIG: set for all brokers.
        Source::Cluster => 3,
        // STATIC_BROKER_CONFIG.
        Source::Node => 4,
        Source::Default => 5,
    }
}

/// Kafka's `ConfigType`.
pub(super) fn type_code(kind: Kind) -> i8 {
    match kind {
        Kind::Bool => 1,
        Kind::Text | Kind::OneOf(_) => 2,
        // The rest of the numbers are longs to Kafka's clients.
        Kind::Number { .. } | Kind::Bytes { .. } | Kind::Ms { .. } => 5,
        Kind::Ratio => 6,
        Kind::ListOf(_) => 7,
    }
}
