//! What clients tried, what they were promised, and what they saw: the record by which a run is judged.
//!
//! Owns the record and nothing else: it judges nothing. An attempt without an answer may have happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::Partition;
use crate::invariants::copies::Input;
use crate::invariants::keys::{Key, Pass, Version};
use crate::invariants::transactions::{Part, TransactionNumber};
use crate::invariants::{Online, Violation};

/// One record as its producer knows it: whose it is, and the how-manieth of his in that partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) producer: u32,
    pub(crate) number: u32,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p{}/{}", self.producer, self.number)
    }
}

impl Mark {
    /// The front of a record's value.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (producer, rest) = text.strip_prefix('p')?.split_once('/')?;
        let number = rest.split('/').next()?;
        Some(Self {
            producer: producer.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// The history of one run, shared by all clients. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oracle {
    inner: Arc<Mutex<History>>,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    /// Acknowledged with all replicas: by partition, offset and record.
    pub(crate) acked: BTreeMap<Partition, BTreeMap<i64, Mark>>,
    /// Answered so far, for progress.
    pub(crate) acks: u64,
    pub(crate) fetched: u64,
    /// Topics that were acknowledged as created.
    pub(crate) topics: BTreeMap<String, i32>,
    pub(crate) online: Online,
    violations: Vec<Violation>,
}

impl Oracle {
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn created(&self, topic: &str, partitions: i32) {
        self.history().topics.insert(topic.to_owned(), partitions);
    }

    /// Before it is sent.
    pub(crate) fn attempted(&self, partition: &Partition, mark: Mark) {
        self.history().online.phantom.attempted(partition, mark);
    }

    pub(crate) fn acked(&self, partition: &Partition, first: i64, marks: &[Mark]) {
        let mut history = self.history();
        history.acks += marks.len() as u64;
        for (mark, offset) in marks.iter().zip(first..) {
            let of_partition = history.acked.entry(partition.clone()).or_default();
            of_partition.insert(offset, *mark);
            let checked = history.online.place.stands(partition, offset, *mark);
            history.note(checked);
        }
    }

    /// A consumer began to read anew at this offset.
    pub(crate) fn reads_from(&self, consumer: u32, partition: &Partition, offset: i64) {
        self.history().online.monotone.begins(consumer, partition, offset);
    }

    pub(crate) fn fetched(&self, consumer: u32, partition: &Partition, offset: i64, mark: Mark) {
        let mut history = self.history();
        history.fetched += 1;
        let checks = [
            history.online.phantom.seen(partition, offset, mark),
            history.online.place.stands(partition, offset, mark),
            history.online.order.seen(partition, offset, mark),
            history.online.monotone.seen(consumer, partition, offset),
        ];
        checks.into_iter().for_each(|checked| history.note(checked));
    }

    pub(crate) fn begins_transaction(&self, owner: u32) -> TransactionNumber {
        self.history().online.transactions.begins(owner)
    }

    /// A producer was told that a transactional id is its own.
    pub(crate) fn owned_by(&self, owner: u32, producer: i64, epoch: i16) {
        self.history()
            .online
            .transactions
            .owned_by(owner, producer, epoch);
    }

    /// Whether somebody newer was told so.
    pub(crate) fn is_replaced(&self, owner: u32, producer: i64, epoch: i16) -> bool {
        self.history()
            .online
            .transactions
            .is_replaced(owner, producer, epoch)
    }

    /// Before it is sent.
    pub(crate) fn attempted_in_transaction(&self, partition: &Partition, part: Part) {
        self.history().online.transactions.attempted(partition, part);
    }

    pub(crate) fn acked_in_transaction(&self, partition: &Partition, first: i64, parts: &[Part]) {
        let mut history = self.history();
        for (part, offset) in parts.iter().zip(first..) {
            history.online.transactions.acked(partition, offset, *part);
        }
    }

    /// Before it is asked for.
    pub(crate) fn commit_is_asked(&self, of: TransactionNumber) {
        self.history().online.transactions.commit_is_asked(of);
    }

    /// It was refused for good, and nobody had asked before.
    pub(crate) fn commit_is_refused(&self, of: TransactionNumber) {
        let mut history = self.history();
        let checked = history.online.transactions.commit_is_refused(of);
        history.note(checked);
    }

    pub(crate) fn committed(&self, of: TransactionNumber) {
        let mut history = self.history();
        let checked = history.online.transactions.committed(of);
        history.note(checked);
    }

    /// Somebody who reads what is committed came from one offset to another, and saw this on the way.
    pub(crate) fn read_committed(
        &self,
        partition: &Partition,
        from: i64,
        until: i64,
        seen: &BTreeMap<i64, (Part, Option<Input>)>,
    ) {
        let mut history = self.history();
        let parts = seen.iter().map(|(offset, (part, _))| (*offset, *part)).collect();
        let checked = history.online.transactions.read(partition, from, until, &parts);
        history.note(checked);
        for (offset, (_, input)) in seen {
            if let Some(input) = input {
                let checked = history.online.copies.seen(input.clone(), partition, *offset);
                history.note(checked);
            }
        }
    }

    /// A member of a group was told which partitions it has.
    pub(crate) fn assigned(&self, group: &str, generation: i32, member: &str, partitions: &[Partition]) {
        let mut history = self.history();
        let groups = &mut history.online.groups;
        let checked = groups.assigned(group, generation, member, partitions);
        history.note(checked);
    }

    /// Before it is sent.
    pub(crate) fn commits(&self, group: &str, partition: &Partition, offset: i64) {
        self.history().online.groups.commits(group, partition, offset);
    }

    pub(crate) fn committed_offset(&self, group: &str, partition: &Partition, offset: i64) {
        self.history().online.groups.committed(group, partition, offset);
    }

    /// A member of a generation, or whoever looks at the end, was told what is committed.
    pub(crate) fn told(&self, group: &str, generation: Option<i32>, partition: &Partition, offset: i64) {
        let mut history = self.history();
        let checked = history.online.groups.told(group, generation, partition, offset);
        history.note(checked);
    }

    /// A member has dealt with everything from one offset to another.
    pub(crate) fn consumed(&self, group: &str, partition: &Partition, from: i64, until: i64) {
        let mut history = self.history();
        let checked = history.online.groups.consumed(group, partition, from, until);
        history.note(checked);
    }

    /// Before it is sent.
    pub(crate) fn tried_key(&self, partition: &Partition, key: Key, version: Version) {
        self.history().online.keys.tried(partition, key, version);
    }

    pub(crate) fn acked_keys(&self, partition: &Partition, first: i64, records: &[(Key, Version)]) {
        let mut history = self.history();
        for ((key, version), offset) in records.iter().zip(first..) {
            history.online.keys.acked(partition, offset, *key, *version);
        }
    }

    pub(crate) fn sees_key(&self, pass: &mut Pass, offset: i64, key: Key, version: Version) {
        let mut history = self.history();
        let checked = history.online.keys.sees(pass, offset, key, version);
        history.note(checked);
    }

    /// Somebody has read a compacted partition from the front to this end, maybe too late for some tombstones.
    pub(crate) fn ends_pass(&self, pass: &Pass, end: i64, may_miss: bool) {
        let mut history = self.history();
        let checked = history.online.keys.ends(pass, end, may_miss);
        history.note(checked);
    }

    /// This is where a compacted partition ends, now that nobody writes.
    pub(crate) fn keys_end(&self, partition: &Partition, end: i64) {
        let mut history = self.history();
        let checked = history.online.keys.judge(partition, end);
        history.note(checked);
    }

    /// Something that is wrong in itself.
    pub(crate) fn wrong(&self, violation: Violation) {
        self.history().note(Err(violation));
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.history().violations.first().cloned()
    }
}

impl History {
    fn note(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked
            && self.violations.len() < 100
        {
            self.violations.push(violation);
        }
    }
}
