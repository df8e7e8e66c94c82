//! How a member gets from what it has to what it is to have: it gives up first, and is given only what nobody else has.

use super::super::super::request::{Assignment, Epoch};
use super::super::super::store::{CurrentAssignment, MemberStage};
use super::{ConsumerGroup, Member};
use headwater_protocol::ids::{PartitionIndex, TopicId};

/// What a member is to come to.
pub(super) struct Target<'a> {
    pub(super) epoch: Epoch,
    pub(super) assignment: &'a Assignment,
    /// What the member says that it has; None: it did not say.
    pub(super) owned: Option<&'a Assignment>,
}

/// The next step of a member of `group`, which knows it as it was before; its own as they are if there is none.
pub(super) fn next_step(group: &ConsumerGroup, member: &Member, target: &Target<'_>) -> CurrentAssignment {
    let current = &member.current;
    match current.stage {
        MemberStage::Stable if current.epoch == target.epoch => current.clone(),
        MemberStage::Stable | MemberStage::Unreleased => towards(group, member, current.epoch, target),
        MemberStage::Unrevoked if may_have(target.owned, &current.revoking) => current.clone(),
        // It has given up what it had to, for this epoch.
        MemberStage::Unrevoked => towards(group, member, current.epoch.next(), target),
    }
}

/// Whether a member may have some of these partitions: it does not say that it has none of them.
fn may_have(owned: Option<&Assignment>, partitions: &Assignment) -> bool {
    owned.is_none_or(|owned| owned.overlaps(partitions))
}

fn towards(group: &ConsumerGroup, member: &Member, epoch: Epoch, target: &Target<'_>) -> CurrentAssignment {
    let is_target = |place: &(TopicId, PartitionIndex)| target.assignment.contains(place.0, place.1);
    let before = &member.current.assigned;
    let kept: Assignment = before.iter().filter(is_target).collect();
    let revoking: Assignment = before.iter().filter(|place| !is_target(place)).collect();
    let step = |epoch, stage, assigned, revoking| CurrentAssignment {
        epoch,
        previous_epoch: member.current.epoch,
        stage,
        assigned,
        revoking,
    };
    if !revoking.is_empty() && may_have(target.owned, &revoking) {
        return step(epoch, MemberStage::Unrevoked, kept, revoking);
    }
    let wanted = target
        .assignment
        .iter()
        .filter(|(topic, index)| !kept.contains(*topic, *index));
    let (free, taken): (Vec<_>, Vec<_>) =
        wanted.partition(|(topic, index)| group.is_free_for(&member.id, *topic, *index));
    let stage = if taken.is_empty() {
        MemberStage::Stable
    } else {
        MemberStage::Unreleased
    };
    let assigned = kept.iter().chain(free).collect();
    let next = step(target.epoch, stage, assigned, Assignment::default());
    // Nothing has come free: that it was looked at again is no news.
    let current = &member.current;
    if (next.epoch, next.stage, &next.assigned) == (current.epoch, current.stage, &current.assigned) {
        return current.clone();
    }
    next
}
