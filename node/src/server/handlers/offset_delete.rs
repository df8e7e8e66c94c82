//! OffsetDelete (key 47, KIP-496): forgets what a group has committed of some partitions.

use std::collections::BTreeMap;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};

use super::groups;
use crate::group::{self, GroupError, PerPartition, TopicPartition};
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = context.services().view.image();
    let look_up = |topic: &OffsetDeleteRequestTopic| -> Vec<Result<TopicPartition, ErrorCode>> {
        let name = group::name(&topic.name).map_err(|error| errors::of_group(&error));
        let partition = |index| groups::known_partition(&image, name.as_ref().map_err(|code| *code)?, index);
        let wanted = topic.partitions.iter();
        wanted.map(|wanted| partition(wanted.partition_index)).collect()
    };
    let found: Vec<_> = request.topics.iter().map(look_up).collect();
    let known = found.iter().flatten().filter_map(|found| found.clone().ok());
    let deleted: BTreeMap<_, _> = match delete(context, &request.group_id, known.collect()).await {
        Ok(results) => results.into_iter().collect(),
        Err(error) => {
            return OffsetDeleteResponse {
                error_code: errors::of_group(&error).0,
                ..OffsetDeleteResponse::default()
            };
        }
    };
    let code = |found: Result<TopicPartition, ErrorCode>| match found {
        Err(code) => code.0,
        Ok(partition) => deleted
            .get(&partition)
            .map_or(ErrorCode::UNKNOWN_SERVER_ERROR.0, groups::code),
    };
    let topics = request.topics.into_iter().zip(found).map(|(topic, found)| {
        let wanted = topic.partitions.iter().zip(found);
        let partitions = wanted.map(|(wanted, found)| OffsetDeleteResponsePartition {
            partition_index: wanted.partition_index,
            error_code: code(found),
        });
        OffsetDeleteResponseTopic {
            partitions: partitions.collect(),
            name: topic.name,
        }
    });
    OffsetDeleteResponse {
        topics: topics.collect(),
        ..OffsetDeleteResponse::default()
    }
}

async fn delete(
    context: &Context,
    group: &str,
    wanted: Vec<TopicPartition>,
) -> Result<PerPartition, GroupError> {
    let group = group::name(group)?;
    context.services().groups.delete_offsets(group, wanted).await
}
