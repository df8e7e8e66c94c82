//! Records over HTTP: browse by offset, produce.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::partitioner;
use headwater_protocol::record::{BatchBuilder, BatchOptions, Compression, HeaderRef, NewRecord};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::data::{self, Data, RecordView};
use super::error::{ApiError, Body, ErrorBody, Path, Query};
use super::topics::find;
use crate::metadata::Topic;
use crate::partition::{
    Acks, AppendError, AppendOptions, Isolation, Origin, Partition, ReadError, ReadRequest, Unavailable,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Batches read per partition and request, before they are unpacked.
const READ_BYTES_MAX: usize = 1 << 20;
const PRODUCE_RECORDS_MAX: usize = 1000;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/topics/{topic}/records", get(browse).post(produce))
        .route("/topics/{topic}/tail", get(super::tail::tail))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct BrowseQuery {
    /// All partitions if absent.
    #[param(nullable = false)]
    pub partition: Option<i32>,
    /// `earliest`, `latest` (the newest ones), or an offset; `earliest` if absent.
    #[param(nullable = false, pattern = "^(earliest|latest|[0-9]{1,18})$")]
    pub offset: Option<String>,
    /// How many at most, over all partitions; 100 if absent, never more than 1000.
    #[param(nullable = false)]
    pub limit: Option<usize>,
    /// Only records whose key or value contains this text.
    #[param(nullable = false)]
    pub filter: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordPage {
    pub records: Vec<RecordView>,
    pub partitions: Vec<PagePosition>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PagePosition {
    pub partition: i32,
    /// Where the next page begins.
    pub next_offset: i64,
    pub high_watermark: i64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Produce {
    #[schema(min_items = 1, max_items = 1000)]
    pub records: Vec<ProduceRecord>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProduceRecord {
    /// By the key's hash if absent, as Kafka's clients do; without a key, the first one.
    pub partition: Option<i32>,
    pub key: Option<Data>,
    pub value: Option<Data>,
    #[serde(default)]
    pub headers: Vec<ProduceHeader>,
    /// Now if absent.
    pub timestamp_ms: Option<i64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProduceHeader {
    pub name: String,
    pub value: Option<Data>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Produced {
    /// One per record, in the order of the request.
    pub offsets: Vec<ProducedOffset>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct ProducedOffset {
    pub partition: i32,
    pub offset: i64,
}

#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/records", tag = "records", params(("topic" = String, Path), BrowseQuery),
    responses((status = 200, body = RecordPage), (status = 404, body = ErrorBody), (status = 500, body = ErrorBody), (status = 503, body = ErrorBody))
)]
pub(super) async fn browse(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<BrowseQuery>,
) -> Result<Json<RecordPage>, ApiError> {
    let topic = find(&api, &name)?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let partitions = chosen(&api, &topic, query.partition)?;
    let share = limit.div_ceil(partitions.len().max(1));
    let mut page = RecordPage {
        records: Vec::new(),
        partitions: Vec::new(),
    };
    let mut bytes = 0;
    for partition in partitions {
        let watermarks = *partition.watermarks().borrow();
        let from = begin(query.offset.as_deref(), &partition, share)?;
        // A page that is full says of the other partitions where they go on.
        let (records, next) = if bytes < data::VIEW_BYTES_MAX {
            read(&api, &partition, from, share, query.filter.clone()).await?
        } else {
            (Vec::new(), from)
        };
        bytes += records.iter().map(RecordView::bytes).sum::<usize>();
        page.partitions.push(PagePosition {
            partition: partition.name().index.0,
            next_offset: next.0,
            high_watermark: watermarks.high_watermark.0,
        });
        page.records.extend(records);
    }
    Ok(Json(page))
}

/// The partitions of the topic on this node, or the one asked for.
pub(super) fn chosen(api: &Api, topic: &Topic, index: Option<i32>) -> Result<Vec<Partition>, ApiError> {
    let wanted = topic
        .indexes()
        .filter(|each| index.is_none_or(|index| index == each.0));
    let found: Vec<_> = wanted
        .filter_map(|each| api.registry.get_by_id(topic.id, each))
        .collect();
    match (index, found.is_empty()) {
        (Some(index), true) => Err(ApiError::not_found(
            "UNKNOWN_PARTITION",
            format!("topic {:?} has no partition {index}", topic.name),
        )),
        (None, true) => Err(ApiError::unavailable(
            "NOT_HERE",
            "no partition of the topic is on this node",
        )),
        (Some(_) | None, false) => Ok(found),
    }
}

/// Where a page begins.
fn begin(offset: Option<&str>, partition: &Partition, share: usize) -> Result<Offset, ApiError> {
    let watermarks = *partition.watermarks().borrow();
    match offset.unwrap_or("earliest") {
        "earliest" => Ok(watermarks.log_start),
        "latest" => {
            let share = i64::try_from(share).unwrap_or(i64::MAX);
            Ok(Offset(watermarks.high_watermark.0.saturating_sub(share)).max(watermarks.log_start))
        }
        number => match number.parse::<i64>() {
            // Below the start means the start: what a person scrolling back expects.
            Ok(offset) if offset >= 0 => Ok(Offset(offset).max(watermarks.log_start)),
            Ok(_) | Err(_) => Err(ApiError::bad_request(
                "INVALID_OFFSET",
                format!("offset {number:?} is none: earliest, latest or a number that is not negative"),
            )),
        },
    }
}

/// Records from `from` on, decoded off the runtime's own threads: a batch may hold megabytes, compressed.
pub(super) async fn read(
    api: &Api,
    partition: &Partition,
    from: Offset,
    limit: usize,
    filter: Option<String>,
) -> Result<(Vec<RecordView>, Offset), ApiError> {
    let request = ReadRequest {
        from,
        max_bytes: READ_BYTES_MAX,
        isolation: Isolation::Committed,
        min_one: true,
        current_epoch: None,
        up_to_log_end: false,
    };
    let watermarks = *partition.watermarks().borrow();
    if from >= watermarks.last_stable {
        return Ok((Vec::new(), from));
    }
    let found = partition.read(request).await.map_err(read_error)?;
    let index = partition.name().index.0;
    let decode = move || {
        let keep = |view: &RecordView| filter.as_ref().is_none_or(|text| view.contains(text));
        data::decode(index, &found, from, limit, keep)
    };
    let decoded = api.sys.tasks.blocking("decode", decode).await;
    let decoded = decoded.map_err(|_| ApiError::unavailable("STOPPING", "the node is stopping"))?;
    decoded.map_err(|error| {
        ApiError::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "CORRUPT_BATCH",
            error.to_string(),
        )
    })
}

fn read_error(error: ReadError) -> ApiError {
    let message = error.to_string();
    match error {
        ReadError::OutOfRange { .. } => ApiError::bad_request("OFFSET_OUT_OF_RANGE", message),
        ReadError::NotYet { .. } => ApiError::unavailable("OFFSET_NOT_AVAILABLE", message),
        ReadError::Unavailable(Unavailable::NotLeader | Unavailable::Epoch(_)) => {
            ApiError::unavailable("NOT_LEADER", message)
        }
        ReadError::Unavailable(Unavailable::Stopped) => ApiError::unavailable("STOPPING", message),
        ReadError::Corrupt { .. } | ReadError::Unavailable(Unavailable::Offline { .. }) => {
            ApiError::unavailable("PARTITION_OFFLINE", message)
        }
    }
}

#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/records", tag = "records", params(("topic" = String, Path)),
    request_body = Produce,
    responses((status = 200, body = Produced), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 507, body = ErrorBody))
)]
pub(super) async fn produce(
    State(api): State<Api>,
    Path(name): Path<String>,
    Body(body): Body<Produce>,
) -> Result<Json<Produced>, ApiError> {
    let topic = find(&api, &name)?;
    if body.records.is_empty() || body.records.len() > PRODUCE_RECORDS_MAX {
        return Err(ApiError::bad_request(
            "INVALID_RECORDS",
            format!(
                "{} records; between 1 and {PRODUCE_RECORDS_MAX} are taken",
                body.records.len()
            ),
        ));
    }
    let records = body
        .records
        .iter()
        .map(|record| Encoded::of(record, &topic))
        .collect::<Result<Vec<_>, _>>()?;
    let mut by_partition: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        by_partition.entry(record.partition).or_default().push(at);
    }
    let mut offsets = vec![
        ProducedOffset {
            partition: 0,
            offset: 0
        };
        records.len()
    ];
    // Looked up before anything is written: a partition that is not there refuses all of it.
    let mut batches = Vec::with_capacity(by_partition.len());
    for (partition, indexes) in by_partition {
        let here = partition_of(&api, &topic, partition)?;
        let chosen = indexes.iter().filter_map(|&at| records.get(at));
        batches.push((here, partition, batch(&api, chosen)?, indexes));
    }
    for (here, partition, batch, indexes) in batches {
        let base = append(&here, batch).await?;
        for (delta, &at) in (0..).zip(&indexes) {
            offsets[at] = ProducedOffset {
                partition,
                offset: base.0 + delta,
            };
        }
    }
    Ok(Json(Produced { offsets }))
}

/// A record as it will lie in a batch.
struct Encoded {
    partition: i32,
    key: Option<bytes::Bytes>,
    value: Option<bytes::Bytes>,
    headers: Vec<(String, Option<bytes::Bytes>)>,
    timestamp_ms: Option<i64>,
}

impl Encoded {
    fn of(record: &ProduceRecord, topic: &Topic) -> Result<Self, ApiError> {
        let key = plain(record.key.as_ref())?;
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX).max(1);
        let by_key = |key: &bytes::Bytes| partitioner::partition_for_key(key, count);
        // Below the number of partitions, which is an i32 on the wire.
        let partition = record
            .partition
            .unwrap_or_else(|| key.as_ref().map_or(0, by_key) as i32);
        let headers = record
            .headers
            .iter()
            .map(|header| Ok((header.name.clone(), plain(header.value.as_ref())?)));
        Ok(Self {
            partition,
            value: plain(record.value.as_ref())?,
            headers: headers.collect::<Result<_, ApiError>>()?,
            timestamp_ms: record.timestamp_ms,
            key,
        })
    }
}

fn plain(data: Option<&Data>) -> Result<Option<bytes::Bytes>, ApiError> {
    let decoded = data.map(Data::bytes).transpose();
    decoded.map_err(|error| ApiError::bad_request("INVALID_BASE64", error.to_string()))
}

fn partition_of(api: &Api, topic: &Topic, index: i32) -> Result<Partition, ApiError> {
    let here = api.registry.get_by_id(topic.id, PartitionIndex(index));
    here.ok_or_else(|| {
        ApiError::not_found(
            "UNKNOWN_PARTITION",
            format!("topic {:?} has no partition {index} here", topic.name),
        )
    })
}

/// One batch of all the records.
fn batch<'a>(api: &Api, records: impl Iterator<Item = &'a Encoded>) -> Result<bytes::Bytes, ApiError> {
    let now_ms = api.sys.clock.unix_ms();
    let mut builder = BatchBuilder::new(BatchOptions::compressed(Compression::None));
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| HeaderRef {
                key: name,
                value: value.as_deref(),
            })
            .collect();
        let new = NewRecord {
            timestamp_ms: record.timestamp_ms.unwrap_or(now_ms),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder
            .append(&new)
            .map_err(|error| ApiError::bad_request("INVALID_RECORD", error.to_string()))?;
    }
    let batch = builder
        .build()
        .map_err(|error| ApiError::bad_request("INVALID_RECORD", error.to_string()))?;
    batch.ok_or_else(|| ApiError::bad_request("INVALID_RECORDS", "no record was given"))
}

async fn append(here: &Partition, batch: bytes::Bytes) -> Result<Offset, ApiError> {
    let options = AppendOptions {
        acks: Acks::All,
        current_epoch: None,
        origin: Origin::Client,
        verified: None,
    };
    let ticket = here.append(batch, options).await.map_err(append_error)?;
    let appended = ticket
        .done()
        .await
        .map_err(|error| append_error(AppendError::Unacknowledged(error)))?;
    Ok(appended.base_offset)
}

fn append_error(error: AppendError) -> ApiError {
    let message = error.to_string();
    match error {
        AppendError::DiskFull => {
            ApiError::new(axum::http::StatusCode::INSUFFICIENT_STORAGE, "DISK_FULL", message)
                .hint("Free space, or lower retention. Reads go on.")
        }
        AppendError::ReadOnlyMirror { .. } | AppendError::Internal => {
            ApiError::conflict("READ_ONLY", message)
        }
        AppendError::TooLarge { .. } => ApiError::new(
            axum::http::StatusCode::PAYLOAD_TOO_LARGE,
            "MESSAGE_TOO_LARGE",
            message,
        ),
        AppendError::NotLeader
        | AppendError::Epoch(_)
        | AppendError::NotEnoughReplicas { .. }
        | AppendError::Offline { .. }
        | AppendError::Unread { .. }
        | AppendError::Stopped
        | AppendError::Unacknowledged(_) => ApiError::unavailable("NOT_ACKNOWLEDGED", message),
        AppendError::Corrupt { .. }
        | AppendError::UnsupportedFormat { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidProducerEpoch { .. }
        | AppendError::InvalidTimestamp { .. }
        | AppendError::InvalidRecord { .. }
        | AppendError::UnsupportedCompression { .. }
        | AppendError::InvalidTransaction(_)
        | AppendError::CoordinatorFenced { .. }
        | AppendError::NotContiguous { .. } => ApiError::bad_request("INVALID_RECORD", message),
    }
}
