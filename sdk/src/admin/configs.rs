//! Settings of topics and brokers.
//!
//! Owns the translation of these calls only.

use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use headwater_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use headwater_protocol::kafka::list_config_resources::ListConfigResourcesRequest;
use headwater_protocol::primitives::Str;

use super::topics::{accepted, unanswered};
use super::{Admin, Kind};
use crate::client::Target;
use crate::error::Error;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// A source of this code means that nobody set the value.
const SOURCE_DEFAULT: i8 = 5;
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;

/// Whose settings are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    Topic(String),
    Broker(NodeId),
    /// What is set for all brokers while they run.
    AllBrokers,
}

impl ConfigResource {
    fn parts(&self) -> (i8, Str) {
        match self {
            Self::Topic(name) => (TOPIC, Str::from(name)),
            Self::Broker(node) => (BROKER, Str::from(node.to_string())),
            Self::AllBrokers => (BROKER, Str::default()),
        }
    }

    /// A broker knows its own settings; a topic's are known everywhere.
    fn target(&self) -> Target {
        match self {
            Self::Topic(_) | Self::AllBrokers => Target::Any,
            Self::Broker(node) => Target::Node(*node),
        }
    }
}

/// One setting as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` for a secret, which is never told, and for a setting without a value.
    pub value: Option<String>,
    /// Whether nobody has set it.
    pub is_default: bool,
    pub is_read_only: bool,
    pub is_sensitive: bool,
    pub documentation: Option<String>,
}

/// One change to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    Set {
        name: String,
        value: String,
    },
    /// Back to the default.
    Delete {
        name: String,
    },
}

impl Admin {
    /// All settings of a topic or broker.
    pub async fn describe_configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, Error> {
        let (resource_type, resource_name) = resource.parts();
        let what = format!("describe configs of {resource:?}");
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type,
                resource_name,
                configuration_keys: None,
                ..Default::default()
            }],
            ..Default::default()
        };
        self.ask(Kind::Question, resource.target(), &what, &request, |answer| {
            let result = answer
                .results
                .into_iter()
                .next()
                .ok_or_else(|| unanswered(&what))?;
            accepted(&what, result.error_code, result.error_message.as_ref())?;
            let entries = result.configs.into_iter().map(|entry| ConfigEntry {
                name: entry.name.to_string(),
                value: entry.value.as_ref().map(ToString::to_string),
                is_default: entry.config_source == SOURCE_DEFAULT,
                is_read_only: entry.read_only,
                is_sensitive: entry.is_sensitive,
                documentation: entry.documentation.as_ref().map(ToString::to_string),
            });
            Ok(entries.collect())
        })
        .await
    }

    /// What has settings: every topic and every broker.
    pub async fn list_config_resources(&self) -> Result<Vec<ConfigResource>, Error> {
        let what = "list what has settings";
        let request = ListConfigResourcesRequest {
            resource_types: vec![TOPIC, BROKER],
            ..Default::default()
        };
        self.ask(Kind::Question, Target::Any, what, &request, |answer| {
            accepted(what, answer.error_code, None)?;
            let resources = answer.config_resources.iter();
            let read = resources.filter_map(|it| match it.resource_type {
                TOPIC => Some(ConfigResource::Topic(it.resource_name.to_string())),
                BROKER => Some(ConfigResource::Broker(NodeId(it.resource_name.parse().ok()?))),
                _ => None,
            });
            Ok(read.collect())
        })
        .await
    }

    /// Changes some settings of a topic or broker; the others stay. All changes happen or none.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[ConfigChange],
    ) -> Result<(), Error> {
        let (resource_type, resource_name) = resource.parts();
        let what = format!("alter configs of {resource:?}");
        let change = |change: &ConfigChange| {
            let (name, config_operation, value) = match change {
                ConfigChange::Set { name, value } => (name, OPERATION_SET, Some(Str::from(value))),
                ConfigChange::Delete { name } => (name, OPERATION_DELETE, None),
            };
            AlterableConfig {
                name: Str::from(name),
                config_operation,
                value,
                ..Default::default()
            }
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type,
                resource_name,
                configs: changes.iter().map(change).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let target = match resource {
            ConfigResource::Topic(_) | ConfigResource::AllBrokers => Target::Controller,
            ConfigResource::Broker(node) => Target::Node(*node),
        };
        self.ask(Kind::Change, target, &what, &request, |answer| {
            let result = answer.responses.first().ok_or_else(|| unanswered(&what))?;
            accepted(&what, result.error_code, result.error_message.as_ref())
        })
        .await
    }
}
