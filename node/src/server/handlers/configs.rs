//! What the config APIs share: which resource is meant, and what kinds and sources are called on the wire.

use headwater_protocol::kafka::ErrorCode;

use super::refusal::Refusal;
use crate::config::properties::Kind;
use crate::config::topic::Source;
use crate::server::request::Context;

/// Kafka's resource types (`ConfigResource.Type`).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What a config request is about.
pub(super) enum Resource {
    Topic(String),
    /// This node.
    Broker,
    /// All nodes: the broker resource with an empty name.
    AllBrokers,
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
            other => refuse(format!("resource type {other} has no properties here")),
        }
    }
}

/// Kafka's `ConfigSource`.
pub(super) fn source_code(source: Source) -> i8 {
    match source {
        Source::Topic => 1,
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
