//! What of the logs here is damaged: the node's book, and the repair of it as whoever fetches the records calls it.
//!
//! Whoever reads notes what he finds, and everybody who repairs or reports follows the book. It must never lose damage that
//! is there still, nor keep what the log has let go of.

use super::Partition;
use super::command::{Adopt, Command};
use super::error::{LookupError, Unavailable};
use super::shared::Shared;
use crate::log::{self, Damaged, LogReader, Other, Repair, RepairError, Repaired, Scrub, Scrubbed};
use crate::sys::disk;
use crate::sys::task::Tasks;
use headwater_protocol::ids::{Offset, PartitionIndex, TopicId};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// The damage in the logs of this node, by where it begins.
pub type Damages = BTreeMap<(TopicId, PartitionIndex), BTreeMap<Offset, Damaged>>;

/// Why a repair could not go on. It may be tried again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HealError {
    #[error(transparent)]
    Log(#[from] RepairError),
    #[error(transparent)]
    Partition(#[from] LookupError),
}

impl From<Unavailable> for HealError {
    fn from(error: Unavailable) -> Self {
        Self::Partition(error.into())
    }
}

impl Partition {
    /// What is damaged here, as far as it was read.
    pub fn damaged(&self) -> Vec<Damaged> {
        let damages = self.shared.means.damaged.borrow();
        let here = damages.get(&self.shared.key());
        here.map(|found| found.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether somebody else holds what is damaged here.
    pub fn can_be_repaired(&self) -> bool {
        self.shared.has_others()
    }

    /// Begins the repair of what is damaged. What is appended to is closed first. Changes nothing else.
    pub async fn begin_repair(&self, damaged: &Damaged) -> Result<(Repair, Offset), HealError> {
        let (from, until) = (damaged.from, damaged.until);
        let (reply, answer) = oneshot::channel();
        self.tell(Command::CloseSegment { from, until, reply }).await?;
        let until = answer.await.map_err(|_| Unavailable::Stopped)??;
        let damaged = Damaged {
            until,
            ..damaged.clone()
        };
        let reader = self.readable()?.clone();
        let config = self.config();
        let other = if config.compacted || self.may_be_compacted(damaged.from) {
            Other::Compacted
        } else {
            Other::Same
        };
        let begun = self.shared.means.tasks.blocking("repair", move || {
            reader.begin_repair(&damaged, config.segment_bytes, other)
        });
        let repair = begun.await.map_err(|_| Unavailable::Stopped)??;
        Ok((repair, until))
    }

    /// Runs a step of a repair where it may wait for the disk.
    pub async fn work_on_repair<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RepairError> + Send + 'static,
    ) -> Result<T, HealError> {
        let done = self.shared.means.tasks.blocking("repair", work).await;
        Ok(done.map_err(|_| Unavailable::Stopped)??)
    }

    /// Puts a repaired segment where it belongs. If the future is dropped, it may have happened.
    pub async fn adopt_repair(&self, repaired: Repaired) -> Result<(), HealError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Adopt(Box::new(Adopt { repaired, reply })))
            .await?;
        Ok(answer.await.map_err(|_| Unavailable::Stopped)??)
    }

    async fn tell(&self, command: Command) -> Result<(), Unavailable> {
        if let Some(reason) = self.offline() {
            return Err(Unavailable::Offline { reason });
        }
        let sent = self.shared.mailbox.send(command).await;
        sent.map_err(|_| Unavailable::Stopped)
    }
}

impl Shared {
    fn key(&self) -> (TopicId, PartitionIndex) {
        (self.name.topic_id, self.name.index)
    }

    /// Whether other nodes hold the partition, too.
    pub(super) fn has_others(&self) -> bool {
        self.live.load().leadership.replicas.len() > 1
    }

    /// Reads the log a step on where that may wait for the device, and takes note of what it meets. None: it cannot be read.
    pub(super) async fn scrub(&self, tasks: &Tasks, reader: &LogReader, at: Scrub) -> Option<Scrubbed> {
        let reader = reader.clone();
        match tasks.blocking("scrub", move || reader.scrub(at)).await {
            Ok(Ok(scrubbed)) => {
                if let Some(damaged) = &scrubbed.damaged {
                    self.note_damaged(damaged.clone());
                }
                Some(scrubbed)
            }
            Ok(Err(error)) => {
                tracing::error!(partition = %self.name, %error, "log cannot be scrubbed");
                self.note_read_error(&error);
                None
            }
            // The panic was logged where it happened.
            Err(_) => None,
        }
    }

    /// Takes note of what a read has met: damage is to be repaired, and a device that fails is not trusted any more.
    pub(super) fn note_read_error(&self, error: &log::ReadError) {
        match error {
            log::ReadError::Corrupt(damaged) => self.note_damaged(damaged.clone()),
            log::ReadError::Io { cause, .. } if !disk::is_short_of_means(cause) => {
                let reason = error.to_string();
                // Where there is no room, the next read tells it again.
                let _ = self.mailbox.try_send(Command::DiskFailed { reason });
            }
            log::ReadError::Io { .. } | log::ReadError::OutOfRange { .. } | log::ReadError::Stopped => {}
        }
    }

    /// Whether anything is damaged here, as far as it was read.
    pub(super) fn has_damage(&self) -> bool {
        self.means.damaged.borrow().contains_key(&self.key())
    }

    pub(super) fn note_damaged(&self, damaged: Damaged) {
        if self.watermarks.has_changed().is_err() {
            // The partition has ended, and its files may be on their way out.
            return;
        }
        let mut is_news = false;
        self.means.damaged.send_if_modified(|damages| {
            let here = damages.entry(self.key()).or_default();
            let covers = |known: &Damaged| known.from <= damaged.from && damaged.until <= known.until;
            is_news = !here.contains_key(&damaged.from) && !here.values().any(covers);
            if is_news {
                here.insert(damaged.from, damaged.clone());
            }
            is_news
        });
        if is_news {
            self.means.damaged_found.increment();
            tracing::error!(
                partition = %self.name,
                from = damaged.from.value(),
                until = damaged.until.value(),
                position = damaged.position,
                reason = damaged.reason,
                "log is damaged"
            );
        }
    }

    /// Forgets damage up to where a repair has reached.
    pub(super) fn note_repaired(&self, from: Offset, until: Offset) {
        self.change_damage(|damaged| {
            if damaged.from < from || damaged.from >= until {
                return Some(damaged);
            }
            let is_left = damaged.until > until;
            is_left.then_some(Damaged {
                from: until,
                ..damaged
            })
        });
    }

    /// Forgets damage in what the log does not hold any more.
    pub(super) fn forget_damage_outside(&self, start: Offset, end: Offset) {
        self.change_damage(|damaged| (damaged.until > start && damaged.from < end).then_some(damaged));
    }

    fn change_damage(&self, keep: impl Fn(Damaged) -> Option<Damaged>) {
        self.means.damaged.send_if_modified(|damages| {
            let Some(here) = damages.get_mut(&self.key()) else {
                return false;
            };
            let kept = here.values().cloned().filter_map(&keep);
            let kept: BTreeMap<Offset, Damaged> = kept.map(|damaged| (damaged.from, damaged)).collect();
            let has_changed = kept != *here;
            *here = kept;
            if here.is_empty() {
                damages.remove(&self.key());
            }
            has_changed
        });
    }
}
