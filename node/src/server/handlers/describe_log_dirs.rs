//! DescribeLogDirs (key 35, KIP-113): how many bytes each partition takes.

use std::collections::BTreeMap;

use headwater_protocol::kafka::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use headwater_protocol::primitives::Str;

use crate::server::request::Context;

/// A size that is not told.
const UNKNOWN_BYTES: i64 = -1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted = |topic: &str, partition: i32| match &request.topics {
        None => true,
        Some(topics) => topics
            .iter()
            .any(|each| &*each.topic == topic && each.partitions.contains(&partition)),
    };
    let mut topics: BTreeMap<Str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in context.services().registry.list() {
        let name = partition.name();
        if wanted(&name.topic, name.index.0) {
            topics
                .entry(Str::from(&*name.topic))
                .or_default()
                .push(DescribeLogDirsPartition {
                    partition_index: name.index.0,
                    partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
                    ..DescribeLogDirsPartition::default()
                });
        }
    }
    let topics = topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic {
        name,
        partitions,
        ..DescribeLogDirsTopic::default()
    });
    let folder = context.services().config.data_dir.to_string_lossy().into_owned();
    let result = DescribeLogDirsResult {
        log_dir: Str::from(folder),
        topics: topics.collect(),
        total_bytes: UNKNOWN_BYTES,
        usable_bytes: UNKNOWN_BYTES,
        ..DescribeLogDirsResult::default()
    };
    DescribeLogDirsResponse {
        results: vec![result],
        ..DescribeLogDirsResponse::default()
    }
}
