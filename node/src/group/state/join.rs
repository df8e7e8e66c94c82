//! JoinGroup: who may come in, by which id, and whether the group rebalances for it.

use super::super::error::{AppendRefused, GroupError};
use super::super::request::{Identity, Join, Joined, Name};
use super::super::store::{self, GroupRecord};
use super::group::{Group, Phase};
use super::member::Member;
use super::records::Moved;
use super::{Answer, CallId, Due, Now, State, Undertaking, refusal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A member that has not been told yet that it is one sends no heartbeats; a client that is gone does not show. If it is
/// still there, it asks again by then.
const NEW_MEMBER_PATIENCE: Duration = Duration::from_secs(300);
/// What a member's id begins with is the client's, up to here.
const CLIENT_CHARS_MAX: usize = 255;

impl State {
    /// `fresh` is a number that no member of any group was ever given.
    pub(crate) fn join(&mut self, now: Now, call: CallId, join: &Join, fresh: u128) {
        if let Err(error) = self.try_join(now, call, join, fresh) {
            self.answer(call, Answer::Joined(Err(error)));
        }
    }

    fn try_join(&mut self, now: Now, call: CallId, join: &Join, fresh: u128) -> Result<(), GroupError> {
        let Identity {
            group: name, member, ..
        } = &join.who;
        let sessions = self.settings.session_timeout_min..=self.settings.session_timeout_max;
        if !sessions.contains(&join.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let is_newcomer = member.is_empty();
        let Some(group) = self.living(name)? else {
            if !is_newcomer {
                return Err(GroupError::UnknownMember);
            }
            if join.protocol_type.is_empty() || join.protocols.is_empty() {
                return Err(GroupError::InconsistentProtocol);
            }
            self.add_group(Group::new(name.clone()), now);
            return self.join_new(now, call, join, fresh);
        };
        if group.sharers.is_some() {
            return Err(GroupError::InconsistentProtocol);
        }
        if group.consumers.is_some() {
            if join.protocol_type.is_empty() || join.protocols.is_empty() {
                return Err(GroupError::InconsistentProtocol);
            }
            self.end_consumers(name, is_newcomer)?;
        }
        let group = &self.groups[name];
        if !has_room(group, member, self.settings.size_max) {
            self.turn_away(name, member, now);
            return Err(GroupError::GroupFull);
        }
        if !group.accepts(&join.protocol_type, &join.protocols) {
            return Err(GroupError::InconsistentProtocol);
        }
        if is_newcomer {
            self.join_new(now, call, join, fresh)?;
        } else {
            self.join_known(now, call, join)?;
        }
        self.complete_if_all_joined(name, now);
        Ok(())
    }

    /// One that may not come in is none of the group's any more.
    fn turn_away(&mut self, name: &Name, member: &str, now: Now) {
        let group = self.group(name);
        if group.members.contains_key(member) {
            self.remove_member(name, member, now);
        } else {
            group.promised.remove(member);
            self.complete_if_all_joined(name, now);
        }
    }

    fn join_new(&mut self, now: Now, call: CallId, join: &Join, fresh: u128) -> Result<(), GroupError> {
        let name = &join.who.group;
        let id = new_id(join, fresh);
        if let Some(instance) = &join.who.instance {
            return match self.group(name).instances.get(instance).cloned() {
                Some(before) => self.take_over(now, call, join, &before, id),
                None => self.add_member(now, call, join, id),
            };
        }
        if !join.takes_id_first {
            return self.add_member(now, call, join, id);
        }
        let until = now.at + join.session_timeout;
        let size_max = self.settings.size_max;
        let group = self.group(name);
        if group.promised.len() >= size_max {
            return Err(GroupError::GroupFull);
        }
        group.promised.insert(id.clone(), until);
        self.deadlines.put(until, Due::Promise(name.clone(), id.clone()));
        Err(GroupError::MemberIdRequired(id))
    }

    fn add_member(&mut self, now: Now, call: CallId, join: &Join, id: Name) -> Result<(), GroupError> {
        let name = &join.who.group;
        let group = self.group(name);
        if group.members.is_empty() {
            group.protocol_type = Some(join.protocol_type.clone());
        }
        if group.is_preparing() && group.generation.0 == 0 {
            group.has_newcomers = true;
        }
        group.insert(Member::joining(join, id.clone(), call));
        self.expect_within(name, &id, NEW_MEMBER_PATIENCE, now);
        self.prepare_rebalance(name, now);
        Ok(())
    }

    fn join_known(&mut self, now: Now, call: CallId, join: &Join) -> Result<(), GroupError> {
        let Identity {
            group: name,
            member: id,
            instance,
        } = &join.who;
        let group = self.group(name);
        if group.promised.contains_key(id) {
            if instance.is_some() {
                // Ids are promised to dynamic members only.
                return Err(GroupError::UnknownMember);
            }
            return self.add_member(now, call, join, id.clone());
        }
        group.check(id, instance.as_ref())?;
        let is_same = group.members[id].protocols == join.protocols;
        let needs_rebalance = match group.phase {
            // A group without members has none to join again.
            Phase::Empty => return Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => true,
            Phase::Completing => !is_same,
            // A leader joins again to have something else taken into account, such as new partitions.
            Phase::Stable => group.is_leader(id) || !is_same,
        };
        if needs_rebalance {
            self.join_again(call, join, id);
            self.prepare_rebalance(name, now);
            return Ok(());
        }
        // It did not get our answer, or has nothing new to say.
        let joined = joined(group, id);
        self.expect_heartbeat(name, id, now);
        self.answer(call, Answer::Joined(Ok(joined)));
        Ok(())
    }

    /// Notes what a member has to say now, and that it waits.
    fn join_again(&mut self, call: CallId, join: &Join, id: &str) {
        let group = self.group(&join.who.group);
        let member = group.members.get_mut(id).expect("the caller has checked it");
        member.protocols.clone_from(&join.protocols);
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        let forgotten = member.joining.replace(call);
        if let Some(forgotten) = forgotten {
            self.answer(forgotten, Answer::Joined(Err(GroupError::RebalanceInProgress)));
        }
    }

    /// A static member's new process takes the place of its former one.
    fn take_over(
        &mut self,
        now: Now,
        call: CallId,
        join: &Join,
        before: &Name,
        id: Name,
    ) -> Result<(), GroupError> {
        let name = &join.who.group;
        let leader_before = self.group(name).leader_or_none();
        let mut former = self.rename(name, before, &id);
        // Whoever waits by the former id has been answered.
        (former.joining, former.syncing) = (None, None);
        self.join_again(call, join, &id);
        self.expect_heartbeat(name, &id, now);
        let group = self.group(name);
        match group.phase {
            Phase::Stable if group.choose_protocol() == group.protocol => {
                let assigned = group.members.values();
                let assignments: BTreeMap<_, _> = assigned
                    .map(|member| (member.id.clone(), member.assignment.clone()))
                    .collect();
                let value = store::group_value(&group.metadata(&assignments, now.unix_ms));
                let moved = Moved::new(group, call, former, id, leader_before, join, value.clone());
                let record = GroupRecord {
                    key: store::group_key(name),
                    value: Some(value),
                };
                self.write(vec![record], Undertaking::Moved(moved));
            }
            // The leader may know the former id already: what it assigns to that would be lost.
            Phase::Stable | Phase::Completing => self.prepare_rebalance(name, now),
            Phase::Preparing { .. } | Phase::Empty => {}
        }
        Ok(())
    }

    /// Gives a member another id, and tells whoever waits by the former one that it is fenced. Gives it as it was.
    fn rename(&mut self, name: &str, before: &str, id: &Name) -> Member {
        let group = self.group(name);
        let former = group.members.remove(before).expect("instances name members");
        if group.is_leader(before) {
            group.leader = Some(id.clone());
        }
        if group.unsynced.remove(before) {
            group.unsynced.insert(id.clone());
        }
        let renamed = Member {
            id: id.clone(),
            joining: None,
            syncing: None,
            deadline: None,
            looked_at: None,
            ..former.clone()
        };
        group.insert(renamed);
        if let Some(call) = former.joining {
            self.answer(call, Answer::Joined(Err(GroupError::FencedInstance)));
        }
        if let Some(call) = former.syncing {
            self.answer(call, Answer::Synced(Err(GroupError::FencedInstance)));
        }
        former
    }

    /// A static member's new id is kept, or is not.
    pub(super) fn move_is_done(&mut self, moved: Moved, result: Result<(), AppendRefused>, now: Now) {
        let name = &moved.group;
        let Some(member) = self
            .groups
            .get_mut(name)
            .and_then(|group| group.members.get_mut(&moved.id))
        else {
            // It has left, or was replaced again; both have answered it.
            return;
        };
        if member.joining != Some(moved.call) {
            return;
        }
        if let Err(refused) = result {
            member.joining = None;
            let former = Member {
                looked_at: None,
                ..*moved.before
            };
            self.rename(name, &moved.id, &former.id);
            let id = former.id.clone();
            self.group(name).insert(former);
            self.expect_heartbeat(name, &id, now);
            let error = refusal(refused, GroupError::GroupTooLarge);
            self.answer(moved.call, Answer::Joined(Err(error)));
            return;
        }
        if self.group(name).phase != Phase::Stable {
            // It waits for the rebalance that has begun meanwhile.
            return;
        }
        let group = self.group(name);
        let mut joined = joined(group, &moved.id);
        if moved.may_skip_assignment {
            joined.skip_assignment = group.is_leader(&moved.id);
        } else {
            // An older client must not take itself for the leader: what it assigns would not be given to anybody.
            joined.leader.clone_from(&moved.leader_before);
            joined.members.clear();
        }
        let member = group.members.get_mut(&moved.id).expect("it was found above");
        member.joining = None;
        member.is_new = false;
        self.expect_heartbeat(name, &moved.id, now);
        self.answer(moved.call, Answer::Joined(Ok(joined)));
    }
}

/// What a member is told of the group's generation.
pub(super) fn joined(group: &Group, id: &Name) -> Joined {
    Joined {
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader_or_none(),
        member: id.clone(),
        skip_assignment: false,
        members: group.shown_to(id),
    }
}

/// A group may already be larger than it may be: then those who join first stay.
fn has_room(group: &Group, member: &str, size_max: usize) -> bool {
    let known = group.members.get(member);
    match group.phase {
        Phase::Empty => true,
        Phase::Preparing { .. } => {
            known.is_some_and(|member| member.joining.is_some()) || group.awaiting_join() < size_max
        }
        Phase::Completing | Phase::Stable => known.is_some() || group.members.len() < size_max,
    }
}

fn new_id(join: &Join, fresh: u128) -> Name {
    let front: &str = join.who.instance.as_ref().unwrap_or(&join.client_id);
    let front: String = front.chars().take(CLIENT_CHARS_MAX).collect();
    let hex = format!("{fresh:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    Arc::from(format!("{front}-{a}-{b}-{c}-{d}-{e}"))
}
