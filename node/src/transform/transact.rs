//! Exactly once: what steps of a pipeline left is written in transactions. Outputs, changes of the state and the position are committed
//! together or not at all.
//!
//! It owns when a transaction is made, and what is in it. A transaction is open only while it is written: whoever reads the sinks never
//! waits for a module. What is committed is seen at once after a pause; while steps keep coming, they are committed
//! every `INTERVAL`, or when their outputs are many. After a failure it does nothing more: what it does not know the changelog knows, and
//! the next pipeline reads that when it has taken over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_protocol::ids::PartitionIndex;

use super::changelog::{self, Changes, Commit};
use super::outside::{OutsideError, Write, Writer};
use super::sinks::Held;
use super::stamp;
use super::state_log::{Growth, Handed, Means, Outputs, Step};
use crate::partition::PartitionName;
use crate::sys::budget::Permit;
use crate::sys::mailbox::Mailbox;

/// From the beginning of one transaction to that of the next: each costs a few syncs, whatever is in it.
const INTERVAL: Duration = Duration::from_millis(100);
/// Outputs that are not kept waiting for others. Less than the pipeline may have on its way, so that it works on meanwhile.
const BYTES: usize = 4 << 20;

pub(super) struct Transacting {
    means: Means,
    waiting: Mailbox<Handed>,
    growth: Arc<Growth>,
    writer: Writer,
    /// When the next transaction may begin.
    due: Instant,
}

/// What one transaction is made of.
struct Gathered {
    outputs: BTreeMap<(usize, PartitionIndex), (PartitionName, Vec<Bytes>)>,
    commit: Commit,
    changes: Changes,
    bytes: usize,
    /// The memory that outputs take: given back when they are written.
    rooms: Vec<Permit>,
}

impl Transacting {
    pub(super) fn new(means: Means, waiting: Mailbox<Handed>, growth: Arc<Growth>, writer: Writer) -> Self {
        let due = means.clock.now();
        Self {
            means,
            waiting,
            growth,
            writer,
            due,
        }
    }

    pub(super) async fn run(mut self) -> Result<(), String> {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(handed) => handed,
                None => match self.waiting.recv().await {
                    Some(handed) => handed,
                    None => return Ok(()),
                },
            };
            let (gathered, other) = self.gather(first).await;
            next = other;
            self.due = self.means.clock.now() + INTERVAL;
            self.transact(gathered).await?;
        }
    }

    /// Takes in what comes until the next transaction is due. Gives what must not be in it as well: a whole state stands at the front.
    async fn gather(&mut self, first: Handed) -> (Gathered, Option<Handed>) {
        let mut gathered = Gathered::of(first);
        while gathered.bytes < BYTES {
            let handed = tokio::select! {
                biased;
                handed = self.waiting.recv() => handed,
                () = self.means.clock.sleep_until(self.due) => None,
            };
            match handed {
                Some(handed) if handed.step.commit.is_whole => return (gathered, Some(handed)),
                Some(handed) => gathered.add(handed),
                // It is due, or nothing more will come.
                None => break,
            }
        }
        (gathered, None)
    }

    async fn transact(&mut self, gathered: Gathered) -> Result<(), String> {
        let Gathered {
            outputs,
            commit,
            changes,
            rooms,
            ..
        } = gathered;
        let state = changelog::encode(&changes, &commit, self.means.clock.unix_ms());
        let state = state.map_err(|error| format!("the state cannot be written: {error}"))?;
        let state_bytes = state.len();
        let mut writes = Vec::with_capacity(outputs.len() + 1);
        let state = (self.means.log.clone(), vec![state]);
        for (to, batches) in outputs.into_values().chain([state]) {
            writes.push(self.stamped(to, batches)?);
        }
        let written = self.means.outside.write(self.writer.clone(), writes).await;
        drop(rooms);
        let offsets = match written {
            Ok(offsets) => offsets,
            Err(error) => return Err(self.give_up(error).await),
        };
        let committed = self.means.outside.commit(self.writer.clone()).await;
        self.writer = committed.map_err(|error| format!("a transaction cannot be committed: {error}"))?;
        let base = *offsets
            .last()
            .expect("each write has an offset, the state is the last");
        self.means
            .committed(&self.growth, &commit, state_bytes, base)
            .await;
        Ok(())
    }

    /// Numbers the batches for one partition. Each transaction has an epoch of its own, which begins with 0 everywhere.
    fn stamped(&self, to: PartitionName, batches: Vec<Bytes>) -> Result<Write, String> {
        let Writer { producer, epoch, .. } = self.writer;
        let mut sequence = 0;
        let mut stamped = Vec::with_capacity(batches.len());
        for bytes in batches {
            let more = stamp::in_transaction(bytes, producer, epoch, &mut sequence);
            stamped.extend(more.map_err(|error| format!("outputs cannot be stamped: {error}"))?);
        }
        Ok(Write { to, batches: stamped })
    }

    /// Lets go of what was written, so that nobody who reads the sinks waits for it. Without an answer the next pipeline does it.
    async fn give_up(&self, error: OutsideError) -> String {
        match &error {
            OutsideError::Refused(_) | OutsideError::Failed(_) => {
                if let Err(error) = self.means.outside.abort(self.writer.clone()).await {
                    tracing::debug!(id = %self.writer.id, %error, "a transaction is left to be aborted");
                }
            }
            OutsideError::Fenced => {}
        }
        format!("outputs and state cannot be written: {error}")
    }
}

impl Gathered {
    fn of(handed: Handed) -> Self {
        let commit = handed.step.commit.clone();
        let mut gathered = Self {
            outputs: BTreeMap::new(),
            commit,
            changes: Changes::default(),
            bytes: 0,
            rooms: Vec::new(),
        };
        gathered.add(handed);
        gathered
    }

    fn add(&mut self, handed: Handed) {
        let Handed {
            step:
                Step {
                    outputs,
                    commit,
                    changes,
                },
            held_bytes,
            room,
        } = handed;
        match outputs {
            Outputs::Held(held) => {
                for Held {
                    sink,
                    partition,
                    to,
                    batches,
                } in held
                {
                    let of_partition = self.outputs.entry((sink, partition));
                    let (_, all) = of_partition.or_insert_with(|| (to, Vec::new()));
                    all.push(batches);
                }
            }
            Outputs::Sent(sent) => assert!(sent.is_empty(), "nothing is sent before its transaction"),
        }
        self.commit = self.commit.clone().followed_by(commit);
        self.changes.extend(changes);
        self.bytes += held_bytes;
        self.rooms.extend(room);
    }
}
