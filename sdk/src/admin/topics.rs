//! Topics: create, delete, list, grow.
//!
//! Owns the translation of these calls only.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_protocol::ids::TopicId;
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use headwater_protocol::kafka::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use headwater_protocol::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use headwater_protocol::kafka::metadata::MetadataRequest;
use headwater_protocol::primitives::Str;

use super::{Admin, Kind};
use crate::client::Target;
use crate::error::Error;
use crate::routing::{Cluster, Topic};

/// A topic to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// `None` takes the broker's default.
    pub partitions: Option<i32>,
    /// `None` takes the broker's default.
    pub replication_factor: Option<i16>,
    /// Properties by Kafka's names, such as `retention.ms`.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions: Some(partitions),
            ..Self::default()
        }
    }

    /// The same topic with one property set.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.configs.insert(key.into(), value.into());
        self
    }
}

impl Admin {
    /// Creates a topic and returns its id ([`TopicId::NONE`] from a broker that knows no ids).
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<TopicId, Error> {
        let config = |(key, value): (&String, &String)| CreatableTopicConfig {
            name: Str::from(key),
            value: Some(Str::from(value)),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Str::from(&topic.name),
                num_partitions: topic.partitions.unwrap_or(-1),
                replication_factor: topic.replication_factor.unwrap_or(-1),
                configs: topic.configs.iter().map(config).collect(),
                ..Default::default()
            }],
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        let what = format!("create topic {:?}", topic.name);
        let id = self
            .ask(Kind::Change, Target::Controller, &what, &request, |answer| {
                let result = answer.topics.first().ok_or_else(|| unanswered(&what))?;
                accepted(&what, result.error_code, result.error_message.as_ref())?;
                Ok(TopicId::from(result.topic_id))
            })
            .await?;
        self.client.metadata().invalidate();
        Ok(id)
    }

    /// Deletes a topic and all its records.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = DeleteTopicsRequest {
            // Which of the two a version carries is the encoder's to choose; both say the same.
            topics: vec![DeleteTopicState {
                name: Some(Str::from(name)),
                ..Default::default()
            }],
            topic_names: vec![Str::from(name)],
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        let what = format!("delete topic {name:?}");
        self.ask(Kind::Change, Target::Controller, &what, &request, |answer| {
            let result = answer.responses.first().ok_or_else(|| unanswered(&what))?;
            accepted(&what, result.error_code, result.error_message.as_ref())
        })
        .await?;
        self.client.metadata().invalidate();
        Ok(())
    }

    /// Grows a topic to `count` partitions. Keys may then land elsewhere than before.
    pub async fn create_partitions(&self, name: &str, count: i32) -> Result<(), Error> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: Str::from(name),
                count,
                // The broker places them; an empty list would place none.
                assignments: None,
                ..Default::default()
            }],
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        let what = format!("grow topic {name:?} to {count} partitions");
        self.ask(Kind::Change, Target::Controller, &what, &request, |answer| {
            let result = answer.results.first().ok_or_else(|| unanswered(&what))?;
            accepted(&what, result.error_code, result.error_message.as_ref())
        })
        .await?;
        self.client.metadata().invalidate();
        Ok(())
    }

    /// All topics this client may see.
    pub async fn list_topics(&self) -> Result<Vec<Arc<Topic>>, Error> {
        let request = MetadataRequest {
            topics: None,
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let transport = self.client.transport();
        self.ask(Kind::Question, Target::Any, "list topics", &request, |answer| {
            accepted("list topics", answer.error_code, None)?;
            Ok(Cluster::empty(transport)
                .apply(transport, &answer)
                .topics()
                .cloned()
                .collect())
        })
        .await
    }

    /// One topic's partitions, leaders and replicas, fresh from the cluster.
    pub async fn describe_topic(&self, name: &str) -> Result<Arc<Topic>, Error> {
        self.client.metadata().want(name);
        self.client.metadata().refresh().await?;
        self.client.topic(name).await
    }
}

pub(super) fn accepted(what: &str, code: i16, message: Option<&Str>) -> Result<(), Error> {
    if code == ErrorCode::NONE.0 {
        Ok(())
    } else {
        Err(Error::refused(what, code, message.map(Str::as_str)))
    }
}

/// A broker that answers a request for one thing with none.
pub(super) fn unanswered(what: &str) -> Error {
    Error::refused(
        what,
        ErrorCode::UNKNOWN_SERVER_ERROR.0,
        Some("the answer does not mention it"),
    )
}
