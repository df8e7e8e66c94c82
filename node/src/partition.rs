//! One partition's life on this node: admission of batches, offsets, durability, watermarks, reads.
//!
//! Owns the partition's log through one task (`actor`); this file is the handle. It never decodes a record that it
//! only forwards, and never answers for other partitions.

mod actor;
mod admission;
mod command;
mod compaction;
mod damage;
pub mod error;
mod followers;
mod in_sync;
mod open;
pub mod producers;
mod reader;
pub mod registry;
mod replica;
pub mod request;
mod shared;
pub mod state;
pub mod transactions;
mod waiters;

pub use crate::log::{Damaged, Repair};
pub use damage::{Damages, HealError};
pub use error::{
    AppendError, EpochError, Fault, LookupError, ReadError, ReplicaError, TicketError, Unavailable,
};
pub use followers::ReplicaFetch;
pub use in_sync::{FixedSets, InSyncChange, InSyncRefused, InSyncSets, Member, Proposing};
pub use registry::Registry;
pub use replica::FollowerProgress;
pub use request::{
    Acks, AppendOptions, Appended, EpochEnd, Isolation, LeaderMarks, Marker, OffsetFound, OffsetQuery,
    Origin, PartitionName, Pending, Position, ReadOutcome, ReadRequest, Ticket, Verified, Watermarks,
};
pub use shared::Failed;

use crate::config::TopicConfig;
use bytes::Bytes;
use command::{Append, Command, Kind, Reply};
use headwater_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use producers::ProducerDescription;
use shared::{Live, Shared};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{oneshot, watch};

/// The one internal topic that clients may write: the schema registry of other vendors' clients lives in it.
const OPEN_INTERNAL_TOPIC: &str = "_schemas";

/// A handle to one partition. Cheap to clone; outlives the partition, and then answers `Stopped`.
#[derive(Clone)]
pub struct Partition {
    shared: Arc<Shared>,
}

impl Partition {
    /// Which partition this is.
    pub fn name(&self) -> &PartitionName {
        &self.shared.name
    }

    /// Checks the batches and queues them: appends happen in the order in which `submit` returned. The answer comes
    /// when `options.acks` is satisfied. Waits while the queue is full, which is bounded in bytes. If the future is
    /// dropped before it returned, nothing happened; dropping what it returned undoes nothing.
    pub async fn submit(&self, batches: Bytes, options: AppendOptions) -> Result<Pending, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.produce(batches, options, Reply::Pending(reply)).await?;
        Ok(Pending { answer })
    }

    /// Appends, and returns when the batches are in the log; the ticket says when they are acknowledged. If the
    /// future is dropped, the append may have happened.
    pub async fn append(&self, batches: Bytes, options: AppendOptions) -> Result<Ticket, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.produce(batches, options, Reply::Ticket(reply)).await?;
        answer.await.unwrap_or(Err(AppendError::Stopped))
    }

    /// Appends batches of a copy, which keep their offsets: they must begin where the log ends, or behind it where
    /// the source has a gap. Only the leader epoch in their headers becomes ours. The ticket is complete when they
    /// are committed here. If the future is dropped, the append may have happened.
    pub async fn append_copy(&self, batches: Bytes) -> Result<Ticket, AppendError> {
        let live = self.shared.live.load_full();
        self.check_writable(&live)?;
        let admitted = admission::admit_copy(batches)?;
        let (reply, answer) = oneshot::channel();
        self.send(admitted, Kind::Copy, AppendOptions::OWN, Reply::Ticket(reply))
            .await?;
        answer.await.unwrap_or(Err(AppendError::Stopped))
    }

    async fn produce(&self, batches: Bytes, options: AppendOptions, reply: Reply) -> Result<(), AppendError> {
        let live = self.shared.live.load_full();
        let checked = self.check_producible(&live, options);
        if checked.is_err() {
            self.shared.meters.refused.increment();
        }
        checked?;
        let means = &self.shared.means;
        let admitted = admission::admit(
            batches,
            options.origin,
            &live.config,
            means.clock.unix_ms(),
            &means.unfolding,
        )
        .await;
        if admitted.is_err() {
            self.shared.meters.refused.increment();
        }
        self.send(admitted?, Kind::Produce, options, reply).await
    }

    /// Ends a transaction; returns when that is committed. A later marker of the same epoch ends nothing and does no harm. If the
    /// future is dropped, it may have happened.
    pub async fn end_transaction(&self, marker: Marker) -> Result<Appended, AppendError> {
        let live = self.shared.live.load_full();
        self.check_writable(&live)?;
        let now_ms = self.shared.means.clock.unix_ms();
        let (reply, answer) = oneshot::channel();
        let admitted = admission::admit_marker(marker, now_ms);
        self.send(admitted, Kind::Marker, AppendOptions::OWN, Reply::Pending(reply))
            .await?;
        answer.await.unwrap_or(Err(AppendError::Stopped))
    }

    /// Whether a producer's transaction is known to be open here; else what makes the coordinator's word for it worth
    /// something, if it is asked after this.
    pub fn transaction_of(&self, producer: ProducerId, epoch: ProducerEpoch) -> Result<(), Verified> {
        let at = self.shared.watermarks.borrow().log_end;
        let leader_epoch = self.leader_epoch();
        match self.shared.transactions().open.get(&producer) {
            Some(open) if *open == epoch => Ok(()),
            Some(_) | None => Err(Verified {
                epoch: leader_epoch,
                at,
            }),
        }
    }

    fn check_producible(&self, live: &Live, options: AppendOptions) -> Result<(), AppendError> {
        self.check_writable(live)?;
        state::check_epoch(options.current_epoch, live.leader_epoch)?;
        if let Some(link) = &live.mirror {
            return Err(AppendError::ReadOnlyMirror {
                link: link.to_string(),
            });
        }
        let is_closed = self.shared.internal && &*self.shared.name.topic != OPEN_INTERNAL_TOPIC;
        if is_closed && options.origin == Origin::Client {
            return Err(AppendError::Internal);
        }
        let (in_sync, required) = (live.leadership.isr.len(), live.config.min_insync_replicas);
        if options.acks == Acks::All && in_sync < required {
            return Err(AppendError::NotEnoughReplicas { in_sync, required });
        }
        Ok(())
    }

    fn check_writable(&self, live: &Live) -> Result<(), AppendError> {
        if let Some(reason) = &live.offline {
            return Err(AppendError::Offline {
                reason: reason.to_string(),
            });
        }
        if live.is_leader {
            Ok(())
        } else {
            Err(AppendError::NotLeader)
        }
    }

    async fn send(
        &self,
        admitted: admission::Admitted,
        kind: Kind,
        options: AppendOptions,
        reply: Reply,
    ) -> Result<(), AppendError> {
        let AppendOptions {
            acks,
            current_epoch,
            verified,
            ..
        } = options;
        let admitted_at = self.shared.means.clock.now();
        let permit = self.shared.room.acquire(admitted.bytes).await;
        let append = Append {
            admitted,
            kind,
            acks,
            current_epoch,
            verified,
            reply,
            permit,
            admitted_at,
        };
        self.shared
            .mailbox
            .send(Command::Append(Box::new(append)))
            .await
            .map_err(|_| AppendError::Stopped)
    }

    /// How far the partition is now, and every change of it, or of who leads it. Its sender goes when the partition stops.
    pub fn watermarks(&self) -> watch::Receiver<Watermarks> {
        self.shared.watermarks.clone()
    }

    /// Makes everything below `before` unreadable, durably; None: up to the high watermark. Returns the log start.
    /// If the future is dropped, it may have happened.
    pub async fn delete_records(&self, before: Option<Offset>) -> Result<Offset, LookupError> {
        self.ask(|reply| Command::DeleteRecords { before, reply }).await?
    }

    /// As `delete_records`, for whoever has written all of it: of a topic with any `cleanup.policy`.
    pub async fn forget(&self, before: Offset) -> Result<Offset, LookupError> {
        self.ask(|reply| Command::Forget { before, reply }).await?
    }

    /// The idempotent producers that are remembered here, by their ids. A follower knows them, too, as far as it has copied.
    pub async fn describe_producers(&self) -> Result<Vec<ProducerDescription>, Unavailable> {
        self.ask_task(|reply| Command::DescribeProducers { reply }).await
    }

    /// Returns when what the metadata said up to now has come to the partition: whether it leads, and in which epoch.
    pub async fn settled(&self) -> Result<(), Unavailable> {
        self.ask_task(|reply| Command::Settle { reply }).await
    }

    /// Empties a mirror and begins it anew at `offset`, durably. If the future is dropped, it may have happened.
    pub async fn restart_at(&self, offset: Offset) -> Result<(), LookupError> {
        self.ask(|reply| Command::RestartAt { offset, reply }).await?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Unavailable> {
        let live = self.shared.live.load_full();
        if let Some(reason) = &live.offline {
            return Err(Unavailable::Offline {
                reason: reason.to_string(),
            });
        }
        if !live.is_leader {
            return Err(Unavailable::NotLeader);
        }
        self.ask_task(command).await
    }

    /// Asks the partition's task, whether or not it leads.
    async fn ask_task<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.mailbox.send(command(reply)).await;
        sent.map_err(|_| Unavailable::Stopped)?;
        answer.await.map_err(|_| Unavailable::Stopped)
    }

    /// Keeps retention from removing what lies at `from` or behind it, as long as the log has `bytes_max` at most:
    /// somebody still has to read it. None: retention is free again. Not remembered over a restart.
    pub fn hold(&self, from: Option<Offset>, bytes_max: u64) {
        self.shared
            .hold_from
            .store(from.map_or(i64::MAX, Offset::value), Ordering::Relaxed);
        self.shared.hold_bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.shared.live.load().leader_epoch
    }

    /// Whether this node leads the partition.
    pub fn is_leader(&self) -> bool {
        self.shared.live.load().is_leader
    }

    /// Why the partition cannot be appended to until the next start, if so.
    pub fn offline(&self) -> Option<String> {
        self.shared.live.load().offline.as_ref().map(ToString::to_string)
    }

    /// Whether appends are refused for want of space.
    pub fn is_disk_full(&self) -> bool {
        self.shared.disk_full.load(Ordering::Relaxed)
    }

    /// Bytes of the log.
    pub fn size_bytes(&self) -> u64 {
        self.shared
            .reader
            .as_ref()
            .map_or(0, crate::log::LogReader::size_bytes)
    }

    /// The properties in force.
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.shared.live.load().config)
    }
}

/// Whether a partition with these properties would take batches that are sound: their size, their times, their keys. May take long:
/// compressed batches may be unfolded.
pub fn check_own(batches: &Bytes, config: &TopicConfig, now_ms: i64) -> Result<(), AppendError> {
    admission::check_own(batches, config, now_ms)
}

#[cfg(test)]
mod tests;
