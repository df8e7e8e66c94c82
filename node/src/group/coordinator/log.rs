//! The partition that a coordinator reads its groups from and writes them to.
//!
//! It owns the epoch in which that happens: nothing is written in another one.

use super::Lost;
use crate::group::store::{GroupRecord, Replay};
use crate::partition::{
    Acks, AppendError, AppendOptions, Isolation, Origin, Partition, PartitionName, Pending, ReadRequest,
};
use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, BatchView, Batches, Error as RecordError, NewRecord, RECORDS_BYTES_MAX,
};

const READ_BYTES: usize = 1 << 20;
/// A batch is finished when its records take as much.
const BATCH_BYTES: usize = 1 << 20;

pub(super) struct Log {
    partition: Partition,
    epoch: LeaderEpoch,
}

impl Log {
    pub(super) fn new(partition: Partition, epoch: LeaderEpoch) -> Self {
        Self { partition, epoch }
    }

    pub(super) fn name(&self) -> PartitionName {
        self.partition.name().clone()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.partition.size_bytes()
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.partition.config().segment_bytes
    }

    /// Up to where everything is on all in-sync replicas.
    pub(super) fn committed_end(&self) -> Offset {
        self.partition.watermarks().borrow().high_watermark
    }

    /// Gives everything in the log to `replay`, and returns when all of it is committed.
    pub(super) async fn read(&self, replay: &mut Replay) -> Result<(), Lost> {
        let stopped = |error: &dyn std::error::Error| Lost::Read(error.to_string());
        self.partition.settled().await.map_err(|error| stopped(&error))?;
        if !self.partition.is_leader() || self.partition.leader_epoch() != self.epoch {
            return Err(Lost::NotLeader);
        }
        let mut watermarks = self.partition.watermarks();
        let (mut from, end) = {
            let now = watermarks.borrow_and_update();
            (now.log_start, now.log_end)
        };
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
                return Err(Lost::Read(format!("nothing follows offset {from}")));
            }
            for batch in Batches::new(outcome.contiguous()) {
                let replayed = batch.and_then(|batch| replay_batch(&batch, from, replay));
                replayed.map_err(|error| stopped(&error))?;
            }
            from = outcome.next;
        }
        let committed = watermarks.wait_for(|now| now.high_watermark >= end).await;
        committed.map(|_| ()).map_err(|error| stopped(&error))
    }

    /// Queues records as one; what is awaited afterwards says whether all in-sync replicas have them.
    pub(super) async fn append(
        &self,
        records: Vec<GroupRecord>,
        now_ms: i64,
    ) -> Result<Pending, AppendError> {
        let mut batches = BytesMut::new();
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for record in &records {
            if builder.plain_bytes() >= BATCH_BYTES {
                batches.extend_from_slice(&finish(&mut builder)?);
            }
            push(&mut builder, record, now_ms)?;
        }
        batches.extend_from_slice(&finish(&mut builder)?);
        self.submit(batches.freeze()).await
    }

    /// Queues any number of records, a batch at a time.
    pub(super) async fn append_all(
        &self,
        records: impl Iterator<Item = GroupRecord>,
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
        self.submit(batch).await
    }

    async fn submit(&self, batches: Bytes) -> Result<Pending, AppendError> {
        let options = AppendOptions {
            acks: Acks::All,
            current_epoch: Some(self.epoch),
            origin: Origin::Internal,
        };
        self.partition.submit(batches, options).await
    }

    /// Makes everything before `from` go. If that fails, it goes another time.
    pub(super) async fn forget(&self, from: Offset) {
        if let Err(error) = self.partition.forget(from).await {
            tracing::warn!(partition = %self.partition.name(), %error, "old offsets could not be deleted");
        }
    }
}

/// A read begins with the whole batch that `from` lies in.
fn replay_batch(batch: &BatchView, from: Offset, replay: &mut Replay) -> Result<(), RecordError> {
    if batch.header().is_control() {
        return Ok(());
    }
    for record in &batch.records(RECORDS_BYTES_MAX)? {
        let record = record?;
        if batch.base_offset().plus(i64::from(record.offset_delta)) >= from {
            replay.record(record.key, record.value);
        }
    }
    Ok(())
}

fn push(builder: &mut BatchBuilder, record: &GroupRecord, now_ms: i64) -> Result<(), AppendError> {
    let record = NewRecord {
        timestamp_ms: now_ms,
        key: Some(&record.key),
        value: record.value.as_deref(),
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
    tracing::warn!(%error, "a group's records cannot be written");
    AppendError::TooLarge {
        bytes: usize::MAX,
        limit: RECORDS_BYTES_MAX,
    }
}
