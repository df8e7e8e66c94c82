//! Offsets: committed by members of the current generation, or by anybody while the group has no members.

use super::super::error::{AppendRefused, GroupError};
use super::super::request::{
    Commit, Committed, Epoch, Generation, Identity, InTransaction, Name, Offsets, PerPartition,
    TopicPartition,
};
use super::super::store;
use super::consumer::{Committer, ConsumerGroup};
use super::group::{Group, Phase};
use super::{Answer, CallId, Now, State, Undertaking, refusal};
use headwater_protocol::ids::Offset;

/// A commit on its way into the log.
#[derive(Debug)]
pub(super) struct Committing {
    call: CallId,
    group: Name,
    offsets: Vec<(TopicPartition, Committed)>,
    /// What is answered when they are kept.
    results: PerPartition,
    transaction: Option<InTransaction>,
}

impl State {
    pub(crate) fn commit(&mut self, now: Now, call: CallId, commit: &Commit) {
        if let Err(error) = self.try_commit(now, call, commit) {
            self.answer(call, Answer::PerPartition(Err(error)));
        }
    }

    fn try_commit(&mut self, now: Now, call: CallId, commit: &Commit) -> Result<(), GroupError> {
        let name = &commit.who.group;
        match self.living(name)? {
            Some(group) if group.sharers.is_some() => return Err(GroupError::OtherProtocol),
            Some(group) if group.consumers.is_some() => check_consumer(group, commit)?,
            Some(group) => {
                // In a transaction, a client of old names no member and no generation; its epoch fences it (KIP-447).
                let is_nameless = commit.generation < Generation(0)
                    && commit.who.member.is_empty()
                    && commit.who.instance.is_none();
                let is_member = match commit.transaction {
                    Some(_) if is_nameless => false,
                    _ => check(group, &commit.who, commit.generation)?,
                };
                if group.phase == Phase::Completing && commit.transaction.is_none() {
                    return Err(GroupError::RebalanceInProgress);
                }
                if is_member {
                    self.expect_heartbeat(name, &commit.who.member, now);
                }
            }
            // Whoever names a generation speaks of a group that is gone.
            None if commit.generation >= Generation(0) => return Err(GroupError::GroupNotFound),
            None => {
                self.add_group(Group::new(name.clone()), now);
            }
        }
        self.begin_commit(now, call, commit);
        Ok(())
    }

    fn begin_commit(&mut self, now: Now, call: CallId, commit: &Commit) {
        let name = &commit.who.group;
        let metadata_bytes_max = self.settings.metadata_bytes_max;
        let (mut offsets, mut results) = (Vec::new(), Vec::with_capacity(commit.offsets.len()));
        for (partition, new) in &commit.offsets {
            if new.metadata.len() > metadata_bytes_max {
                results.push((partition.clone(), Err(GroupError::MetadataTooLarge)));
                continue;
            }
            results.push((partition.clone(), Ok(())));
            let committed = Committed {
                offset: new.offset,
                leader_epoch: new.leader_epoch,
                metadata: new.metadata.clone(),
                committed_ms: now.unix_ms,
                expires_ms: new.kept_for.map(|kept_for| {
                    let kept_for = i64::try_from(kept_for.as_millis()).unwrap_or(i64::MAX);
                    now.unix_ms.saturating_add(kept_for)
                }),
            };
            offsets.push((partition.clone(), committed));
        }
        if offsets.is_empty() {
            self.answer(call, Answer::PerPartition(Ok(results)));
            self.remove_if_bare(name);
            return;
        }
        let group = self.group(name);
        for (partition, _) in &offsets {
            *group.committing.entry(partition.clone()).or_default() += 1;
        }
        let records = offsets
            .iter()
            .map(|(partition, committed)| store::offset_record(name, partition, committed))
            .collect();
        let committing = Committing {
            call,
            group: name.clone(),
            offsets,
            results,
            transaction: commit.transaction,
        };
        self.write_in(commit.transaction, records, Undertaking::Commit(committing));
    }

    pub(super) fn commit_is_done(&mut self, committing: Committing, result: Result<Offset, AppendRefused>) {
        let Committing {
            call,
            group: name,
            offsets,
            results,
            transaction,
        } = committing;
        if let Some(group) = self.groups.get_mut(&name) {
            for (partition, _) in &offsets {
                if let Some(count) = group.committing.get_mut(partition) {
                    *count -= 1;
                    if *count == 0 {
                        group.committing.remove(partition);
                    }
                }
            }
        }
        let answer = match result {
            Ok(at) => {
                match transaction {
                    Some(InTransaction { producer, .. }) => {
                        self.pending.add(producer, name.clone(), at, offsets);
                    }
                    None => {
                        for (partition, committed) in offsets {
                            self.pending.overrule(&name, &partition, None);
                            self.put_offset(&name, partition, committed);
                        }
                    }
                }
                Ok(results)
            }
            Err(refused) => Err(refusal(refused, GroupError::CommitTooLarge)),
        };
        self.answer(call, Answer::PerPartition(answer));
        self.remove_if_bare(&name);
    }

    /// A group that was made for a commit which came to nothing is none.
    pub(super) fn remove_if_bare(&mut self, name: &str) {
        let is_bare = |group: &Group| {
            group.phase == Phase::Empty
                && group.protocol_type.is_none()
                && group.promised.is_empty()
                && group.offsets.is_empty()
                && group.committing.is_empty()
                && group.value.is_none()
                && group.consumers.is_none()
                && group.sharers.is_none()
                && !group.is_dying
        };
        if self.groups.get(name).is_some_and(is_bare) && !self.pending.concerns(name) {
            self.remove_group(name);
        }
    }

    /// What was committed; None: of all partitions. A group that is not there has committed nothing.
    pub(crate) fn offsets(&self, name: &str, wanted: Option<&[TopicPartition]>) -> Offsets {
        let group = self.groups.get(name).filter(|group| !group.is_dying);
        match wanted {
            Some(wanted) => {
                let committed = |partition: &TopicPartition| group?.offsets.get(partition).cloned();
                let found = wanted
                    .iter()
                    .map(|partition| (partition.clone(), committed(partition)));
                found.collect()
            }
            None => {
                let all = group.into_iter().flat_map(|group| &group.offsets);
                all.map(|(partition, committed)| (partition.clone(), Some(committed.clone())))
                    .collect()
            }
        }
    }
}

/// Whether a commit may be made in a group of the consumer protocol. It is no sign of life there.
fn check_consumer(group: &Group, commit: &Commit) -> Result<(), GroupError> {
    let nobody = ConsumerGroup::default();
    let consumers = group.consumer_group().unwrap_or(&nobody);
    match consumers.check_committer(&commit.who, Epoch(commit.generation.0))? {
        Committer::Member | Committer::StaleMember if !commit.knows_epochs => Err(GroupError::CommitTooOld),
        Committer::StaleMember => Err(GroupError::StaleEpoch),
        Committer::Member | Committer::Nobody => Ok(()),
    }
}

/// Whether the commit comes from a member, if it may be made.
fn check(group: &Group, who: &Identity, generation: Generation) -> Result<bool, GroupError> {
    let has_members = group.phase != Phase::Empty;
    let claims_membership = generation >= Generation(0) || !who.member.is_empty() || who.instance.is_some();
    if generation < Generation(0) && !has_members {
        return Ok(false);
    }
    if !claims_membership {
        // Only members commit while there are members.
        return Err(GroupError::UnknownMember);
    }
    group.check(&who.member, who.instance.as_ref())?;
    if generation != group.generation {
        return Err(GroupError::IllegalGeneration);
    }
    Ok(true)
}
