//! DescribeLogDirs (key 35, KIP-113): how many bytes each partition takes.

use std::collections::{BTreeMap, BTreeSet};

use headwater_protocol::kafka::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use headwater_protocol::primitives::Str;

use crate::server::request::Context;

/// A size that is not told.
const UNKNOWN_BYTES: i64 = -1;

pub(in crate::server) async fn handle(
    context: &Context,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let asked: Option<BTreeSet<(Str, i32)>> = request.topics.map(|topics| {
        let of_topic = |each: DescribableLogDirTopic| {
            let name = each.topic;
            each.partitions
                .into_iter()
                .map(move |index| (name.clone(), index))
        };
        topics.into_iter().flat_map(of_topic).collect()
    });
    let mut topics: BTreeMap<Str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in context.services().registry.list() {
        let name = partition.name();
        let topic = Str::from(&*name.topic);
        let wanted = asked
            .as_ref()
            .is_none_or(|asked| asked.contains(&(topic.clone(), name.index.0)));
        if wanted {
            topics.entry(topic).or_default().push(DescribeLogDirsPartition {
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
