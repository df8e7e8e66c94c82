//! What people ask for: to see groups, and to delete them or some of their offsets.

use super::super::error::GroupError;
use super::super::request::{Description, Listed, Name, TopicPartition};
use super::super::store;
use super::group::{Group, Phase};
use super::{Answer, CallId, State, Undertaking};
use headwater_protocol::consumer_protocol::PROTOCOL_TYPE;

impl State {
    pub(crate) fn list(&self) -> Vec<Listed> {
        self.groups.values().map(Group::listed).collect()
    }

    pub(crate) fn describe(&self, name: &str) -> Option<Description> {
        let group = self.groups.get(name);
        let classic = group.filter(|group| group.consumer_group().is_none() && group.sharers.is_none());
        classic.map(Group::described)
    }

    pub(crate) fn delete_group(&mut self, call: CallId, name: &Name) {
        if let Err(error) = self.try_delete_group(call, name) {
            self.answer(call, Answer::Deleted(Err(error)));
        }
    }

    fn try_delete_group(&mut self, call: CallId, name: &Name) -> Result<(), GroupError> {
        let group = self.living(name)?.ok_or(GroupError::GroupNotFound)?;
        if !group.is_empty() {
            return Err(GroupError::NonEmptyGroup);
        }
        // What is on its way comes before this in the log, and is deleted as well.
        let mut offsets: Vec<TopicPartition> = group.offsets.keys().cloned().collect();
        offsets.extend(
            group
                .committing
                .keys()
                .filter(|partition| !group.offsets.contains_key(*partition))
                .cloned(),
        );
        let mut records: Vec<_> = offsets
            .iter()
            .map(|partition| store::offset_tombstone(name, partition))
            .collect();
        records.extend(group.tombstones());
        self.group(name).is_dying = true;
        let then = Undertaking::Deletion {
            group: name.clone(),
            offsets,
            whole: true,
            asked: Some((call, Answer::Deleted(Ok(())))),
        };
        self.write(records, then);
        Ok(())
    }

    /// Deletes what was committed of some partitions (KIP-496).
    pub(crate) fn delete_offsets(&mut self, call: CallId, name: &Name, wanted: &[TopicPartition]) {
        if let Err(error) = self.try_delete_offsets(call, name, wanted) {
            self.answer(call, Answer::PerPartition(Err(error)));
        }
    }

    fn try_delete_offsets(
        &mut self,
        call: CallId,
        name: &Name,
        wanted: &[TopicPartition],
    ) -> Result<(), GroupError> {
        let group = self.living(name)?.ok_or(GroupError::GroupNotFound)?;
        if group.sharers.is_some() {
            return Err(GroupError::OtherProtocol);
        }
        let is_used = |partition: &TopicPartition| {
            if group.consumers.is_some() {
                return group.subscribes_to(&partition.topic);
            }
            let subscribed = group.subscribed.as_ref();
            group.phase != Phase::Empty && subscribed.is_none_or(|topics| topics.contains(&partition.topic))
        };
        if group.phase != Phase::Empty && group.protocol_type.as_deref() != Some(PROTOCOL_TYPE) {
            return Err(GroupError::NonEmptyGroup);
        }
        let results: Vec<_> = wanted
            .iter()
            .map(|partition| {
                let result = if is_used(partition) {
                    Err(GroupError::SubscribedToTopic)
                } else {
                    Ok(())
                };
                (partition.clone(), result)
            })
            .collect();
        let offsets: Vec<_> = results
            .iter()
            .filter(|(partition, result)| {
                let is_there =
                    group.offsets.contains_key(partition) || group.committing.contains_key(partition);
                result.is_ok() && is_there
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        let answer = Answer::PerPartition(Ok(results));
        if offsets.is_empty() {
            self.answer(call, answer);
            return Ok(());
        }
        let records = offsets
            .iter()
            .map(|partition| store::offset_tombstone(name, partition))
            .collect();
        let then = Undertaking::Deletion {
            group: name.clone(),
            offsets,
            whole: false,
            asked: Some((call, answer)),
        };
        self.write(records, then);
        Ok(())
    }
}
