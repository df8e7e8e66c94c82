//! What an operator's tools do: topics, partitions, properties, the cluster.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::alter_configs::{self, AlterConfigsRequest};
use headwater_protocol::kafka::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use headwater_protocol::kafka::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use headwater_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use headwater_protocol::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use headwater_protocol::kafka::describe_cluster::DescribeClusterRequest;
use headwater_protocol::kafka::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult,
};
use headwater_protocol::kafka::describe_log_dirs::DescribeLogDirsRequest;
use headwater_protocol::kafka::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, RequestCursor, TopicRequest,
};
use headwater_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use headwater_protocol::kafka::api_versions::ApiVersionsRequest;
use headwater_protocol::kafka::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};

use super::*;

fn creatable(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(name),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

#[tokio::test]
async fn topics_are_created_widened_and_deleted_in_every_version() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    for version in 2..=7 {
        let name = format!("topic-{version}");
        let request = CreateTopicsRequest {
            topics: vec![creatable(&name, 2)],
            timeout_ms: 1000,
            ..Default::default()
        };
        let created = client.call(&request, version).await;
        assert_eq!(
            created.topics[0].error_code, 0,
            "{:?}",
            created.topics[0].error_message
        );
        let again = client.call(&request, version).await;
        assert_eq!(again.topics[0].error_code, ErrorCode::TOPIC_ALREADY_EXISTS.0);
        let topic = edge.services.view.topic(&name).unwrap();
        assert_eq!(client.produce(&topic, batch(&["at once"])).await.error_code, 0);
    }
    for version in 0..=3 {
        let topic = CreatePartitionsTopic {
            name: Str::from_static("topic-2"),
            count: 3 + i32::from(version),
            ..Default::default()
        };
        let request = CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: 1000,
            ..Default::default()
        };
        assert_eq!(client.call(&request, version).await.results[0].error_code, 0);
        let fewer = client.call(&request, version).await;
        assert_eq!(fewer.results[0].error_code, ErrorCode::INVALID_PARTITIONS.0);
    }
    let topic = edge.services.view.topic("topic-2").unwrap();
    assert_eq!(
        one(client.call(&produce(&topic, 5, batch(&["new"]), -1), 9).await).error_code,
        0
    );
    for version in 1..=5 {
        let name = Str::from(format!("topic-{}", version + 1));
        let request = DeleteTopicsRequest {
            topic_names: vec![name],
            timeout_ms: 1000,
            ..Default::default()
        };
        assert_eq!(client.call(&request, version).await.responses[0].error_code, 0);
        let unknown = client.call(&request, version).await;
        assert_eq!(
            unknown.responses[0].error_code,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0
        );
    }
    let id = edge.services.view.topic("topic-7").unwrap().id;
    let by_id = DeleteTopicState {
        name: None,
        topic_id: id.into(),
        ..Default::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![by_id],
        timeout_ms: 1000,
        ..Default::default()
    };
    assert_eq!(
        client.call(&request, 6).await.responses[0].name.as_deref(),
        Some("topic-7")
    );
    assert_eq!(
        client.call(&request, 6).await.responses[0].error_code,
        ErrorCode::UNKNOWN_TOPIC_ID.0
    );
    assert!(edge.services.view.image().topics.is_empty());
}

#[tokio::test]
async fn what_cannot_be_created_says_why() {
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    let config = |name: &str, value: &str| CreatableTopicConfig {
        name: Str::from(name),
        value: Some(Str::from(value)),
        ..Default::default()
    };
    let with = |topic: CreatableTopic, configs| CreatableTopic { configs, ..topic };
    let cases = [
        (creatable("a/b", 1), ErrorCode::INVALID_TOPIC_EXCEPTION),
        (creatable("a", 0), ErrorCode::INVALID_PARTITIONS),
        (
            CreatableTopic {
                replication_factor: 3,
                ..creatable("a", 1)
            },
            ErrorCode::INVALID_REPLICATION_FACTOR,
        ),
        (
            with(creatable("a", 1), vec![config("retention.msec", "1")]),
            ErrorCode::INVALID_CONFIG,
        ),
        (
            with(creatable("a", 1), vec![config("retention.ms", "soon")]),
            ErrorCode::INVALID_CONFIG,
        ),
    ];
    for (topic, code) in cases {
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 1000,
            ..Default::default()
        };
        let refused = client.call(&request, 7).await;
        assert_eq!(refused.topics[0].error_code, code.0);
        assert!(refused.topics[0].error_message.is_some());
    }
    let twice = CreateTopicsRequest {
        topics: vec![creatable("a", 1), creatable("a", 1)],
        ..Default::default()
    };
    let refused = client.call(&twice, 7).await;
    assert!(
        refused
            .topics
            .iter()
            .all(|topic| topic.error_code == ErrorCode::INVALID_REQUEST.0)
    );
    let dry = CreateTopicsRequest {
        topics: vec![creatable("a", 1)],
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(client.call(&dry, 7).await.topics[0].error_code, 0);
    assert!(edge.services.view.image().topics.is_empty());
}

async fn described(client: &mut Client, kind: i8, name: &str, version: i16) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configuration_keys: None,
        ..Default::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
        ..Default::default()
    };
    client.call(&request, version).await.results.remove(0)
}

async fn alter(
    client: &mut Client,
    kind: i8,
    name: &str,
    key: &str,
    operation: i8,
    value: Option<&str>,
) -> i16 {
    let config = AlterableConfig {
        name: Str::from(key),
        config_operation: operation,
        value: value.map(Str::from),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configs: vec![config],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    client.call(&request, 1).await.responses[0].error_code
}

#[tokio::test]
async fn properties_are_described_and_altered() {
    let edge = Edge::new().await;
    edge.topic("t", 1).await;
    let mut client = edge.client().await;
    let retention = |result: &DescribeConfigsResult| {
        let found = result
            .configs
            .iter()
            .find(|config| &*config.name == "retention.ms")
            .unwrap();
        (found.value.clone().unwrap().to_string(), found.config_source)
    };
    for version in 1..=4 {
        assert_eq!(
            retention(&described(&mut client, 2, "t", version).await),
            ("604800000".to_owned(), 5)
        );
        assert!(described(&mut client, 4, "1", version).await.configs.len() > 20);
    }
    assert_eq!(
        alter(&mut client, 2, "t", "retention.ms", 0, Some("1000")).await,
        0
    );
    assert_eq!(
        retention(&described(&mut client, 2, "t", 4).await),
        ("1000".to_owned(), 1)
    );
    assert_eq!(alter(&mut client, 2, "t", "retention.ms", 1, None).await, 0);
    assert_eq!(
        alter(&mut client, 4, "", "log.retention.ms", 0, Some("2000")).await,
        0
    );
    assert_eq!(
        retention(&described(&mut client, 2, "t", 4).await),
        ("2000".to_owned(), 3)
    );
    for (kind, name, key, operation, value, code) in [
        (2, "t", "retention.mss", 0, Some("1"), ErrorCode::INVALID_CONFIG),
        (
            2,
            "nowhere",
            "retention.ms",
            0,
            Some("1"),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ),
        (2, "t", "retention.ms", 0, None, ErrorCode::INVALID_REQUEST),
        (2, "t", "retention.ms", 9, Some("1"), ErrorCode::INVALID_REQUEST),
        (
            4,
            "77",
            "log.retention.ms",
            0,
            Some("1"),
            ErrorCode::INVALID_REQUEST,
        ),
        (8, "1", "x", 0, Some("1"), ErrorCode::INVALID_REQUEST),
    ] {
        assert_eq!(
            alter(&mut client, kind, name, key, operation, value).await,
            code.0,
            "{key} of {name}"
        );
    }
    // The older form replaces everything.
    alter(&mut client, 2, "t", "segment.bytes", 0, Some("1000000")).await;
    let whole = alter_configs::AlterConfigsResource {
        resource_type: 2,
        resource_name: Str::from_static("t"),
        configs: vec![alter_configs::AlterableConfig {
            name: Str::from_static("retention.ms"),
            value: Some(Str::from_static("5")),
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = AlterConfigsRequest {
        resources: vec![whole],
        ..Default::default()
    };
    for version in 0..=2 {
        assert_eq!(client.call(&request, version).await.responses[0].error_code, 0);
    }
    let topic = edge.services.view.topic("t").unwrap();
    assert_eq!(
        topic.configs,
        BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())])
    );
}

#[tokio::test]
async fn the_cluster_and_its_topics_are_described() {
    let edge = Edge::new().await;
    let topic = edge.topic("b", 5).await;
    edge.topic("a", 2).await;
    let mut client = edge.client().await;
    client.produce(&topic, batch(&["x"])).await;
    for version in 0..=2 {
        let request = DescribeClusterRequest {
            endpoint_type: 1,
            ..Default::default()
        };
        let cluster = client.call(&request, version).await;
        assert_eq!(
            (cluster.error_code, &*cluster.cluster_id, cluster.brokers.len()),
            (0, "lab", 1)
        );
        assert_eq!(
            (&*cluster.brokers[0].host, cluster.brokers[0].port),
            ("tcp.example", 9092)
        );
    }
    let controllers = DescribeClusterRequest {
        endpoint_type: 2,
        ..Default::default()
    };
    assert_ne!(client.call(&controllers, 1).await.error_code, 0);
    for version in 1..=5 {
        let dirs = client
            .call(
                &DescribeLogDirsRequest {
                    topics: None,
                    ..Default::default()
                },
                version,
            )
            .await;
        assert_eq!(dirs.results[0].topics.len(), 2);
        assert!(dirs.results[0].topics[1].partitions[0].partition_size > 0);
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let request = DescribeTopicPartitionsRequest {
            topics: ["b", "a", "c"]
                .map(|name| TopicRequest {
                    name: Str::from(name),
                    ..Default::default()
                })
                .to_vec(),
            response_partition_limit: 3,
            cursor: cursor.take(),
            ..Default::default()
        };
        let page = client.call(&request, 0).await;
        for topic in &page.topics {
            let name = topic.name.clone().unwrap().to_string();
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|partition| (name.clone(), partition.partition_index)),
            );
            assert_eq!(topic.error_code != 0, name == "c");
        }
        let Some(next) = page.next_cursor else { break };
        cursor = Some(RequestCursor {
            topic_name: next.topic_name,
            partition_index: next.partition_index,
            ..Default::default()
        });
    }
    let all = [("a", 2), ("b", 5)].map(|(name, count)| (0..count).map(move |index| (name.to_owned(), index)));
    assert_eq!(seen, all.into_iter().flatten().collect::<Vec<_>>());
}

#[tokio::test]
async fn records_are_deleted_from_the_front() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 1).await;
    let mut client = edge.client().await;
    for value in ["a", "b", "c"] {
        client.produce(&topic, batch(&[value])).await;
    }
    let delete = |offset| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Str::from_static("t"),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 1000,
        ..Default::default()
    };
    for (version, offset, code, low) in [
        (0, 1, 0, 1),
        (1, 9, ErrorCode::OFFSET_OUT_OF_RANGE.0, -1),
        (2, 2, 0, 2),
        (2, -1, 0, 3),
    ] {
        let response = client.call(&delete(offset), version).await;
        let result = &response.topics[0].partitions[0];
        assert_eq!(
            (result.error_code, result.low_watermark),
            (code, low),
            "below {offset}"
        );
    }
    assert_eq!(
        client.fetch(&topic, 0).await.error_code,
        ErrorCode::OFFSET_OUT_OF_RANGE.0
    );
    assert_eq!(client.fetch(&topic, 3).await.log_start_offset, 3);
}

#[tokio::test]
async fn levels_of_features_are_told_and_set_in_every_version() {
    const VERSION: &str = "headwater.version";
    const NEWEST: i16 = features::Level::NEWEST.0;
    // As an older binary left it.
    let edge = Edge::at_level(1).await;
    let mut client = edge.client().await;
    let asked = ApiVersionsRequest {
        client_software_name: Str::from_static("test"),
        client_software_version: Str::from_static("1"),
        ..Default::default()
    };
    for version in 0..=4 {
        let told = client.call(&asked, version).await;
        let supported = told.supported_features.iter();
        let supported: Vec<_> = supported
            .map(|key| (key.name.to_string(), key.min_version, key.max_version))
            .collect();
        let finalized = told.finalized_features.iter();
        let finalized: Vec<_> = finalized
            .map(|key| (key.name.to_string(), key.min_version_level, key.max_version_level))
            .collect();
        if version < 3 {
            assert!(supported.is_empty() && finalized.is_empty());
            continue;
        }
        let groups = "group.version".to_owned();
        let shares = "share.version".to_owned();
        let transactions = "transaction.version".to_owned();
        assert_eq!(
            supported,
            [
                (VERSION.to_owned(), 1, NEWEST),
                (groups.clone(), 0, 1),
                (shares.clone(), 0, 1),
                (transactions.clone(), 0, 2)
            ]
        );
        assert_eq!(
            finalized,
            [
                (VERSION.to_owned(), 1, 1),
                (groups, 1, 1),
                (shares, 1, 1),
                (transactions, 2, 2)
            ]
        );
        assert!(told.finalized_features_epoch >= 0);
    }
    let set = |feature: &'static str, level: i16, upgrade_type: i8| UpdateFeaturesRequest {
        feature_updates: vec![FeatureUpdateKey {
            feature: Str::from_static(feature),
            max_version_level: level,
            upgrade_type,
            ..Default::default()
        }],
        ..Default::default()
    };
    let invalid = ErrorCode::INVALID_UPDATE_VERSION;
    for (version, request, expected) in [
        (0, set(VERSION, NEWEST + 1, 1), invalid),
        (1, set("metadata.version", 25, 1), invalid),
        (2, set(VERSION, 2, 9), invalid),
        (2, UpdateFeaturesRequest::default(), ErrorCode::INVALID_REQUEST),
        (0, set(VERSION, 2, 1), ErrorCode::NONE),
        (1, set(VERSION, 2, 1), ErrorCode::NONE),
        (2, set(VERSION, 2, 1), ErrorCode::NONE),
        (1, set(VERSION, 1, 2), invalid),
        (2, set(VERSION, 1, 3), invalid),
    ] {
        let answer = client.call(&request, version).await;
        assert_eq!(ErrorCode(answer.error_code), expected, "{request:?}: {answer:?}");
        assert_eq!(answer.error_message.is_some(), expected != ErrorCode::NONE);
        let results: Vec<_> = answer.results.iter().map(|result| result.error_code).collect();
        let each = if version < 2 { vec![expected.0] } else { Vec::new() };
        assert_eq!(results, each);
    }
    let told = client.call(&asked, 4).await;
    assert_eq!(told.finalized_features[0].max_version_level, 2);
}
