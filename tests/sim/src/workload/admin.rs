//! Makes the topics of a run, however often it has to ask.

use std::sync::Arc;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use headwater_protocol::primitives::Str;

use super::Control;
use crate::client::Client;
use crate::oracle::Oracle;

/// A topic to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) replicas: i16,
    pub(crate) configs: Vec<(&'static str, String)>,
}

pub(crate) async fn create(mut client: Client, topics: Vec<NewTopic>, oracle: Oracle, control: Arc<Control>) {
    for topic in topics {
        while !ask(&mut client, &topic).await {
            control.retried();
            client.pause_ms(300).await;
        }
        client.trace.say(format_args!("topic {} made", topic.name));
        oracle.created(&topic.name, topic.partitions);
    }
    Control::set(&control.ready);
}

/// Whether it is there.
async fn ask(client: &mut Client, topic: &NewTopic) -> bool {
    let config = |(name, value): &(&'static str, String)| CreatableTopicConfig {
        name: Str::from(*name),
        value: Some(Str::from(value.as_str())),
        ..CreatableTopicConfig::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from(topic.name.as_str()),
            num_partitions: topic.partitions,
            replication_factor: topic.replicas,
            configs: topic.configs.iter().map(config).collect(),
            ..CreatableTopic::default()
        }],
        timeout_ms: 1_000,
        ..CreateTopicsRequest::default()
    };
    match client.call(&client.any_node(), &request, 5).await {
        Ok(answer) => answer.topics.first().is_some_and(|topic| {
            let code = ErrorCode(topic.error_code);
            code == ErrorCode::NONE || code == ErrorCode::TOPIC_ALREADY_EXISTS
        }),
        Err(_) => false,
    }
}
