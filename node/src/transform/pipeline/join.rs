//! A pipeline of two sources: both are read, in the order of their times as far as both have records, and what comes of joining
//! them is what the module is given.
//!
//! It owns the position in the second source. A step is handed over as a whole, when the module has dealt with all of it: outputs,
//! changes of state, and both positions.

use std::sync::Arc;

use headwater_protocol::ids::Offset;

use super::super::changelog::{Changes, Right};
use super::super::join::{Joiner, KeyAt, Side};
use super::super::outside::{Outside, Read};
use super::super::state_log::Outputs;
use super::super::taken_up::{Second, TakenUp, restore_join};
use super::super::worker::{Blame, JoinParts, Ran, Worker};
use super::{End, Forever, Pipeline, STATE_BYTES_MAX, refusal, totals};
use crate::metadata::{Delivery, Join, JoinWith, StartAt, Transform};
use crate::partition::{Partition, PartitionName, Watermarks};
use tokio::sync::watch;

/// The second source of a pipeline.
pub(crate) struct RightSource {
    pub(crate) name: PartitionName,
    /// A replica of it, if one is here: it tells when there is more.
    pub(crate) here: Option<Partition>,
    pub(crate) join: Join,
}

impl RightSource {
    /// As far as a state depends on it.
    pub(super) fn second(&self) -> Second<'_> {
        Second {
            source: self.name.topic_id,
            join: &self.join,
        }
    }

    /// Where a join begins in it, if nothing is known: in a table at its beginning, whatever the left side does.
    async fn first_position(&self, outside: &dyn Outside, start: StartAt) -> Result<Offset, End> {
        match (self.join.with, start) {
            (JoinWith::Table, _) | (JoinWith::Stream { .. }, StartAt::Earliest) => Ok(Offset::ZERO),
            (JoinWith::Stream { .. }, StartAt::Latest) => {
                let end = outside.end(self.name.clone()).await;
                end.map_err(|error| End::failed(format!("the second source cannot be read: {error}")))
            }
        }
    }
}

/// What a joining pipeline has beside others.
pub(super) struct Joined {
    source: RightSource,
    outside: Arc<dyn Outside>,
    /// Everything before it is handed over to be committed.
    position: Offset,
    /// What of the step under way is dealt with.
    outputs: Outputs,
    changes: Changes,
    has_outputs: bool,
}

impl Joined {
    /// As a commit names it.
    pub(super) fn right(&self, worker: Option<&Worker>) -> Right {
        Right {
            source: self.source.name.topic_id,
            position: self.position,
            clock_ms: worker.and_then(Worker::joiner).and_then(Joiner::clock_ms),
            join: self.source.join.clone(),
        }
    }

    pub(super) fn keep(&mut self, outputs: Outputs, changes: Changes) {
        self.has_outputs = true;
        self.changes.extend(changes);
        match (&mut self.outputs, outputs) {
            (Outputs::Held(all), Outputs::Held(more)) => all.extend(more),
            (Outputs::Sent(all), Outputs::Sent(more)) => all.extend(more),
            (Outputs::Held(_), Outputs::Sent(_)) | (Outputs::Sent(_), Outputs::Held(_)) => {
                unreachable!("a pipeline delivers in one way")
            }
        }
    }
}

/// What a step has that gives no output.
pub(super) fn nothing(delivery: Delivery) -> Outputs {
    match delivery {
        Delivery::ExactlyOnce => Outputs::Held(Vec::new()),
        Delivery::AtLeastOnce => Outputs::Sent(Vec::new()),
    }
}

/// A join as a pipeline begins with it.
pub(super) struct SetUp {
    pub(super) joined: Joined,
    pub(super) parts: JoinParts,
    /// Nothing was known of it where something was known of the source: where it begins has to be settled durably.
    pub(super) is_begun: bool,
}

/// Goes on with a join as it was left, or begins it.
pub(super) async fn set_up(
    right: RightSource,
    transform: &Transform,
    outside: &Arc<dyn Outside>,
    taken_up: &mut TakenUp,
) -> Result<SetUp, End> {
    let known = taken_up.right.take();
    let is_begun = known.is_none() && taken_up.position.is_some();
    let position = match &known {
        Some(known) => known.position,
        None => right.first_position(&**outside, transform.start).await?,
    };
    let join = &right.join;
    let parts = JoinParts {
        joiner: restore_join(join, STATE_BYTES_MAX, known),
        topics: [transform.source.clone(), join.topic.clone()],
        keys: [&join.left_key, &join.right_key].map(|key| KeyAt::of(key.as_ref())),
        positions: [taken_up.position.unwrap_or(Offset::ZERO), position],
    };
    let joined = Joined {
        source: right,
        outside: Arc::clone(outside),
        position,
        outputs: nothing(transform.delivery),
        changes: Changes::default(),
        has_outputs: false,
    };
    Ok(SetUp {
        joined,
        parts,
        is_begun,
    })
}

impl Pipeline {
    pub(super) async fn work_joining(&mut self) -> Result<Forever, End> {
        loop {
            // Windows may be due from before.
            let attempt = self.with_worker(|worker| worker.attempt()).await?;
            self.work_off(attempt).await?;
            self.finish_join().await?;
            self.fill().await?;
            let now_ms = self.clock.unix_ms();
            let joined = self
                .with_worker(move |worker| {
                    let joined = worker.join(now_ms)?;
                    Ok::<_, Blame>((joined, worker.attempt()))
                })
                .await?;
            let (joined, attempt) = match joined {
                Ok(joined) => joined,
                Err(Blame::Module { reason }) => return Err(End::Stopped { reason }),
                Err(other) => return Err(End::failed(format!("{other:?}"))),
            };
            self.last_input = self.clock.now();
            self.deliver_joined(joined).await?;
            self.work_off(attempt).await?;
            self.finish_join().await?;
            self.answer_all();
        }
    }

    /// Reads on each side of which nothing is left, and waits until there is something on either.
    async fn fill(&mut self) -> Result<(), End> {
        let mut left = self.source.watermarks();
        let mut right = self.joined().source.here.as_ref().map(Partition::watermarks);
        loop {
            left.borrow_and_update();
            if let Some(right) = &mut right {
                right.borrow_and_update();
            }
            let mut has_records = false;
            for side in Side::BOTH {
                has_records |= self.fill_side(side).await?;
            }
            if has_records {
                return Ok(());
            }
            // What holds no record, the end of a transaction or one that was given up, is behind both positions now.
            self.finish_join().await?;
            let idle_close = self.idle_close_at();
            let joined = self.joined();
            let (outside, name) = (Arc::clone(&joined.outside), joined.source.name.clone());
            let from = self.worker.as_ref().and_then(|worker| worker.wants(Side::Right));
            let from = from.unwrap_or(joined.position);
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(End::Cancelled),
                () = self.committer.failed() => return Err(End::failed("committing failed")),
                changed = left.changed() => {
                    changed.map_err(|_| End::failed("the source partition was closed"))?;
                }
                newer = newer(right.as_mut(), &*outside, name, from) => newer?,
                Some(asked) = self.asked.recv() => self.answer(asked),
                () = self.clock.sleep_until_some(idle_close) => self.close_windows().await?,
            }
        }
    }

    /// Reads on a side until it has a record or there is no more. Whether it has one.
    async fn fill_side(&mut self, side: Side) -> Result<bool, End> {
        loop {
            let Some(from) = self.worker().wants(side) else {
                return Ok(true);
            };
            if side == Side::Left && self.jump_left(from) {
                continue;
            }
            let name = match side {
                Side::Left => self.source.name().clone(),
                Side::Right => self.joined().source.name.clone(),
            };
            let topic = Arc::clone(&name.topic);
            let outside = Arc::clone(&self.joined().outside);
            let read = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(End::Cancelled),
                read = outside.read(name, from) => read,
            };
            let cannot = |error: &dyn std::fmt::Display| {
                End::failed(format!(
                    "source {topic} cannot be read on from offset {from}: {error}"
                ))
            };
            let Read { batches, bytes, next } = read.map_err(|error| cannot(&error))?;
            if bytes == 0 {
                self.worker().ends(side);
                return Ok(false);
            }
            if next <= from {
                return Err(cannot(&"there is no next one"));
            }
            let loaded = self
                .with_worker(move |worker| worker.load_side(side, batches, next))
                .await?;
            self.note_unreadable(&loaded).await?;
        }
    }

    /// Whether the source no longer has, or does not have any more, the records from there on: then it is read on where it has some.
    fn jump_left(&mut self, from: Offset) -> bool {
        let now = *self.source.watermarks().borrow();
        let to = from.clamp(now.log_start, now.log_end.max(now.log_start));
        // Who does not lead may not have all that there is.
        if to == from || !self.source.is_leader() {
            return false;
        }
        self.note_jump(from, to);
        self.worker().skip_to(Side::Left, to);
        true
    }

    /// Sends what the join itself sends: the letters of records that it could not take.
    async fn deliver_joined(&mut self, joined: Ran) -> Result<(), End> {
        let Ran { appends, counts, .. } = joined;
        self.cells.count(totals(counts));
        if appends.is_empty() {
            return Ok(());
        }
        let held = match self.held(appends).await? {
            Ok(held) => held,
            Err(refused) => {
                let reason = refusal::<()>(Err(refused))?.err().unwrap_or_default();
                let reason = format!("a dead letter was refused: {reason}");
                return Err(End::Stopped { reason });
            }
        };
        let outputs = match self.transform.delivery {
            Delivery::ExactlyOnce => Outputs::Held(held),
            Delivery::AtLeastOnce => {
                let sent = self.sinks.send(held).await;
                Outputs::Sent(
                    sent.map_err(|error| End::failed(format!("an output cannot be appended: {error}")))?,
                )
            }
        };
        self.joined_mut().keep(outputs, Changes::default());
        Ok(())
    }

    /// Hands over what is dealt with since this was done last, if it is anything.
    pub(super) async fn finish_join(&mut self) -> Result<(), End> {
        let (more, [left, right]) = self.worker().finish_join();
        let delivery = self.transform.delivery;
        let position = self.position;
        let joined = self.joined_mut();
        let mut changes = std::mem::take(&mut joined.changes);
        changes.extend(more);
        let has_moved = position != left || joined.position != right;
        if !has_moved && !joined.has_outputs && changes == Changes::default() {
            return Ok(());
        }
        joined.position = right;
        joined.has_outputs = false;
        let outputs = std::mem::replace(&mut joined.outputs, nothing(delivery));
        self.position = left;
        self.commit_changes(outputs, changes).await
    }

    fn joined(&self) -> &Joined {
        self.joined.as_ref().expect("the transform joins")
    }

    fn joined_mut(&mut self) -> &mut Joined {
        self.joined.as_mut().expect("the transform joins")
    }
}

/// Returns when there may be more in the second source.
async fn newer(
    here: Option<&mut watch::Receiver<Watermarks>>,
    outside: &dyn Outside,
    name: PartitionName,
    from: Offset,
) -> Result<(), End> {
    match here {
        Some(watermarks) => watermarks
            .changed()
            .await
            .map_err(|_| End::failed("the second source's partition was closed")),
        None => outside
            .newer(name, from)
            .await
            .map_err(|error| End::failed(format!("the second source cannot be read: {error}"))),
    }
}
