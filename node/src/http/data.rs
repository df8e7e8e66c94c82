//! Records as JSON: keys and values as text where they are UTF-8, as base64 where they are not.

use crate::partition::ReadOutcome;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::{Batches, Error, RECORDS_BYTES_MAX, RecordRef};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes of a key, a value or a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Data {
    Utf8(String),
    /// Standard base64, with padding.
    Base64(String),
}

impl Data {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    pub(super) fn bytes(&self) -> Result<Bytes, base64::DecodeError> {
        match self {
            Self::Utf8(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64(text) => STANDARD.decode(text).map(Bytes::from),
        }
    }

    /// How long it is as it is written.
    fn text_bytes(&self) -> usize {
        match self {
            Self::Utf8(text) | Self::Base64(text) => text.len(),
        }
    }

    fn contains(&self, text: &str) -> bool {
        match self {
            Self::Utf8(own) => own.contains(text),
            Self::Base64(_) => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Header {
    pub name: String,
    #[schema(required)]
    pub value: Option<Data>,
}

/// One record as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct RecordView {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970; -1 where the record carries none.
    pub timestamp_ms: i64,
    #[schema(required)]
    pub key: Option<Data>,
    #[schema(required)]
    pub value: Option<Data>,
    pub headers: Vec<Header>,
}

impl RecordView {
    /// How much it holds, about.
    pub(super) fn bytes(&self) -> usize {
        self.key.iter().chain(&self.value).map(Data::text_bytes).sum()
    }

    /// Whether `text` occurs in the key or the value.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.key.iter().chain(&self.value).any(|data| data.contains(text))
    }

    fn of(partition: i32, offset: Offset, timestamp_ms: i64, record: &RecordRef<'_>) -> Self {
        let header = |header: headwater_protocol::record::Header<'_>| Header {
            name: String::from_utf8_lossy(header.key).into_owned(),
            value: header.value.map(Data::of),
        };
        Self {
            partition,
            offset: offset.0,
            timestamp_ms,
            key: record.key.map(Data::of),
            value: record.value.map(Data::of),
            headers: record.headers.filter_map(Result::ok).map(header).collect(),
        }
    }
}

/// What the records of one answer may hold, keys and values together; the first one comes whatever its size.
pub(super) const VIEW_BYTES_MAX: usize = 8 << 20;

/// The records in `found` from offset `from` on, at most `limit` and within `VIEW_BYTES_MAX`, and the offset to go
/// on at. Control batches are passed over: they hold marks, not records; and so is what was given up with
/// its transaction.
pub(super) fn decode(
    partition: i32,
    found: &ReadOutcome,
    from: Offset,
    limit: usize,
    keep: impl Fn(&RecordView) -> bool,
) -> Result<(Vec<RecordView>, Offset), Error> {
    let mut views: Vec<RecordView> = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    for batch in Batches::new(found.contiguous()) {
        let batch = batch?;
        let header = *batch.header();
        if header.is_control() || found.hides(&header) {
            next = next.max(header.next_offset());
            continue;
        }
        for record in batch.records(RECORDS_BYTES_MAX)?.iter() {
            let record = record?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            if offset < from {
                continue;
            }
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            if views.len() == limit || (bytes > VIEW_BYTES_MAX && !views.is_empty()) {
                return Ok((views, next));
            }
            let view = RecordView::of(
                partition,
                offset,
                header.timestamp_of(record.timestamp_delta),
                &record,
            );
            if keep(&view) {
                views.push(view);
            }
            next = offset.plus(1);
        }
        next = next.max(header.next_offset());
    }
    Ok((views, next))
}
