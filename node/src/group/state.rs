//! The groups of one partition of `__consumer_offsets`, by the rules of Kafka's classic protocol and of its consumer
//! protocol (`consumer`). Pure: time and metadata are arguments, and what is to be written or answered comes out as effects.
//!
//! What it must never do: answer that something is kept before `appended` has said so.

mod admin;
mod consumer;
mod deadlines;
mod expiry;
mod group;
mod join;
mod member;
mod members;
mod offsets;
mod pending;
mod rebalance;
mod records;
mod share;

#[cfg(test)]
mod tests;

use super::error::{AppendRefused, GroupError};
use super::request::{
    Assignor, Generation, InTransaction, Joined, Name, PerPartition, Reconciled, Synced, TopicPartition,
};
use super::store::{GroupRecord, RestoredGroup};
use bytes::Bytes;
use consumer::{Reconciling, Topics};
use deadlines::{Deadlines, Due};
use group::Group;
use headwater_protocol::ids::Offset;
use offsets::Committing;
use pending::Pending;
use records::Moved;
use share::Sharing;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How groups are run, by the server properties of the same names.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) session_timeout_min: Duration,
    pub(crate) session_timeout_max: Duration,
    /// How long the first rebalance of an empty group waits for more members.
    pub(crate) initial_delay: Duration,
    pub(crate) size_max: usize,
    pub(crate) metadata_bytes_max: usize,
    pub(crate) retention: Duration,
    pub(crate) retention_check: Duration,
    pub(crate) consumer_session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) consumer_size_max: usize,
    pub(crate) share_session_timeout: Duration,
    pub(crate) share_heartbeat_interval: Duration,
    pub(crate) share_size_max: usize,
    /// The first one is for groups whose members do not care.
    pub(crate) assignors: Vec<Assignor>,
}

/// Both times of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) unix_ms: i64,
}

/// Somebody who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// Records on their way into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriteId(pub(crate) u64);

/// What the state wants done. Writes are appended in the order in which they come out.
#[derive(Debug)]
pub(crate) enum Effect {
    Answer {
        call: CallId,
        answer: Answer,
    },
    Write {
        write: WriteId,
        records: Vec<GroupRecord>,
        /// Set where they are part of a transaction.
        transaction: Option<InTransaction>,
    },
}

/// The end of a call that had to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Joined(Result<Joined, GroupError>),
    Synced(Result<Synced, GroupError>),
    PerPartition(Result<PerPartition, GroupError>),
    Deleted(Result<(), GroupError>),
    Reconciled(Result<Reconciled, GroupError>),
}

/// What is to happen when records are in the log for good, or are not.
#[derive(Debug)]
enum Undertaking {
    Commit(Committing),
    /// The leader's division of the partitions.
    Assignment {
        group: Name,
        generation: Generation,
        assignments: BTreeMap<Name, Bytes>,
        value: Bytes,
    },
    /// A static member under its new id.
    Moved(Moved),
    /// The group as it is without members.
    Emptied {
        group: Name,
        value: Bytes,
    },
    /// Members of the consumer protocol, and what they may have.
    Reconciling(Reconciling),
    /// Members of a share group, and what they are to read.
    Sharing(Sharing),
    /// Nothing is left of the consumer protocol in the group.
    ConsumersEnded {
        group: Name,
    },
    /// Offsets, and the group itself if `whole`.
    Deletion {
        group: Name,
        offsets: Vec<TopicPartition>,
        whole: bool,
        asked: Option<(CallId, Answer)>,
    },
}

/// Every group of the partition.
///
/// - Offsets are those of the log's committed part: a commit is seen when it is acknowledged, and stays.
/// - Writes end in the order in which they began.
/// - Each member, each rebalance and each promised member id has a deadline.
pub(crate) struct State {
    settings: Settings,
    groups: BTreeMap<Name, Group>,
    deadlines: Deadlines,
    effects: Vec<Effect>,
    undertakings: BTreeMap<WriteId, Undertaking>,
    next_write: u64,
    pending: Pending,
    /// About how much of the log the groups take if nothing else is in it.
    live_bytes: usize,
    /// Whether old offsets will be looked for.
    expects_retention: bool,
    topics: Topics,
    rebalances: u64,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            deadlines: Deadlines::default(),
            effects: Vec::new(),
            undertakings: BTreeMap::new(),
            next_write: 0,
            pending: Pending::default(),
            live_bytes: 0,
            expects_retention: false,
            topics: Topics::default(),
            rebalances: 0,
        }
    }

    /// Takes over what the log says. Members get a whole session to be heard of.
    pub(crate) fn restore(&mut self, restored: BTreeMap<Name, RestoredGroup>, now: Now) {
        for (name, kept) in restored {
            let group = Group::restored(name.clone(), kept);
            self.live_bytes += group.live_bytes();
            let members: Vec<Name> = group.members.keys().cloned().collect();
            let is_over_full = members.len() > self.settings.size_max;
            self.add_group(group, now);
            for member in &members {
                self.expect_heartbeat(&name, member, now);
            }
            self.keep_time(&name, now);
            self.keep_sharers_time(&name, now);
            if is_over_full {
                self.prepare_rebalance(&name, now);
            }
        }
    }

    /// What is to be done since the last time this was asked.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Deals with everything that is due.
    pub(crate) fn tick(&mut self, now: Now) {
        while let Some(due) = self.deadlines.take(now.at) {
            match due {
                Due::Rebalance(group) => self.rebalance_is_due(&group, now),
                Due::Sync(group) => self.sync_is_due(&group, now),
                Due::Session(group, member) => self.session_is_due(&group, &member, now),
                Due::Promise(group, member) => self.promise_is_due(&group, &member, now),
                Due::ConsumerSession(group, member) => self.consumer_session_is_due(&group, &member, now),
                Due::Revocation(group, member) => self.revocation_is_due(&group, &member, now),
                Due::ShareSession(group, member) => self.share_session_is_due(&group, &member, now),
                Due::Retention => self.retention_is_due(now),
            }
        }
    }

    /// What became of a write, and where it lies. Called in the order of the writes.
    pub(crate) fn appended(&mut self, write: WriteId, result: Result<Offset, AppendRefused>, now: Now) {
        let Some(undertaking) = self.undertakings.remove(&write) else {
            return;
        };
        let at = result;
        let result = result.map(drop);
        match undertaking {
            Undertaking::Commit(committing) => self.commit_is_done(committing, at),
            Undertaking::Assignment {
                group,
                generation,
                assignments,
                value,
            } => {
                if result.is_ok() {
                    self.keep_value(&group, Some(value));
                }
                self.assignment_is_done(&group, generation, &assignments, result, now);
            }
            Undertaking::Moved(moved) => {
                if result.is_ok() {
                    self.keep_value(&moved.group, Some(moved.value.clone()));
                }
                self.move_is_done(moved, result, now);
            }
            Undertaking::Emptied { group, value } => match result {
                Ok(()) => self.keep_value(&group, Some(value)),
                // Its members are in the log still: whoever reads it waits for their sessions to end, and that is all.
                Err(_) => tracing::warn!(%group, "that the group is empty could not be written"),
            },
            Undertaking::Reconciling(reconciling) => self.reconciling_is_done(reconciling, result, now),
            Undertaking::Sharing(sharing) => self.sharing_is_done(sharing, result, now),
            Undertaking::ConsumersEnded { group } if result.is_err() => {
                // Whoever reads the log knows by the members which protocol it is.
                tracing::warn!(%group, "that the consumer protocol has ended could not be written");
            }
            Undertaking::ConsumersEnded { .. } => {}
            Undertaking::Deletion {
                group,
                offsets,
                whole,
                asked,
            } => self.deletion_is_done(&group, &offsets, whole, asked, result),
        }
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        self.effects.push(Effect::Answer { call, answer });
    }

    fn write(&mut self, records: Vec<GroupRecord>, then: Undertaking) {
        self.write_in(None, records, then);
    }

    fn write_in(&mut self, transaction: Option<InTransaction>, records: Vec<GroupRecord>, then: Undertaking) {
        let write = WriteId(self.next_write);
        self.next_write += 1;
        self.undertakings.insert(write, then);
        self.effects.push(Effect::Write {
            write,
            records,
            transaction,
        });
    }

    fn add_group(&mut self, group: Group, now: Now) -> &mut Group {
        self.expect_retention(now);
        self.groups.entry(group.name.clone()).or_insert(group)
    }

    fn remove_group(&mut self, name: &str) {
        if let Some(group) = self.groups.remove(name) {
            self.live_bytes -= group.live_bytes();
        }
    }

    /// The group, if it is not on its way out.
    fn living(&self, name: &str) -> Result<Option<&Group>, GroupError> {
        match self.groups.get(name) {
            Some(group) if group.is_dying => Err(GroupError::NotAvailable),
            found => Ok(found),
        }
    }

    /// A group that was looked up before.
    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.get_mut(name).expect("the caller has found it")
    }

    /// Notes what the log holds of the group itself.
    fn keep_value(&mut self, name: &str, value: Option<Bytes>) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let before = group.value_bytes();
        group.value = value;
        self.live_bytes = self.live_bytes + group.value_bytes() - before;
    }
}

/// What a call is answered whose records were not taken.
fn refusal(refused: AppendRefused, too_large: GroupError) -> GroupError {
    match refused {
        AppendRefused::NotNow => GroupError::NotAvailable,
        AppendRefused::TooLarge => too_large,
        AppendRefused::Fenced => GroupError::Fenced,
    }
}
