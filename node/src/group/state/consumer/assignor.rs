//! Who is to have which partitions: the two ways of dealing them out that Kafka has as well.
//!
//! Every partition of a topic goes to one of the members that subscribe to it. The same input gives the same outcome.

use super::super::super::request::{Assignment, Assignor, Name};
use headwater_protocol::ids::{PartitionIndex, TopicId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

type Place = (TopicId, PartitionIndex);

/// One member, as far as it matters here.
#[derive(Debug, Clone)]
pub(in super::super) struct Subscriber {
    pub(in super::super) id: Name,
    pub(in super::super) instance: Option<Name>,
    pub(in super::super) topics: BTreeSet<TopicId>,
    /// What it was to have up to now.
    pub(in super::super) before: Assignment,
}

/// What each is to have, in the order of the members. `topics` has how many partitions each topic has.
pub(in super::super) fn assign(
    assignor: Assignor,
    members: &[Subscriber],
    topics: &BTreeMap<TopicId, i32>,
) -> Vec<Assignment> {
    match assignor {
        Assignor::Range => range(members, topics),
        Assignor::Uniform => uniform(members, topics),
    }
}

fn range(members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Vec<Assignment> {
    let mut assignments = vec![Assignment::default(); members.len()];
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Static members first, by what stays the same when they come back.
    order.sort_by_key(|n| match &members[*n].instance {
        Some(instance) => (false, instance),
        None => (true, &members[*n].id),
    });
    for (topic, count) in topics {
        let readers = order.iter().filter(|n| members[**n].topics.contains(topic));
        let readers: Vec<usize> = readers.copied().collect();
        let Ok(among) = i32::try_from(readers.len()) else {
            continue;
        };
        if among == 0 {
            continue;
        }
        let (each, mut more) = (count / among, count % among);
        let mut next = 0;
        for reader in readers {
            let share = each + i32::from(more > 0);
            more = (more - 1).max(0);
            for index in next..next + share {
                assignments[reader].insert(*topic, PartitionIndex(index));
            }
            next += share;
        }
    }
    assignments
}

/// What is being dealt out.
struct Deal<'a> {
    members: &'a [Subscriber],
    has: Vec<BTreeSet<Place>>,
    /// The members by how much they have, the one with least first.
    by_load: BTreeSet<(usize, usize)>,
}

fn uniform(members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Vec<Assignment> {
    let all = topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|index| (*topic, PartitionIndex(index))));
    let mut unassigned: BTreeSet<Place> = all.collect();
    let total = unassigned.len();
    let mut deal = Deal {
        members,
        has: vec![BTreeSet::new(); members.len()],
        by_load: BTreeSet::new(),
    };
    // What somebody had and may keep stays where it is.
    for (n, member) in members.iter().enumerate() {
        let stays = |place: &Place| member.topics.contains(&place.0) && unassigned.remove(place);
        deal.has[n] = member.before.iter().filter(stays).collect();
    }
    let first = members.first().map(|member| &member.topics);
    if members.iter().all(|member| Some(&member.topics) == first) {
        deal.trim(total, &mut unassigned);
    }
    deal.by_load = deal
        .has
        .iter()
        .enumerate()
        .map(|(n, has)| (has.len(), n))
        .collect();
    for place in unassigned {
        deal.give(place);
    }
    deal.balance();
    let assignments = deal.has.into_iter();
    assignments.map(|has| has.into_iter().collect()).collect()
}

impl Deal<'_> {
    /// Where all subscribe to the same topics, nobody keeps more than its share. Those with most keep one more.
    fn trim(&mut self, total: usize, unassigned: &mut BTreeSet<Place>) {
        let Some(share) = total.checked_div(self.members.len()) else {
            return;
        };
        let mut more = total % self.members.len();
        let mut order: Vec<usize> = (0..self.has.len()).collect();
        order.sort_by_key(|n| Reverse(self.has[*n].len()));
        for n in order {
            let quota = share + usize::from(more > 0);
            more = more.saturating_sub(1);
            while self.has[n].len() > quota {
                unassigned.extend(self.has[n].pop_last());
            }
        }
    }

    /// Gives a partition to whoever has least of those that subscribe to it.
    fn give(&mut self, place: Place) {
        let mut by_load = self.by_load.iter();
        let reader = by_load.find(|(_, n)| self.members[*n].topics.contains(&place.0));
        if let Some((_, n)) = reader.copied() {
            self.put(n, place);
        }
    }

    fn put(&mut self, n: usize, place: Place) {
        self.by_load.remove(&(self.has[n].len(), n));
        self.has[n].insert(place);
        self.by_load.insert((self.has[n].len(), n));
    }

    /// Moves partitions from who has more to who has less by two at least and may have them, as long as there are such.
    /// Each move makes the sum of the squares smaller, so it ends.
    fn balance(&mut self) {
        while let Some((from, to, place)) = self.find_move() {
            self.by_load.remove(&(self.has[from].len(), from));
            self.has[from].remove(&place);
            self.by_load.insert((self.has[from].len(), from));
            self.put(to, place);
        }
    }

    fn find_move(&self) -> Option<(usize, usize, Place)> {
        let (least, _) = *self.by_load.first()?;
        for (most, from) in self.by_load.iter().rev() {
            if *most < least + 2 {
                return None;
            }
            let lighter = self.by_load.iter().take_while(|(load, _)| load + 2 <= *most);
            for (_, to) in lighter {
                let topics = &self.members[*to].topics;
                let place = self.has[*from]
                    .iter()
                    .rev()
                    .find(|place| topics.contains(&place.0));
                if let Some(place) = place {
                    return Some((*from, *to, *place));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
