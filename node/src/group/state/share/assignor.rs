//! Who is to read which partitions of a share group: every partition of a topic is read by somebody who subscribes to it, and
//! nobody is idle who subscribes to anything. With more members than partitions a partition goes to several.
//!
//! The same input gives the same outcome. What a member had it keeps as far as that is even.

use super::super::super::request::{Assignment, Assignor};
use super::super::consumer::{Subscriber, assign as deal};
use headwater_protocol::ids::{PartitionIndex, TopicId};
use std::collections::BTreeMap;

/// What each is to have, in the order of the members. `topics` has how many partitions each topic has.
pub(super) fn assign(members: &[Subscriber], topics: &BTreeMap<TopicId, i32>) -> Vec<Assignment> {
    let mut assignments = deal(Assignor::Uniform, members, topics);
    let mut readers: BTreeMap<(TopicId, PartitionIndex), usize> = BTreeMap::new();
    for place in assignments.iter().flat_map(Assignment::iter) {
        *readers.entry(place).or_default() += 1;
    }
    for (member, assignment) in members.iter().zip(&mut assignments) {
        if !assignment.is_empty() {
            continue;
        }
        let is_read_by = |topic: TopicId| member.topics.contains(&topic);
        let places = readers.iter().filter(|((topic, _), _)| is_read_by(*topic));
        let least = places.min_by_key(|((topic, index), count)| {
            let is_new = !member.before.contains(*topic, *index);
            (**count, is_new)
        });
        if let Some((place, _)) = least {
            let place = *place;
            assignment.insert(place.0, place.1);
            *readers.entry(place).or_default() += 1;
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::request::Name;
    use std::collections::BTreeSet;

    const T: TopicId = TopicId([1; 16]);
    const U: TopicId = TopicId([2; 16]);

    fn member(id: &str, topics: &[TopicId], before: &[(TopicId, i32)]) -> Subscriber {
        Subscriber {
            id: Name::from(id),
            instance: None,
            topics: topics.iter().copied().collect(),
            before: before.iter().map(|(t, p)| (*t, PartitionIndex(*p))).collect(),
        }
    }

    fn text(assignments: &[Assignment]) -> String {
        let one = |it: &Assignment| {
            let places = it
                .iter()
                .map(|(topic, index)| format!("{}{index}", topic.bytes()[0]));
            places.collect::<Vec<_>>().join(",")
        };
        assignments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn everybody_reads_something_and_everything_is_read() {
        for (members, partitions, expected) in [
            (1, 3, "10,11,12"),
            (2, 3, "10,12 11"),
            (3, 3, "10 11 12"),
            (5, 2, "10 11 10 11 10"),
            (3, 0, "  "),
        ] {
            let ids = ["a", "b", "c", "d", "e"];
            let all: Vec<_> = ids[..members].iter().map(|id| member(id, &[T], &[])).collect();
            let found = assign(&all, &BTreeMap::from([(T, partitions)]));
            assert_eq!(
                text(&found),
                expected,
                "{members} members, {partitions} partitions"
            );
        }
    }

    #[test]
    fn who_shares_a_partition_keeps_it() {
        let members = [
            member("a", &[T], &[(T, 1)]),
            member("b", &[T], &[(T, 0)]),
            member("c", &[T], &[(T, 1)]),
        ];
        let found = assign(&members, &BTreeMap::from([(T, 2)]));
        assert_eq!(text(&found), "11 10 11");
    }

    #[test]
    fn nobody_is_given_what_it_does_not_subscribe_to() {
        let members = [
            member("a", &[T], &[]),
            member("b", &[T, U], &[]),
            member("c", &[U], &[]),
            member("d", &[], &[]),
        ];
        let found = assign(&members, &BTreeMap::from([(T, 1), (U, 1)]));
        for (member, assignment) in members.iter().zip(&found) {
            assert!(assignment.iter().all(|(topic, _)| member.topics.contains(&topic)));
            assert_eq!(assignment.is_empty(), member.topics.is_empty(), "{}", member.id);
        }
        let read: BTreeSet<_> = found.iter().flat_map(Assignment::iter).collect();
        assert_eq!(read.len(), 2);
    }
}
