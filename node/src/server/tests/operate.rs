//! What an operator looks at, and sets for one node: producers, what has properties, what clients say of themselves.

use headwater_protocol::kafka::api_versions::ApiVersionsRequest;
use headwater_protocol::kafka::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use headwater_protocol::kafka::describe_producers::{
    DescribeProducersRequest, PartitionResponse, TopicRequest,
};
use headwater_protocol::kafka::get_telemetry_subscriptions::GetTelemetrySubscriptionsRequest;
use headwater_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use headwater_protocol::kafka::list_config_resources::ListConfigResourcesRequest;
use headwater_protocol::kafka::push_telemetry::PushTelemetryRequest;
use headwater_protocol::kafka::{ApiKey, ErrorCode};
use headwater_protocol::primitives::Uuid;
use headwater_protocol::record::Compression;

use super::*;
use crate::server::client_metrics::{PUSH_BYTES_MAX, otlp};

#[tokio::test]
async fn producers_are_described_with_their_last_sequence() {
    let edge = Edge::new().await;
    let topic = edge.topic("t", 2).await;
    let mut client = edge.client().await;
    client.produce(&topic, batch_of(&["a", "b"], stamp(7, 0))).await;
    client.produce(&topic, batch_of(&["c"], stamp(7, 2))).await;
    client.produce(&topic, batch_of(&["d"], stamp(3, 5))).await;
    client.produce(&topic, batch(&["of nobody"])).await;
    let ask = |name: &'static str, indexes: &[i32]| DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: Str::from_static(name),
            partition_indexes: indexes.to_vec(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let told = client.call(&ask("t", &[0, 1, 0, 2]), 0).await;
    assert_eq!(&*told.topics[0].name, "t");
    let producers = |partition: &PartitionResponse| -> Vec<_> {
        let active = partition.active_producers.iter();
        active
            .map(|it| {
                (
                    it.producer_id,
                    it.producer_epoch,
                    it.last_sequence,
                    it.current_txn_start_offset,
                )
            })
            .collect()
    };
    let partitions = &told.topics[0].partitions;
    let found: Vec<_> = partitions
        .iter()
        .map(|it| (it.partition_index, it.error_code, producers(it)))
        .collect();
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0;
    assert_eq!(
        found,
        [
            (0, 0, vec![(3, 0, 5, -1), (7, 0, 2, -1)]),
            (1, 0, vec![]),
            (2, unknown, vec![])
        ]
    );
    assert!(
        partitions[0]
            .active_producers
            .iter()
            .all(|it| it.last_timestamp > 0)
    );
    assert!(partitions[2].error_message.is_some());
    let told = client.call(&ask("u", &[0]), 0).await;
    assert_eq!(told.topics[0].partitions[0].error_code, unknown);
}

#[tokio::test]
async fn what_has_properties_is_listed_by_its_kind() {
    let edge = Edge::new().await;
    edge.topic("b", 1).await;
    edge.topic("a", 1).await;
    let mut client = edge.client().await;
    for (version, kinds, expected) in [
        (0, vec![], vec![]),
        (1, vec![], vec![(2, "a"), (2, "b"), (4, "1")]),
        (1, vec![4, 4], vec![(4, "1")]),
        (1, vec![16, 32, 8], vec![]),
    ] {
        let request = ListConfigResourcesRequest {
            resource_types: kinds,
            ..Default::default()
        };
        let listed = client.call(&request, version).await;
        let found = listed.config_resources.iter();
        let found: Vec<_> = found.map(|it| (it.resource_type, &*it.resource_name)).collect();
        assert_eq!((listed.error_code, found), (0, expected), "version {version}");
    }
    let request = ListConfigResourcesRequest {
        resource_types: vec![2, 77],
        ..Default::default()
    };
    let refused = client.call(&request, 1).await;
    assert_eq!(refused.error_code, ErrorCode::UNSUPPORTED_VERSION.0);
    assert!(refused.config_resources.is_empty());
}

/// Sets a property of all nodes, or of one, or takes it back.
async fn set(client: &mut Client, broker: &str, key: &str, value: Option<&str>) -> ErrorCode {
    let config = AlterableConfig {
        name: Str::from(key),
        config_operation: i8::from(value.is_none()),
        value: value.map(Str::from),
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: Str::from(broker),
            configs: vec![config],
            ..Default::default()
        }],
        ..Default::default()
    };
    ErrorCode(client.call(&request, 1).await.responses[0].error_code)
}

/// The value of a property of a broker, and where it comes from.
async fn property(client: &mut Client, broker: &str, key: &str) -> Option<(String, i8)> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 4,
            resource_name: Str::from(broker),
            configuration_keys: Some(vec![Str::from(key)]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let result = client.call(&request, 4).await.results.remove(0);
    assert_eq!(result.error_code, 0);
    let found = result.configs.first()?;
    Some((found.value.clone()?.to_string(), found.config_source))
}

#[tokio::test]
async fn a_node_has_values_of_its_own_above_those_of_all_nodes() {
    const KEY: &str = "leader.replication.throttled.rate";
    let edge = Edge::new().await;
    let mut client = edge.client().await;
    let told = |value: &str, source: i8| Some((value.to_owned(), source));
    assert_eq!(set(&mut client, "", KEY, Some("1000")).await, ErrorCode::NONE);
    assert_eq!(property(&mut client, "1", KEY).await, told("1000", 3));
    assert_eq!(set(&mut client, "1", KEY, Some("500")).await, ErrorCode::NONE);
    assert_eq!(property(&mut client, "1", KEY).await, told("500", 2));
    assert_eq!(property(&mut client, "", KEY).await, told("1000", 3));
    assert_eq!(set(&mut client, "1", KEY, None).await, ErrorCode::NONE);
    assert_eq!(property(&mut client, "1", KEY).await, told("1000", 3));
    for (broker, key) in [
        ("1", "num.partitions"),
        ("", "1/log.retention.ms"),
        ("1", "listen.tls"),
    ] {
        assert_eq!(
            set(&mut client, broker, key, Some("2")).await,
            ErrorCode::INVALID_CONFIG,
            "{key} of {broker:?}"
        );
    }
    // Topics have the defaults of the node that is asked.
    assert_eq!(
        set(&mut client, "1", "log.retention.ms", Some("5")).await,
        ErrorCode::NONE
    );
    let topic = edge.topic("t", 1).await;
    let partition = edge
        .services
        .registry
        .get(&topic.name, headwater_protocol::ids::PartitionIndex(0));
    assert_eq!(partition.unwrap().config().retention_ms, Some(5));
}

/// Whether clients are told that they may push metrics.
async fn is_offered(client: &mut Client) -> bool {
    let told = client.call(&ApiVersionsRequest::default(), 2).await;
    let mut keys = told.api_keys.iter().map(|range| range.api_key);
    keys.any(|key| key == ApiKey::PushTelemetry as i16)
}

#[tokio::test]
async fn clients_are_asked_for_metrics_and_what_they_push_is_shown() {
    let edge = Edge::with(&[("client.metrics.interval.ms", "1000")]).await;
    let mut client = edge.client().await;
    let asked = client.call(&GetTelemetrySubscriptionsRequest::default(), 0).await;
    assert!(!asked.client_instance_id.is_zero());
    assert!(asked.requested_metrics.is_empty(), "nobody wants to know");
    assert!(!is_offered(&mut client).await);
    assert_eq!(
        set(&mut client, "", "client.metrics", Some("org.")).await,
        ErrorCode::NONE
    );
    assert!(is_offered(&mut client).await);
    let request = GetTelemetrySubscriptionsRequest {
        client_instance_id: asked.client_instance_id,
        ..Default::default()
    };
    let again = client.call(&request, 0).await;
    assert_eq!(again.client_instance_id, asked.client_instance_id);
    assert_ne!(again.subscription_id, asked.subscription_id);
    assert_eq!((again.push_interval_ms, again.delta_temporality), (1000, false));
    assert_eq!(again.requested_metrics, ["org."]);

    let said = [
        otlp::tests::push("org.rate", 5, &[otlp::tests::double(2.5)]),
        otlp::tests::push("other", 5, &[otlp::tests::double(1.0)]),
    ];
    let push = PushTelemetryRequest {
        client_instance_id: asked.client_instance_id,
        subscription_id: again.subscription_id,
        metrics: Bytes::from(said.concat()),
        ..Default::default()
    };
    for (request, expected) in [
        (
            PushTelemetryRequest {
                client_instance_id: Uuid::ZERO,
                ..push.clone()
            },
            ErrorCode::INVALID_REQUEST,
        ),
        (
            PushTelemetryRequest {
                subscription_id: asked.subscription_id,
                ..push.clone()
            },
            ErrorCode::UNKNOWN_SUBSCRIPTION_ID,
        ),
        (
            PushTelemetryRequest {
                metrics: Bytes::from(vec![0; PUSH_BYTES_MAX + 1]),
                ..push.clone()
            },
            ErrorCode::TELEMETRY_TOO_LARGE,
        ),
        (
            PushTelemetryRequest {
                compression_type: 9,
                ..push.clone()
            },
            ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        ),
        (push.clone(), ErrorCode::NONE),
        (push.clone(), ErrorCode::THROTTLING_QUOTA_EXCEEDED),
    ] {
        let answer = client.call(&request, 0).await;
        assert_eq!(ErrorCode(answer.error_code), expected);
    }
    let shown = || edge.services.metrics.render();
    assert!(shown().contains(r#"metric="org.rate",of=""} 2.5"#), "{}", shown());
    assert!(!shown().contains(r#"metric="other""#), "it was not asked for");
    edge.pass(Duration::from_secs(1)).await;
    let malformed = PushTelemetryRequest {
        compression_type: Compression::Gzip.code() as i8,
        ..push.clone()
    };
    assert_eq!(
        ErrorCode(client.call(&malformed, 0).await.error_code),
        ErrorCode::INVALID_RECORD
    );
    let last = PushTelemetryRequest {
        terminating: true,
        ..push
    };
    assert_eq!(client.call(&last, 0).await.error_code, 0);
    assert!(!shown().contains("org.rate"), "it is gone");
    for (result, count) in [("accepted", 2), ("refused", 6)] {
        let line = format!(r#"headwater_client_metrics_pushes_total{{result="{result}"}} {count}"#);
        assert!(shown().contains(&line), "{line}");
    }
}
