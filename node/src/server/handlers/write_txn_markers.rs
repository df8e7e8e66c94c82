//! WriteTxnMarkers (key 27): a coordinator says how transactions ended, to whoever leads their partitions; or an operator does, to get
//! rid of one whose coordinator forgot it (KIP-664).

use futures_util::future::join_all;
use headwater_protocol::ids::{PartitionIndex, ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopic,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use headwater_protocol::record::{ControlKind, EndTransaction};

use crate::partition::Marker;
use crate::server::errors;
use crate::server::request::Context;

pub(in crate::server) async fn handle(
    context: &Context,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        markers.push(write(context, marker).await);
    }
    WriteTxnMarkersResponse {
        markers,
        ..WriteTxnMarkersResponse::default()
    }
}

async fn write(context: &Context, request: WritableTxnMarker) -> WritableTxnMarkerResult {
    let marker = Marker {
        producer: ProducerId(request.producer_id),
        epoch: ProducerEpoch(request.producer_epoch),
        end: EndTransaction {
            kind: match request.transaction_result {
                true => ControlKind::Commit,
                false => ControlKind::Abort,
            },
            coordinator_epoch: request.coordinator_epoch,
        },
    };
    let is_valid = marker.producer.value() >= 0 && marker.epoch.value() >= 0;
    let topics = request.topics.into_iter().map(async |topic| {
        let WritableTxnMarkerTopic {
            name,
            partition_indexes,
            ..
        } = topic;
        let partitions = partition_indexes.into_iter().map(async |index| {
            let code = match is_valid {
                true => write_one(context, &name, index, marker).await,
                false => ErrorCode::INVALID_REQUEST,
            };
            WritableTxnMarkerPartitionResult {
                partition_index: index,
                error_code: code.0,
                ..WritableTxnMarkerPartitionResult::default()
            }
        });
        WritableTxnMarkerTopicResult {
            partitions: join_all(partitions).await,
            name: name.clone(),
            ..WritableTxnMarkerTopicResult::default()
        }
    });
    WritableTxnMarkerResult {
        producer_id: request.producer_id,
        topics: join_all(topics).await,
        ..WritableTxnMarkerResult::default()
    }
}

async fn write_one(context: &Context, topic: &str, index: i32, marker: Marker) -> ErrorCode {
    let services = context.services();
    let Some(partition) = services.registry.get(topic, PartitionIndex(index)) else {
        return errors::absent_name(&services.view, topic, index, services.node_id());
    };
    match partition.end_transaction(marker).await {
        Ok(_) => ErrorCode::NONE,
        Err(error) => errors::of_append(&error),
    }
}
