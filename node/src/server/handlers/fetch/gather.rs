//! Looks at the partitions of a fetch, one by one, and keeps what they gave within the fetch's limits.
//!
//! A partition that has nothing new is not read at all: its watermarks say so.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use headwater_protocol::kafka::ErrorCode;

use super::Limits;
use super::origin::Origin;
use crate::partition::transactions::Aborted;
use crate::partition::{
    EpochEnd, Isolation, Partition, ReadError, ReadRequest, ReplicaFetch, Unavailable, Watermarks,
};
use crate::server::errors;
use crate::server::request::Context;
use crate::server::sessions::{FetchSession, Slot, TopicKey, Wanted};
use crate::sys::budget::Permit;
use crate::sys::pace::Pace;
use headwater_protocol::ids::PartitionIndex;

/// What one read takes from the budget at most before it is known how much there is.
const ASK_BYTES: usize = 1 << 20;

/// What was found in one partition.
pub(super) struct Found {
    pub(super) code: ErrorCode,
    pub(super) records: Vec<Bytes>,
    /// Of the transactions in `records`, those that were given up.
    pub(super) aborted: Vec<Aborted>,
    bytes: usize,
    pub(super) high_watermark: Offset,
    pub(super) last_stable: Offset,
    pub(super) log_start: Offset,
    /// Where the client's history and ours part.
    pub(super) diverging: Option<EpochEnd>,
    pub(super) isolation: Isolation,
    /// The follower that should be asked instead.
    pub(super) preferred: Option<NodeId>,
    /// A replica has to act on it before it can go on.
    acts: bool,
    /// There may be more, or something else to say, although the partition does not move.
    again: bool,
}

impl Found {
    /// Whether a replica names the partition anew when it is done with what it got.
    pub(super) fn is_to_be_dealt_with(&self) -> bool {
        self.acts
    }

    /// Whether the next fetch looks at the partition even if it does not move meanwhile. One that is to be dealt with is
    /// named before.
    pub(super) fn is_to_be_looked_at_again(&self) -> bool {
        self.again && !self.acts
    }
}

/// Whether a slot is looked at for the first time in this fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    First,
    Again,
}

/// One fetch at work.
pub(super) struct Gather<'a> {
    context: &'a Context,
    limits: Limits,
    /// By slot, where somebody looked.
    found: BTreeMap<usize, Found>,
    bytes: usize,
    /// Something is to be said at once: an error, or a parting of histories.
    urgent: bool,
    permit: Option<Permit>,
    /// A replica does not know yet how far all is committed.
    watermark_to_tell: bool,
}

impl<'a> Gather<'a> {
    pub(super) fn new(context: &'a Context, limits: Limits) -> Self {
        Self {
            context,
            limits,
            found: BTreeMap::new(),
            bytes: 0,
            urgent: false,
            permit: None,
            watermark_to_tell: false,
        }
    }

    pub(super) fn has_watermark_to_tell(&self) -> bool {
        self.watermark_to_tell
    }

    pub(super) fn wants_more(&self) -> bool {
        self.bytes < self.limits.bytes_min && !self.urgent
    }

    pub(super) fn looked_at(&self) -> impl Iterator<Item = usize> {
        self.found.keys().copied()
    }

    pub(super) fn finish(self) -> (BTreeMap<usize, Found>, Option<Permit>) {
        (self.found, self.permit)
    }

    /// Looks at one slot, for the first time or again.
    pub(super) async fn look(&mut self, session: &mut FetchSession, at: usize, look: Look) {
        let before = self.found.remove(&at).map_or(0, |found| found.bytes);
        self.bytes -= before;
        let (key, slot) = session
            .slots
            .get_index_mut(at)
            .expect("the slot is one of the session's");
        let told = slot.told;
        let mut found = match self.read(key, slot, look).await {
            Ok(found) => found,
            Err(code) => {
                // It may have gone, or have come back under the same name: look it up anew next time.
                slot.partition = None;
                self.nothing(code, None)
            }
        };
        self.bytes += found.bytes;
        let is_urgent = found.code != ErrorCode::NONE || found.diverging.is_some();
        self.urgent |= is_urgent || found.preferred.is_some();
        found.again |= is_urgent || found.preferred.is_some();
        if self.limits.origin.is_replica() {
            // What it asked before the partition moved says nothing of it as it is now: its next fetch does.
            found.again |= look == Look::Again;
            found.acts = is_urgent || found.bytes > 0;
            self.watermark_to_tell |= told.is_some_and(|told| told.high_watermark < found.high_watermark);
        }
        self.found.insert(at, found);
    }

    async fn read(&mut self, key: &(TopicKey, i32), slot: &mut Slot, look: Look) -> Result<Found, ErrorCode> {
        let wanted = slot.wanted;
        if slot
            .partition
            .as_ref()
            .is_none_or(|(_, watermarks)| watermarks.has_changed().is_err())
        {
            slot.partition = None;
        }
        let (partition, watermarks) = match &mut slot.partition {
            Some(known) => known,
            none => {
                let partition = self.find(key)?;
                let watermarks = partition.watermarks();
                if watermarks.has_changed().is_err() {
                    // Nothing moves in it any more: waiting for news would be waiting for nothing, without rest.
                    return Err(errors::of_read(&gone(&partition).into()));
                }
                none.insert((partition, watermarks))
            }
        };
        // Seen before anything else is: what changes from here on is looked at again.
        let marks = *watermarks.borrow_and_update();
        let is_led_here = partition.is_leader();
        if !is_led_here && !self.limits.origin.may_read_from_follower() {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        check_epoch(partition, wanted.current_epoch)?;
        if let Some(preferred) = self
            .limits
            .origin
            .preferred(self.context, partition, wanted.offset)
        {
            return Ok(Found {
                preferred: Some(preferred),
                ..self.nothing(ErrorCode::NONE, Some(marks))
            });
        }
        if let Some(end) = diverging(partition, wanted).await? {
            return Ok(Found {
                diverging: Some(end),
                ..self.nothing(ErrorCode::NONE, Some(marks))
            });
        }
        if look == Look::First
            && let Some(fetch) = self.replica_fetch(wanted, marks)
        {
            partition.replica_fetched(fetch);
        }
        let visible = match self.limits.isolation {
            _ if self.limits.origin.is_replica() => marks.log_end,
            Isolation::Committed => marks.last_stable,
            Isolation::Uncommitted => marks.high_watermark,
        };
        // Between what is visible and the end there is nothing to read yet, and it is no error to wait there.
        if (visible..=marks.log_end).contains(&wanted.offset) {
            return Ok(self.nothing(ErrorCode::NONE, Some(marks)));
        }
        let room = self
            .limits
            .bytes_max
            .saturating_sub(self.bytes)
            .min(wanted.bytes_max);
        if room == 0 && self.bytes > 0 {
            return Ok(self.later(marks));
        }
        let partition = partition.clone();
        self.read_paced(&partition, wanted, room, marks).await
    }

    /// Reads no more than a replica that is held up may be given by now.
    async fn read_paced(
        &mut self,
        partition: &Partition,
        wanted: Wanted,
        room: usize,
        marks: Watermarks,
    ) -> Result<Found, ErrorCode> {
        let Some(rate) = self.throttle(partition) else {
            return self.read_log(partition, wanted, room, marks).await;
        };
        let now = self.context.services().sys.clock.now();
        let allowance = self.pace().allowance(rate, now);
        let room = room.min(usize::try_from(allowance).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(self.later(marks));
        }
        let found = self.read_log(partition, wanted, room, marks).await?;
        self.pace().spend(found.bytes as u64);
        Ok(found)
    }

    /// How many bytes a second this replica is given; None: as fast as it goes. In sync it is never held up.
    fn throttle(&self, partition: &Partition) -> Option<u64> {
        let Origin::Replica { node, .. } = self.limits.origin else {
            return None;
        };
        let services = self.context.services();
        let throttled = &partition.config().leader_throttled;
        let is_named = throttled.names(partition.name().index, services.node_id());
        if !is_named || partition.leadership().isr.contains(&node) {
            return None;
        }
        services.broker(&services.view.image()).leader_throttle()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        let pace = &self.context.caller.shared.catching_up;
        pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_log(
        &mut self,
        partition: &Partition,
        wanted: Wanted,
        room: usize,
        marks: Watermarks,
    ) -> Result<Found, ErrorCode> {
        let Some(mut permit) = self.ask(room).await else {
            return Ok(self.later(marks));
        };
        let request = ReadRequest {
            from: wanted.offset,
            max_bytes: room.min(permit.bytes()),
            isolation: self.limits.isolation,
            // The first batch of an answer comes whatever its size: a client with small limits gets on.
            min_one: self.bytes == 0,
            current_epoch: wanted.current_epoch,
            up_to_log_end: self.limits.origin.is_replica(),
        };
        match partition.read(request).await {
            Ok(outcome) => {
                permit.shrink_to(outcome.bytes);
                match &mut self.permit {
                    Some(held) => held.merge(permit),
                    none => *none = Some(permit),
                }
                let seen = self.nothing(ErrorCode::NONE, Some(outcome.watermarks));
                // There was something to read: what of it had no room is looked for again, though nothing moves.
                Ok(Found {
                    records: outcome.records,
                    aborted: outcome.aborted,
                    bytes: outcome.bytes,
                    again: true,
                    ..seen
                })
            }
            Err(error @ ReadError::OutOfRange { .. }) => {
                Ok(self.nothing(errors::of_read(&error), Some(marks)))
            }
            Err(error) => Err(errors::of_read(&error)),
        }
    }

    /// What the leader learns of a replica by its fetch: it has all that lies below, and the same as is here.
    fn replica_fetch(&self, wanted: Wanted, marks: Watermarks) -> Option<ReplicaFetch> {
        let Origin::Replica { node, epoch } = self.limits.origin else {
            return None;
        };
        if !(marks.log_start..=marks.log_end).contains(&wanted.offset) {
            return None;
        }
        Some(ReplicaFetch {
            replica: node,
            broker_epoch: epoch,
            leader_epoch: wanted.current_epoch?,
            offset: wanted.offset,
            log_start: wanted.log_start,
            log_end: marks.log_end,
            at: self.context.received,
        })
    }

    /// Takes memory for a read. When there is none, a fetch that has something already answers with that; one that
    /// has nothing waits, unless its client is gone.
    async fn ask(&self, room: usize) -> Option<Permit> {
        let answers = &self.context.caller.shared.answers;
        if let Some(permit) = answers.try_acquire(room.max(1)) {
            return Some(permit);
        }
        if self.bytes > 0 {
            return None;
        }
        tokio::select! {
            biased;
            () = self.context.caller.hurry.cancelled() => None,
            permit = answers.acquire(room.clamp(1, ASK_BYTES)) => Some(permit),
        }
    }

    fn find(&self, (topic, index): &(TopicKey, i32)) -> Result<Partition, ErrorCode> {
        let services = self.context.services();
        let found = match topic {
            TopicKey::Name(name) => services.registry.get(name, PartitionIndex(*index)),
            TopicKey::Id(id) => services.registry.get_by_id(*id, PartitionIndex(*index)),
        };
        found.ok_or_else(|| match topic {
            TopicKey::Name(name) => errors::absent_name(&services.view, name, *index, services.node_id()),
            TopicKey::Id(id) => match services.view.topic_by_id(*id) {
                Some(topic) => errors::absent(Some(&topic), *index, services.node_id()),
                None => ErrorCode::UNKNOWN_TOPIC_ID,
            },
        })
    }

    /// There is something, but no room for it in this answer.
    fn later(&self, marks: Watermarks) -> Found {
        Found {
            again: true,
            ..self.nothing(ErrorCode::NONE, Some(marks))
        }
    }

    fn nothing(&self, code: ErrorCode, marks: Option<Watermarks>) -> Found {
        let unknown = Offset(-1);
        Found {
            code,
            records: Vec::new(),
            aborted: Vec::new(),
            bytes: 0,
            high_watermark: marks.map_or(unknown, |marks| marks.high_watermark),
            last_stable: marks.map_or(unknown, |marks| marks.last_stable),
            log_start: marks.map_or(unknown, |marks| marks.log_start),
            diverging: None,
            isolation: self.limits.isolation,
            preferred: None,
            acts: false,
            again: false,
        }
    }
}

/// Why a partition without a task gives nothing.
fn gone(partition: &Partition) -> Unavailable {
    match partition.offline() {
        Some(reason) => Unavailable::Offline { reason },
        None => Unavailable::Stopped,
    }
}

/// The client's idea of who leads must be ours (KIP-320).
fn check_epoch(partition: &Partition, asked: Option<LeaderEpoch>) -> Result<(), ErrorCode> {
    let current = partition.leader_epoch();
    match asked {
        Some(asked) if asked < current => Err(ErrorCode::FENCED_LEADER_EPOCH),
        Some(asked) if asked > current => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
        Some(_) | None => Ok(()),
    }
}

/// Where the history that the client has seen and ours part, if they do (KIP-595).
async fn diverging(partition: &Partition, wanted: Wanted) -> Result<Option<EpochEnd>, ErrorCode> {
    let Some(last) = wanted.last_epoch else {
        return Ok(None);
    };
    let end = partition
        .epoch_end(last, wanted.current_epoch)
        .await
        .map_err(|error| errors::of_lookup(&error))?;
    let parts = end.epoch < last || end.end < wanted.offset;
    Ok(parts.then_some(end))
}
