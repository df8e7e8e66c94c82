//! One partition's life on this node: admission of batches, offsets, durability, watermarks, reads.
//!
//! Owns the partition's log through one task (`actor`); this file is the handle. It never decodes a record that it
//! only forwards, and never answers for other partitions.

pub mod error;
pub mod producers;
pub mod registry;
pub mod request;
pub mod state;

pub use error::{AppendError, EpochError, LookupError, ReadError, TicketError};
pub use registry::Registry;
pub use request::{
    Acks, AppendOptions, Appended, EpochEnd, Isolation, OffsetFound, OffsetQuery, Origin, PartitionName,
    Pending, ReadOutcome, ReadRequest, Ticket, Watermarks,
};

use crate::config::TopicConfig;
use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use std::sync::Arc;
use tokio::sync::watch;

/// A handle to one partition. Cheap to clone; outlives the partition, and then answers `Stopped`.
#[derive(Clone)]
pub struct Partition {
    shared: Arc<Shared>,
}

struct Shared {
    name: PartitionName,
    watermarks: watch::Receiver<Watermarks>,
}

impl Partition {
    /// Which partition this is.
    pub fn name(&self) -> &PartitionName {
        &self.shared.name
    }

    /// Checks the batches and queues them: appends happen in the order in which `submit` returned. The answer comes
    /// when `options.acks` is satisfied. Waits while the queue is full, which is bounded in bytes. If the future is
    /// dropped before it returned, nothing happened; dropping what it returned undoes nothing.
    pub async fn submit(&self, _batches: Bytes, _options: AppendOptions) -> Result<Pending, AppendError> {
        Err(AppendError::Stopped)
    }

    /// Appends, and returns when the batches are in the log; the ticket says when they are acknowledged. If the
    /// future is dropped, the append may have happened.
    pub async fn append(&self, _batches: Bytes, _options: AppendOptions) -> Result<Ticket, AppendError> {
        Err(AppendError::Stopped)
    }

    /// Appends batches of a copy, which keep their offsets: they must begin where the log ends, or behind it where
    /// the source has a gap. Only the leader epoch in their headers becomes ours.
    pub async fn append_copy(&self, _batches: Bytes) -> Result<Ticket, AppendError> {
        Err(AppendError::Stopped)
    }

    /// Reads whole batches from `request.from` on. Answers at once with nothing if nothing is there yet: whoever
    /// wants to wait watches `watermarks`.
    pub async fn read(&self, _request: ReadRequest) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::Stopped)
    }

    /// How far the partition is now, and every change of it.
    pub fn watermarks(&self) -> watch::Receiver<Watermarks> {
        self.shared.watermarks.clone()
    }

    /// Looks an offset up. None: no record is that late.
    pub async fn list_offset(
        &self,
        _query: OffsetQuery,
        _isolation: Isolation,
        _current_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<OffsetFound>, LookupError> {
        Err(LookupError::Stopped)
    }

    /// Where `epoch`, or the one before it that is known, ends.
    pub async fn epoch_end(
        &self,
        _epoch: LeaderEpoch,
        _current_epoch: Option<LeaderEpoch>,
    ) -> Result<EpochEnd, LookupError> {
        Err(LookupError::Stopped)
    }

    /// Makes everything below `before` unreadable, durably; None: up to the high watermark. Returns the log start.
    pub async fn delete_records(&self, _before: Option<Offset>) -> Result<Offset, LookupError> {
        Err(LookupError::Stopped)
    }

    /// Empties a copy and begins it anew at `offset`, durably.
    pub async fn restart_at(&self, _offset: Offset) -> Result<(), LookupError> {
        Err(LookupError::Stopped)
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(0)
    }

    /// Bytes of the log.
    pub fn size_bytes(&self) -> u64 {
        0
    }

    /// Keeps retention from removing what lies at `from` or behind it, as long as the log has `bytes_max` at most:
    /// somebody still has to read it. None: retention is free again. Not remembered over a restart.
    pub fn hold(&self, _from: Option<Offset>, _bytes_max: u64) {}

    /// The properties in force.
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::new(TopicConfig::resolve(
            &std::collections::BTreeMap::new(),
            &crate::config::BrokerConfig::new(Default::default()),
        ))
    }
}
