//! Where partitions end, whoever leads them: known here, or asked of the other leaders.
//!
//! Each leader is asked once, all at the same time. It must never wait for one for long: where one does not answer, nothing
//! is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use headwater_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use headwater_protocol::primitives::Str;

use super::share;
use crate::metadata::Image;
use crate::server::request::Context;
use crate::share::Place;

/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(3);
const LIST_OFFSETS_VERSION: i16 = 7;
/// Behind the last record, as ListOffsets asks for it.
const LATEST: i64 = -1;
const NO_REPLICA: i32 = -1;

/// Of one leader, by topic.
type Led = BTreeMap<TopicId, Vec<PartitionIndex>>;

/// The high watermarks of partitions. Those that nobody leads, or whose leader does not answer, are absent.
pub(super) async fn of(
    context: &Context,
    image: &Image,
    places: &BTreeSet<Place>,
) -> BTreeMap<Place, Offset> {
    let mut ends = BTreeMap::new();
    let mut elsewhere: BTreeMap<NodeId, Led> = BTreeMap::new();
    for place in places {
        if let Ok((partition, _)) = share::locate(context, *place) {
            ends.insert(*place, partition.watermarks().borrow().high_watermark);
            continue;
        }
        let (topic, index) = *place;
        let known = image.topic_by_id(topic).and_then(|topic| topic.partition(index));
        let leader = known.map_or(NodeId::NONE, |state| state.leader);
        if leader != NodeId::NONE && leader != context.services().node_id() {
            let led = elsewhere.entry(leader).or_default();
            led.entry(topic).or_default().push(index);
        }
    }
    let asked = elsewhere
        .into_iter()
        .map(|(leader, led)| ask(context, image, leader, led));
    ends.extend(join_all(asked).await.into_iter().flatten());
    ends
}

async fn ask(context: &Context, image: &Image, leader: NodeId, led: Led) -> Vec<(Place, Offset)> {
    let mut ids: BTreeMap<Str, TopicId> = BTreeMap::new();
    let mut topics = Vec::with_capacity(led.len());
    for (id, indexes) in led {
        let Some(topic) = image.topic_by_id(id) else {
            continue;
        };
        let name = Str::from(&*topic.name);
        let partition = |index: PartitionIndex| ListOffsetsPartition {
            partition_index: index.value(),
            timestamp: LATEST,
            ..ListOffsetsPartition::default()
        };
        topics.push(ListOffsetsTopic {
            name: name.clone(),
            partitions: indexes.into_iter().map(partition).collect(),
            ..ListOffsetsTopic::default()
        });
        ids.insert(name, id);
    }
    let request = ListOffsetsRequest {
        replica_id: NO_REPLICA,
        topics,
        ..ListOffsetsRequest::default()
    };
    let client_id = Str::from_static("headwater-share");
    let peers = &context.services().peers;
    let answer = peers.ask(leader, &request, LIST_OFFSETS_VERSION, &client_id, PATIENCE);
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(node = %leader, %error, "where partitions end is not known");
            return Vec::new();
        }
    };
    let mut ends = Vec::new();
    for topic in answer.topics {
        let Some(id) = ids.get(&topic.name) else {
            continue;
        };
        let partitions = topic.partitions.iter();
        let sound = partitions.filter(|it| it.error_code == ErrorCode::NONE.0 && it.offset >= 0);
        ends.extend(sound.map(|it| ((*id, PartitionIndex(it.partition_index)), Offset(it.offset))));
    }
    ends
}
