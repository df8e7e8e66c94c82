//! The partition that a coordinator reads what it keeps from, and writes it to.
//!
//! It owns the epoch in which that happens: nothing is written in another one.

use crate::partition::{
    AppendError, AppendOptions, Isolation, Partition, PartitionName, Pending, ReadRequest, Verified,
};
use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, BatchView, Batches, Error as RecordError, NewRecord, ProducerStamp,
    RECORDS_BYTES_MAX,
};

const READ_BYTES: usize = 1 << 20;
/// A batch is finished when its records take as much.
const BATCH_BYTES: usize = 1 << 20;

/// What a coordinator keeps: the latest record of each key.
pub trait Entry {
    fn key(&self) -> &[u8];

    /// None: what the key names is gone.
    fn value(&self) -> Option<&[u8]>;
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("the partition cannot be read: {0}")]
    Failed(String),
    #[error("the partition is not led here in this epoch")]
    NotLeader,
}

/// The partition of one coordinator, in one epoch.
pub struct Log {
    partition: Partition,
    epoch: LeaderEpoch,
}

impl Log {
    pub fn new(partition: Partition, epoch: LeaderEpoch) -> Self {
        Self { partition, epoch }
    }

    pub fn name(&self) -> PartitionName {
        self.partition.name().clone()
    }

    pub fn size_bytes(&self) -> u64 {
        self.partition.size_bytes()
    }

    pub fn segment_bytes(&self) -> u64 {
        self.partition.config().segment_bytes
    }

    /// Up to where everything is on all in-sync replicas.
    pub fn committed_end(&self) -> Offset {
        self.partition.watermarks().borrow().high_watermark
    }

    /// Gives every batch in the log to `replay`, with the offset from which on it counts, and returns when all of it is
    /// committed.
    pub async fn read(
        &self,
        replay: impl FnMut(&BatchView, Offset) -> Result<(), RecordError>,
    ) -> Result<Offset, Unread> {
        let stopped = |error: &dyn std::error::Error| Unread::Failed(error.to_string());
        self.partition.settled().await.map_err(|error| stopped(&error))?;
        if !self.partition.is_leader() || self.partition.leader_epoch() != self.epoch {
            return Err(Unread::NotLeader);
        }
        let mut watermarks = self.partition.watermarks();
        let (from, end) = {
            let now = watermarks.borrow_and_update();
            (now.log_start, now.log_end)
        };
        self.read_between(from, end, replay).await?;
        let committed = watermarks.wait_for(|now| now.high_watermark >= end).await;
        committed.map(|_| end).map_err(|error| stopped(&error))
    }

    /// Gives every batch between two offsets to `visit`, with the first of them, and no batch behind them.
    pub async fn read_between(
        &self,
        mut from: Offset,
        end: Offset,
        mut visit: impl FnMut(&BatchView, Offset) -> Result<(), RecordError>,
    ) -> Result<(), Unread> {
        let stopped = |error: &dyn std::error::Error| Unread::Failed(error.to_string());
        while from < end {
            let request = ReadRequest {
                from,
                max_bytes: READ_BYTES,
                isolation: Isolation::Uncommitted,
                min_one: true,
                current_epoch: Some(self.epoch),
                up_to_log_end: true,
            };
            let outcome = self
                .partition
                .read(request)
                .await
                .map_err(|error| stopped(&error))?;
            if outcome.next <= from {
                return Err(Unread::Failed(format!("nothing follows offset {from}")));
            }
            for batch in Batches::new(outcome.contiguous()) {
                let replayed = batch.and_then(|batch| match batch.base_offset() < end {
                    true => visit(&batch, from),
                    false => Ok(()),
                });
                replayed.map_err(|error| stopped(&error))?;
            }
            from = outcome.next;
        }
        Ok(())
    }

    /// Queues records as one batch of a transaction.
    pub async fn append_in(
        &self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        verified: Option<Verified>,
        records: &[impl Entry],
        now_ms: i64,
    ) -> Result<Pending, AppendError> {
        // Without a sequence: a commit that is repeated says the same once more.
        let mut builder = BatchBuilder::new(BatchOptions {
            producer: ProducerStamp {
                id: producer,
                epoch,
                base_sequence: -1,
            },
            transactional: true,
            ..BatchOptions::PLAIN
        });
        for record in records {
            push(&mut builder, record, now_ms)?;
        }
        let batch = finish(&mut builder)?;
        self.submit(batch, verified).await
    }

    /// Queues records as one; what is awaited afterwards says whether all in-sync replicas have them.
    pub async fn append(&self, records: &[impl Entry], now_ms: i64) -> Result<Pending, AppendError> {
        let mut batches = BytesMut::new();
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for record in records {
            if builder.plain_bytes() >= BATCH_BYTES {
                batches.extend_from_slice(&finish(&mut builder)?);
            }
            push(&mut builder, record, now_ms)?;
        }
        batches.extend_from_slice(&finish(&mut builder)?);
        self.submit(batches.freeze(), None).await
    }

    /// Queues any number of records, a batch at a time.
    pub async fn append_all(
        &self,
        records: impl Iterator<Item = impl Entry>,
        now_ms: i64,
    ) -> Vec<Result<Pending, AppendError>> {
        let mut appended = Vec::new();
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for record in records {
            if builder.plain_bytes() >= BATCH_BYTES {
                appended.push(self.append_batch(&mut builder).await);
            }
            if let Err(error) = push(&mut builder, &record, now_ms) {
                appended.push(Err(error));
                return appended;
            }
        }
        if !builder.is_empty() {
            appended.push(self.append_batch(&mut builder).await);
        }
        appended
    }

    async fn append_batch(&self, builder: &mut BatchBuilder) -> Result<Pending, AppendError> {
        let batch = finish(builder)?;
        self.submit(batch, None).await
    }

    async fn submit(&self, batches: Bytes, verified: Option<Verified>) -> Result<Pending, AppendError> {
        let options = AppendOptions {
            current_epoch: Some(self.epoch),
            verified,
            ..AppendOptions::OWN
        };
        self.partition.submit(batches, options).await
    }

    /// Makes everything before `from` go. If that fails, it goes another time.
    pub async fn forget(&self, from: Offset) {
        if let Err(error) = self.partition.forget(from).await {
            tracing::warn!(partition = %self.partition.name(), %error, "old offsets could not be deleted");
        }
    }
}

/// Shows the records of a batch from `from` on: a read begins with the whole batch that it lies in. A control batch has none.
pub fn each_record(
    batch: &BatchView,
    from: Offset,
    mut record: impl FnMut(Option<&[u8]>, Option<&[u8]>),
) -> Result<(), RecordError> {
    if batch.header().is_control() {
        return Ok(());
    }
    for found in &batch.records(RECORDS_BYTES_MAX)? {
        let found = found?;
        if batch.base_offset().plus(i64::from(found.offset_delta)) >= from {
            record(found.key, found.value);
        }
    }
    Ok(())
}

fn push(builder: &mut BatchBuilder, record: &impl Entry, now_ms: i64) -> Result<(), AppendError> {
    let record = NewRecord {
        timestamp_ms: now_ms,
        key: Some(record.key()),
        value: record.value(),
        headers: &[],
    };
    builder.append(&record).map_err(|error| unwritable(&error))
}

fn finish(builder: &mut BatchBuilder) -> Result<Bytes, AppendError> {
    let batch = builder.build().map_err(|error| unwritable(&error))?;
    Ok(batch.unwrap_or_default())
}

/// What cannot even be made into a batch is too large for one.
fn unwritable(error: &RecordError) -> AppendError {
    tracing::warn!(%error, "a coordinator's records cannot be written");
    AppendError::TooLarge {
        bytes: usize::MAX,
        limit: RECORDS_BYTES_MAX,
    }
}
