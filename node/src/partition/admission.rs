//! What a batch must be to be let in: whole, unchanged, of a size, a time and a shape that the topic allows.
//!
//! Runs in the caller's task, before the queue: what the owner of the partition gets is known to be good, so checking
//! never delays another connection's append. It changes a batch only where the topic stamps its own time. Pure, save
//! that `admit` moves the unfolding of large compressed batches to another thread.

use super::error::AppendError;
use super::request::{Marker, Origin};
use crate::config::TopicConfig;
use crate::config::topic::TimestampType;
use crate::sys::budget::Budget;
use crate::sys::task::Tasks;
use bytes::Bytes;
use headwater_protocol::record::{
    BatchBuilder, BatchHeader, BatchOptions, BatchView, Compression, Error as RecordError, NewRecord,
    ProducerStamp, Records,
};

/// What one compressed batch may unfold to.
const UNFOLDED_BYTES_MAX: usize = 64 << 20;
/// A compressed batch up to this size is unfolded where it is: that is quicker than a change of threads.
const INLINE_BYTES_MAX: usize = 4 << 10;
const INLINE_UNFOLDED_BYTES_MAX: usize = 256 << 10;
/// What a time is that was not given.
const NO_TIMESTAMP: i64 = -1;

/// Batches that were let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) batches: Vec<BatchView>,
    pub(super) bytes: usize,
    /// Set where the topic stamps the time of the append.
    pub(super) append_time_ms: Option<i64>,
}

/// Where unfolding is done, and how much of it at once. Shared by all partitions of a node.
#[derive(Debug, Clone)]
pub(super) struct Unfolding {
    tasks: Tasks,
    memory: Budget,
}

impl Unfolding {
    /// Lets `at_once` batches be unfolded at the same time.
    pub(super) fn new(tasks: Tasks, at_once: usize) -> Self {
        Self {
            tasks,
            memory: Budget::new(UNFOLDED_BYTES_MAX * at_once.max(1)),
        }
    }
}

/// Checks what a client sent for one partition. Nothing is changed or queued if the future is dropped.
pub(super) async fn admit(
    bytes: Bytes,
    origin: Origin,
    config: &TopicConfig,
    now_ms: i64,
    unfolding: &Unfolding,
) -> Result<Admitted, AppendError> {
    let total = bytes.len();
    let mut batches = split(bytes)?;
    let idempotent = batches.iter().any(|batch| batch.header().is_idempotent());
    if idempotent && batches.len() > 1 {
        // A retry could then be half a duplicate. Kafka refuses it, too.
        return Err(AppendError::InvalidRecord {
            index: 0,
            reason: "an idempotent producer sends one batch per partition and request",
        });
    }
    for batch in &batches {
        check_header(batch, origin, config, now_ms)?;
        if batch.header().compression() == Compression::None {
            let records = batch.records(usize::MAX).map_err(refused)?;
            check_records(&records, config, now_ms)?;
        } else {
            unfold_and_check(batch, config, now_ms, unfolding).await?;
        }
    }
    let append_time_ms = match config.timestamp_type {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => {
            batches = batches
                .into_iter()
                .map(|batch| batch.with_log_append_time(now_ms))
                .collect();
            Some(now_ms)
        }
    };
    Ok(Admitted {
        batches,
        bytes: total,
        append_time_ms,
    })
}

/// Whether batches that are sound would be let in, by the properties of the topic alone. May unfold them: to be called where that is no
/// hindrance.
pub(super) fn check_own(bytes: &Bytes, config: &TopicConfig, now_ms: i64) -> Result<(), AppendError> {
    let is_create_time = config.timestamp_type == TimestampType::CreateTime;
    for batch in split(bytes.clone())? {
        let bytes = batch.bytes().len();
        if bytes > config.max_message_bytes {
            return Err(AppendError::TooLarge {
                bytes,
                limit: config.max_message_bytes,
            });
        }
        if is_create_time {
            check_timestamp(batch.header().max_timestamp, config, now_ms)?;
        }
        if config.compacted || is_create_time && config.timestamp_before_max_ms != i64::MAX {
            let records = batch.records(UNFOLDED_BYTES_MAX).map_err(refused)?;
            check_records(&records, config, now_ms)?;
        }
    }
    Ok(())
}

/// Checks what a copy is made of: checksums, and offsets that rise without touching.
pub(super) fn admit_copy(bytes: Bytes) -> Result<Admitted, AppendError> {
    let total = bytes.len();
    let batches = split(bytes)?;
    for batch in &batches {
        batch.check_crc().map_err(refused)?;
    }
    for pair in batches.windows(2) {
        let (expected, found) = (pair[0].next_offset(), pair[1].base_offset());
        if found < expected {
            return Err(AppendError::NotContiguous { expected, found });
        }
    }
    Ok(Admitted {
        batches,
        bytes: total,
        append_time_ms: None,
    })
}

/// Makes the batch that ends a transaction.
pub(super) fn admit_marker(marker: Marker, now_ms: i64) -> Admitted {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer: ProducerStamp {
            id: marker.producer,
            epoch: marker.epoch,
            base_sequence: -1,
        },
        transactional: true,
        control: true,
        ..BatchOptions::PLAIN
    });
    let (key, value) = (marker.end.key(), marker.end.value());
    let record = NewRecord {
        timestamp_ms: now_ms,
        key: Some(&key),
        value: Some(&value),
        headers: &[],
    };
    builder.append(&record).expect("a marker is small");
    let bytes = builder.build().expect("a marker is small").expect("there is one");
    let batch = BatchView::parse(bytes).expect("the builder makes batches");
    Admitted {
        bytes: batch.bytes().len(),
        batches: vec![batch],
        append_time_ms: None,
    }
}

fn split(mut bytes: Bytes) -> Result<Vec<BatchView>, AppendError> {
    // Nearly always there is exactly one.
    let mut batches = Vec::with_capacity(1);
    while !bytes.is_empty() {
        batches.push(BatchView::split_from(&mut bytes).map_err(refused)?);
    }
    if batches.is_empty() {
        return Err(AppendError::Corrupt {
            reason: "there is no batch".to_owned(),
        });
    }
    Ok(batches)
}

fn check_header(
    batch: &BatchView,
    origin: Origin,
    config: &TopicConfig,
    now_ms: i64,
) -> Result<(), AppendError> {
    let bytes = batch.bytes().len();
    if bytes > config.max_message_bytes {
        return Err(AppendError::TooLarge {
            bytes,
            limit: config.max_message_bytes,
        });
    }
    let header = batch.header();
    // Commits in transactions bear the producer's stamp without a sequence: it is the coordinator that writes them.
    let is_unnumbered = header.is_transactional() && header.base_sequence < 0;
    let checked = match origin == Origin::Internal && is_unnumbered {
        true => batch.check_crc(),
        false => batch.check_produced(),
    };
    checked.map_err(refused)?;
    if config.timestamp_type == TimestampType::CreateTime {
        check_timestamp(header.max_timestamp, config, now_ms)?;
    }
    Ok(())
}

fn check_timestamp(timestamp_ms: i64, config: &TopicConfig, now_ms: i64) -> Result<(), AppendError> {
    let too_old = now_ms.saturating_sub(timestamp_ms) > config.timestamp_before_max_ms;
    let too_new = timestamp_ms.saturating_sub(now_ms) > config.timestamp_after_max_ms;
    if timestamp_ms != NO_TIMESTAMP && (too_old || too_new) {
        return Err(AppendError::InvalidTimestamp { timestamp_ms, now_ms });
    }
    Ok(())
}

/// Walks the records once: what a consumer could not read must not get into the log.
fn check_records(records: &Records, config: &TopicConfig, now_ms: i64) -> Result<(), AppendError> {
    let header: BatchHeader = *records.header();
    let check_times =
        config.timestamp_type == TimestampType::CreateTime && config.timestamp_before_max_ms != i64::MAX;
    if !config.compacted && !check_times {
        return records.check().map_err(refused);
    }
    for (index, record) in records.iter().enumerate() {
        let record = record.map_err(refused)?;
        if config.compacted && record.key.is_none() {
            return Err(AppendError::InvalidRecord {
                index,
                reason: "a compacted topic needs keys",
            });
        }
        if check_times {
            check_timestamp(header.timestamp_of(record.timestamp_delta), config, now_ms)?;
        }
    }
    records.check().map_err(refused)
}

async fn unfold_and_check(
    batch: &BatchView,
    config: &TopicConfig,
    now_ms: i64,
    unfolding: &Unfolding,
) -> Result<(), AppendError> {
    if batch.bytes().len() <= INLINE_BYTES_MAX {
        match batch.records(INLINE_UNFOLDED_BYTES_MAX) {
            Err(RecordError::TooLarge { .. }) => {}
            records => return check_records(&records.map_err(refused)?, config, now_ms),
        }
    }
    let permit = unfolding.memory.acquire(UNFOLDED_BYTES_MAX).await;
    let (batch, config) = (batch.clone(), config.clone());
    let checked = unfolding.tasks.blocking("unfold", move || {
        let records = batch.records(UNFOLDED_BYTES_MAX).map_err(refused)?;
        let checked = check_records(&records, &config, now_ms);
        drop((records, permit));
        checked
    });
    checked.await.unwrap_or(Err(AppendError::Stopped))
}

fn refused(error: RecordError) -> AppendError {
    match error {
        RecordError::UnsupportedMagic { magic } => AppendError::UnsupportedFormat { magic },
        RecordError::UnknownCompression { code } => AppendError::UnsupportedCompression {
            codec: i16::from(code),
        },
        RecordError::Incomplete { .. }
        | RecordError::InvalidLength { .. }
        | RecordError::Checksum { .. }
        | RecordError::Corrupt { .. }
        | RecordError::TooLarge { .. }
        | RecordError::Malformed { .. } => AppendError::Corrupt {
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
