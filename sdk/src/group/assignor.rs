//! How the leader of a group divides partitions among its members, as Kafka's clients do it.
//!
//! Pure. Whatever the subscriptions are: each partition of a topic that somebody is subscribed to gets exactly one owner,
//! who is subscribed to it. [`Assignor::CooperativeSticky`] alone leaves out, for one generation, what has to move: its
//! former owner gives it back first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_protocol::ids::PartitionIndex;

use crate::consumer::TopicPartition;

/// A way to divide partitions among members. All members of a group must have one in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Topic by topic, each member gets partitions that follow each other: the same ones of topics with as many.
    Range,
    /// One after the other over all topics.
    RoundRobin,
    /// As evenly as possible while moving as little as possible, and members keep on reading what they keep (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// As groups call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether members keep what they have while the group divides anew.
    pub(super) fn is_cooperative(self) -> bool {
        match self {
            Self::Range | Self::RoundRobin => false,
            Self::CooperativeSticky => true,
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) topics: BTreeSet<Arc<str>>,
    /// What it has, and since which generation.
    pub(super) owned: BTreeSet<TopicPartition>,
    pub(super) generation: i32,
}

impl Candidate {
    /// Static members keep their place among the others, whatever their id is this time.
    fn rank(&self) -> (bool, &str) {
        (
            self.instance.is_none(),
            self.instance.as_deref().unwrap_or(&self.id),
        )
    }
}

/// What each member gets, by its id.
pub(super) type Division = BTreeMap<String, BTreeSet<TopicPartition>>;

/// Divides the partitions of `topics`, each with so many. Topics that are not there have none.
pub(super) fn divide(
    assignor: Assignor,
    members: &[Candidate],
    topics: &BTreeMap<Arc<str>, usize>,
) -> Division {
    let mut members: Vec<&Candidate> = members.iter().collect();
    members.sort_by_key(|member| member.rank());
    let shares = match assignor {
        Assignor::Range => range(&members, topics),
        Assignor::RoundRobin => round_robin(&members, topics),
        Assignor::CooperativeSticky => {
            let owners = owners(&members, topics);
            let shares = sticky(&members, topics, &owners);
            without_what_others_hold(shares, &owners)
        }
    };
    let ids = members.iter().map(|member| member.id.clone());
    ids.zip(shares).collect()
}

/// What each member gets, by its place.
type Shares = Vec<BTreeSet<TopicPartition>>;

fn range(members: &[&Candidate], topics: &BTreeMap<Arc<str>, usize>) -> Shares {
    let mut shares = vec![BTreeSet::new(); members.len()];
    for (topic, count) in topics {
        let subscribed = subscribers(members, topic);
        if subscribed.is_empty() {
            continue;
        }
        let (each, more) = (count / subscribed.len(), count % subscribed.len());
        let mut next = 0;
        for (place, member) in subscribed.iter().enumerate() {
            let end = next + each + usize::from(place < more);
            shares[*member].extend((next..end).map(|index| partition(topic, index)));
            next = end;
        }
    }
    shares
}

fn round_robin(members: &[&Candidate], topics: &BTreeMap<Arc<str>, usize>) -> Shares {
    let mut shares = vec![BTreeSet::new(); members.len()];
    let mut turn = 0;
    for (topic, count) in topics {
        if subscribers(members, topic).is_empty() {
            continue;
        }
        for index in 0..*count {
            while !members[turn % members.len()].topics.contains(topic) {
                turn += 1;
            }
            shares[turn % members.len()].insert(partition(topic, index));
            turn += 1;
        }
    }
    shares
}

/// Who holds what, of what is there and still wanted. Of several who claim a partition the one of the newest generation
/// does; of equals nobody is believed.
fn owners(
    members: &[&Candidate],
    topics: &BTreeMap<Arc<str>, usize>,
) -> BTreeMap<TopicPartition, Option<usize>> {
    let mut claims: BTreeMap<TopicPartition, (i32, Option<usize>)> = BTreeMap::new();
    for (place, member) in members.iter().enumerate() {
        for owned in &member.owned {
            let index = usize::try_from(owned.partition.0).unwrap_or(usize::MAX);
            if topics.get(&owned.topic).is_none_or(|count| index >= *count) {
                continue;
            }
            let holder = member.topics.contains(&owned.topic).then_some(place);
            let claim = claims.entry(owned.clone()).or_insert((member.generation, holder));
            match member.generation.cmp(&claim.0) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Greater => *claim = (member.generation, holder),
                std::cmp::Ordering::Equal if claim.1 == holder => {}
                std::cmp::Ordering::Equal => claim.1 = None,
            }
        }
    }
    claims
        .into_iter()
        .map(|(partition, (_, holder))| (partition, holder))
        .collect()
}

fn sticky(
    members: &[&Candidate],
    topics: &BTreeMap<Arc<str>, usize>,
    owners: &BTreeMap<TopicPartition, Option<usize>>,
) -> Shares {
    let mut shares: Shares = vec![BTreeSet::new(); members.len()];
    let mut free = Vec::new();
    for (topic, count) in topics {
        let subscribed = subscribers(members, topic);
        if subscribed.is_empty() {
            continue;
        }
        for index in 0..*count {
            let it = partition(topic, index);
            match owners.get(&it).copied().flatten() {
                Some(owner) => drop(shares[owner].insert(it)),
                None => free.push((subscribed.len(), it)),
            }
        }
    }
    // Those that few can take come first.
    free.sort();
    for (_, it) in free {
        let takers = subscribers(members, &it.topic);
        let least = takers.into_iter().min_by_key(|taker| shares[*taker].len());
        let taker = least.expect("what nobody is subscribed to is not divided");
        shares[taker].insert(it);
    }
    while even_out(members, &mut shares) {}
    shares
}

/// Moves one partition from who has most, of those who can give to somebody with at least two fewer. Each move makes the
/// shares more even, so there is an end to it.
fn even_out(members: &[&Candidate], shares: &mut Shares) -> bool {
    let mut givers: Vec<usize> = (0..members.len()).collect();
    givers.sort_by_key(|giver| std::cmp::Reverse(shares[*giver].len()));
    for giver in givers {
        let taker = |it: &TopicPartition| {
            let takers = subscribers(members, &it.topic).into_iter();
            let least = takers.min_by_key(|taker| shares[*taker].len())?;
            (shares[least].len() + 1 < shares[giver].len()).then_some(least)
        };
        let found = shares[giver].iter().find_map(|it| Some((it.clone(), taker(it)?)));
        if let Some((it, taker)) = found {
            shares[giver].remove(&it);
            shares[taker].insert(it);
            return true;
        }
    }
    false
}

/// A member is given what another one holds when that one has given it back.
fn without_what_others_hold(mut shares: Shares, owners: &BTreeMap<TopicPartition, Option<usize>>) -> Shares {
    for (place, share) in shares.iter_mut().enumerate() {
        share.retain(|it| match owners.get(it) {
            Some(Some(owner)) => *owner == place,
            // Nobody holds it, or nobody who will be asked to give it back.
            Some(None) | None => true,
        });
    }
    shares
}

fn subscribers(members: &[&Candidate], topic: &Arc<str>) -> Vec<usize> {
    let subscribed = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.topics.contains(topic));
    subscribed.map(|(place, _)| place).collect()
}

fn partition(topic: &Arc<str>, index: usize) -> TopicPartition {
    TopicPartition {
        topic: Arc::clone(topic),
        partition: PartitionIndex(i32::try_from(index).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests;
