//! Offsets that nobody needs any more: of groups that are gone for `offsets.retention.minutes` (KIP-211), and of topics
//! that are deleted.

use super::super::request::{Committed, Name, TopicPartition};
use super::super::store;
use super::group::{Group, Phase};
use super::{Due, Now, State, Undertaking};
use headwater_protocol::consumer_protocol::PROTOCOL_TYPE;

impl State {
    pub(super) fn retention_is_due(&mut self, now: Now) {
        let names: Vec<Name> = self.groups.keys().cloned().collect();
        for name in names {
            let group = &self.groups[&name];
            let expired = expired(group, now.unix_ms, self.settings.retention.as_millis());
            self.expire(&name, expired);
        }
        self.expects_retention = false;
        if !self.groups.is_empty() {
            self.expect_retention(now);
        }
    }

    /// Looks for old offsets some time from now. Without a group there is nothing to look for.
    pub(super) fn expect_retention(&mut self, now: Now) {
        if !std::mem::replace(&mut self.expects_retention, true) {
            self.deadlines
                .put(now.at + self.settings.retention_check, Due::Retention);
        }
    }

    /// Forgets what was committed of topics for which `exists` is false.
    pub(crate) fn forget_topics(&mut self, exists: impl Fn(&str) -> bool) {
        let names: Vec<Name> = self.groups.keys().cloned().collect();
        for name in names {
            let group = &self.groups[&name];
            let known = group.offsets.keys();
            let gone: Vec<_> = known.filter(|it| !exists(&it.topic)).cloned().collect();
            if !gone.is_empty() {
                self.expire(&name, gone);
            }
        }
    }

    /// Deletes offsets, and the group with them if nothing is left of it.
    fn expire(&mut self, name: &Name, offsets: Vec<TopicPartition>) {
        let has_pending = self.pending.concerns(name);
        let group = self.group(name);
        let is_left = has_pending
            || !group.is_empty()
            || group.sharers.is_some()
            || !group.promised.is_empty()
            || !group.committing.is_empty()
            || offsets.len() < group.offsets.len();
        if group.is_dying || (offsets.is_empty() && is_left) {
            return;
        }
        let whole = !is_left;
        group.is_dying = whole;
        let mut records: Vec<_> = offsets
            .iter()
            .map(|partition| store::offset_tombstone(name, partition))
            .collect();
        if whole {
            records.extend(self.groups[name].tombstones());
        }
        let then = Undertaking::Deletion {
            group: name.clone(),
            offsets,
            whole,
            asked: None,
        };
        self.write(records, then);
    }
}

/// What of a group's offsets has expired. What is about to be committed again has not.
fn expired(group: &Group, unix_ms: i64, retention_ms: u128) -> Vec<TopicPartition> {
    let is_over = |since_ms: i64| {
        let age_ms = unix_ms.saturating_sub(since_ms);
        u128::try_from(age_ms).is_ok_and(|age_ms| age_ms >= retention_ms)
    };
    let has_expired = |committed: &Committed, since_ms: i64| match committed.expires_ms {
        Some(expires_ms) => unix_ms >= expires_ms,
        None => is_over(since_ms),
    };
    let is_due = |partition: &TopicPartition, committed: &Committed| match &group.protocol_type {
        // Members keep what they are subscribed to; else each offset counts for itself.
        _ if group.consumers.is_some() => {
            !group.subscribes_to(&partition.topic) && has_expired(committed, committed.committed_ms)
        }
        // Nobody was ever a member: each offset counts for itself.
        None => has_expired(committed, committed.committed_ms),
        // From when the last member went.
        Some(_) if group.phase == Phase::Empty => {
            has_expired(committed, group.since_ms.unwrap_or(committed.committed_ms))
        }
        // Consumers keep what they are subscribed to.
        Some(kind) if &**kind == PROTOCOL_TYPE && group.phase == Phase::Stable => {
            let subscribed = group.subscribed.as_ref();
            subscribed.is_some_and(|topics| !topics.contains(&partition.topic))
                && has_expired(committed, committed.committed_ms)
        }
        Some(_) => false,
    };
    let candidates = group.offsets.iter().filter(|(partition, committed)| {
        !group.committing.contains_key(*partition) && is_due(partition, committed)
    });
    candidates.map(|(partition, _)| partition.clone()).collect()
}
