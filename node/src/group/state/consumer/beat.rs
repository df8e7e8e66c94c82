//! A member's heartbeat: it comes in, says what it wants and has, is told what it may have, or goes.

use super::super::super::error::GroupError;
use super::super::super::request::{ConsumerHeartbeat, Epoch, Name, Reconciled};
use super::super::super::store::{ConsumerMember, CurrentAssignment, MemberStage};
use super::draft::{Draft, Rules};
use super::topics::check_regex;
use super::{ConsumerGroup, Member};
use crate::group::request::Assignment;
use headwater_protocol::primitives::Uuid;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Who a heartbeat comes from.
struct Sender {
    member: Member,
    /// It takes the place of a static member that left for a while.
    former: Option<Name>,
    is_new: bool,
}

impl Draft {
    /// `fresh` is a number that no member of any group was ever given.
    pub(super) fn beat(
        &mut self,
        beat: &ConsumerHeartbeat,
        fresh: u128,
        rules: &Rules<'_>,
    ) -> Result<Reconciled, GroupError> {
        match beat.epoch {
            Epoch::LEAVING | Epoch::AWAY => self.leave(beat, rules),
            _ => self.stay(beat, fresh, rules),
        }
    }

    fn stay(
        &mut self,
        beat: &ConsumerHeartbeat,
        fresh: u128,
        rules: &Rules<'_>,
    ) -> Result<Reconciled, GroupError> {
        let Sender {
            mut member,
            former,
            is_new,
        } = sender(&self.group, beat, fresh)?;
        if is_new && self.group.members.len() >= rules.settings.consumer_size_max {
            return Err(GroupError::GroupFull);
        }
        let said = said_now(beat, &member.said);
        let subscribes_anew = said.topics != member.said.topics || said.regex != member.said.regex;
        if let Some(regex) = said
            .regex
            .as_ref()
            .filter(|regex| !self.group.regexes.contains_key(*regex))
        {
            check_regex(regex)?;
        }
        let id = member.id.clone();
        let had = member.current.clone();
        member.said = said;
        if let Some(former) = &former {
            let group = self.change();
            let target = group.target(former);
            group.remove(former);
            group.targets.insert(id.clone(), target);
        }
        if self.group.member(&id).is_none_or(|before| **before != member) {
            self.change().put(member);
        }
        let is_first = self.group.epoch == Epoch::default();
        self.look_at_topics(is_new || is_first || subscribes_anew, rules);
        self.assign(rules);
        self.reconcile(&id, beat.owned.as_ref());
        let current = self.group.member(&id).map(|member| member.current.clone());
        let current = current.unwrap_or_default();
        // Whoever is behind has not heard what it was told.
        let is_told = beat.is_full() || beat.epoch != had.epoch || current.assigned != had.assigned;
        Ok(Reconciled {
            member: id,
            epoch: current.epoch,
            heartbeat_interval: rules.settings.heartbeat_interval,
            assignment: is_told.then_some(current.assigned),
        })
    }

    fn leave(&mut self, beat: &ConsumerHeartbeat, rules: &Rules<'_>) -> Result<Reconciled, GroupError> {
        let member = match &beat.who.instance {
            Some(instance) => of_instance(&self.group, instance, &beat.who.member)?,
            None => self
                .group
                .member(&beat.who.member)
                .ok_or(GroupError::UnknownMember)?,
        };
        let member = Arc::clone(member);
        if beat.epoch == Epoch::AWAY {
            // What it has is kept for it; what it was to give up it has given up.
            let current = CurrentAssignment {
                epoch: Epoch::AWAY,
                stage: MemberStage::Stable,
                revoking: Assignment::default(),
                ..member.current.clone()
            };
            self.change().put(Member {
                current,
                ..(*member).clone()
            });
        } else {
            self.remove(&member.id, rules);
        }
        Ok(Reconciled {
            member: member.id.clone(),
            epoch: beat.epoch,
            heartbeat_interval: Duration::ZERO,
            assignment: None,
        })
    }
}

fn of_instance<'a>(
    group: &'a ConsumerGroup,
    instance: &str,
    member: &str,
) -> Result<&'a Arc<Member>, GroupError> {
    let holder = group.of_instance(instance).ok_or(GroupError::UnknownMember)?;
    if &*holder.id != member {
        return Err(GroupError::FencedInstance);
    }
    Ok(holder)
}

fn sender(group: &ConsumerGroup, beat: &ConsumerHeartbeat, fresh: u128) -> Result<Sender, GroupError> {
    let known = match &beat.who.instance {
        Some(instance) if beat.epoch == Epoch::JOINING => group.of_instance(instance),
        Some(instance) => Some(of_instance(group, instance, &beat.who.member)?),
        None => group.member(&beat.who.member),
    };
    if beat.epoch != Epoch::JOINING {
        let member = known.ok_or(GroupError::UnknownMember)?;
        check_epoch(member, beat)?;
        return Ok(Sender {
            member: (**member).clone(),
            former: None,
            is_new: false,
        });
    }
    let id = match &*beat.who.member {
        "" => Name::from(Uuid::from_u128(fresh).to_string()),
        _ => beat.who.member.clone(),
    };
    // Whoever joins has given up everything, also if it was a member already.
    let anew = |said: ConsumerMember, assigned: Assignment| Member {
        id: id.clone(),
        said,
        current: CurrentAssignment {
            assigned,
            ..CurrentAssignment::default()
        },
    };
    match known {
        None => Ok(Sender {
            member: anew(nothing_said(), Assignment::default()),
            former: None,
            is_new: group.member(&id).is_none(),
        }),
        Some(member) if member.id == id => Ok(Sender {
            member: anew(member.said.clone(), Assignment::default()),
            former: None,
            is_new: false,
        }),
        Some(member) if member.current.epoch == Epoch::AWAY => Ok(Sender {
            member: anew(member.said.clone(), member.current.assigned.clone()),
            former: Some(member.id.clone()),
            is_new: false,
        }),
        Some(_) => Err(GroupError::UnreleasedInstance),
    }
}

/// A member may be one epoch behind, if the answer with its newest one was lost; then it has nothing that it was not given.
fn check_epoch(member: &Member, beat: &ConsumerHeartbeat) -> Result<(), GroupError> {
    let current = &member.current;
    let has_missed_it = || {
        let owned = beat.owned.as_ref();
        beat.epoch == current.previous_epoch && owned.is_some_and(|owned| owned.is_within(&current.assigned))
    };
    if beat.epoch == current.epoch || (beat.epoch < current.epoch && has_missed_it()) {
        return Ok(());
    }
    Err(GroupError::FencedEpoch)
}

fn nothing_said() -> ConsumerMember {
    ConsumerMember {
        instance: None,
        rack: None,
        client_id: Name::from(""),
        client_host: Name::from(""),
        topics: BTreeSet::new(),
        regex: None,
        rebalance_timeout_ms: -1,
        assignor: None,
    }
}

/// What a member says now: what is absent in its heartbeat is as before.
fn said_now(beat: &ConsumerHeartbeat, before: &ConsumerMember) -> ConsumerMember {
    let newer = |said: &Option<Name>, before: &Option<Name>| said.clone().or_else(|| before.clone());
    let timeout = beat
        .rebalance_timeout
        .map(|timeout| i32::try_from(timeout.as_millis()));
    ConsumerMember {
        instance: newer(&beat.who.instance, &before.instance),
        rack: newer(&beat.rack, &before.rack),
        client_id: beat.client_id.clone(),
        client_host: beat.client_host.clone(),
        topics: beat.topics.clone().unwrap_or_else(|| before.topics.clone()),
        regex: newer(&beat.regex, &before.regex).filter(|regex| !regex.is_empty()),
        rebalance_timeout_ms: timeout.map_or(before.rebalance_timeout_ms, |ms| ms.unwrap_or(i32::MAX)),
        assignor: newer(&beat.assignor, &before.assignor),
    }
}
