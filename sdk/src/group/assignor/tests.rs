//! Divisions by example, and what holds of all of them.

use proptest::prelude::*;

use super::*;

fn member(id: &str, topics: &[&str]) -> Candidate {
    Candidate {
        id: id.to_owned(),
        topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
        generation: -1,
        ..Candidate::default()
    }
}

fn topics(counts: &[(&str, usize)]) -> BTreeMap<Arc<str>, usize> {
    counts
        .iter()
        .map(|(topic, count)| (Arc::from(*topic), *count))
        .collect()
}

/// Each member's share in words: topics and indexes.
fn told(division: &Division) -> Vec<String> {
    let share = |share: &BTreeSet<TopicPartition>| {
        let parts: Vec<String> = share
            .iter()
            .map(|it| format!("{}{}", it.topic, it.partition))
            .collect();
        parts.join(" ")
    };
    division.values().map(share).collect()
}

#[test]
fn partitions_are_divided_as_kafka_does_it() {
    let two = [member("x", &["a", "b"]), member("y", &["a", "b"])];
    let counts = topics(&[("a", 3), ("b", 3), ("unread", 5)]);
    let check = |assignor, members: &[Candidate], expected: &[&str]| {
        assert_eq!(
            told(&divide(assignor, members, &counts)),
            expected,
            "{assignor:?}"
        );
    };
    check(Assignor::Range, &two, &["a0 a1 b0 b1", "a2 b2"]);
    check(Assignor::RoundRobin, &two, &["a0 a2 b1", "a1 b0 b2"]);
    check(Assignor::CooperativeSticky, &two, &["a0 a2 b1", "a1 b0 b2"]);
    let unlike = [member("x", &["a"]), member("y", &["a", "b"]), member("z", &[])];
    check(Assignor::Range, &unlike, &["a0 a1", "a2 b0 b1 b2", ""]);
    check(Assignor::RoundRobin, &unlike, &["a0 a2", "a1 b0 b1 b2", ""]);
    check(
        Assignor::CooperativeSticky,
        &unlike,
        &["a0 a1 a2", "b0 b1 b2", ""],
    );
    check(Assignor::Range, &[member("x", &["gone"])], &[""]);
    check(Assignor::RoundRobin, &[], &[]);
}

#[test]
fn a_static_member_keeps_its_place_whatever_its_id_is() {
    let named = |id: &str, instance: &str| Candidate {
        instance: Some(instance.to_owned()),
        ..member(id, &["a"])
    };
    let counts = topics(&[("a", 2)]);
    for (first, second) in [("m", "n"), ("n", "m")] {
        let members = [named(first, "1"), named(second, "2")];
        let division = divide(Assignor::Range, &members, &counts);
        assert_eq!(
            division[first].iter().next().map(|it| it.partition),
            Some(PartitionIndex(0))
        );
    }
}

#[test]
fn a_member_that_comes_back_with_an_old_generation_owns_nothing_any_more() {
    let counts = topics(&[("a", 2)]);
    let owning = |id: &str, generation: i32| Candidate {
        owned: (0..2).map(|index| partition(&Arc::from("a"), index)).collect(),
        generation,
        ..member(id, &["a"])
    };
    let division = divide(
        Assignor::CooperativeSticky,
        &[owning("x", 4), owning("y", 5)],
        &counts,
    );
    // One of the two that y has is to move to x, once y has given it back.
    assert_eq!(division["x"].len(), 0);
    assert_eq!(division["y"].len(), 1);
    // Where both say the same, nobody is believed.
    let division = divide(
        Assignor::CooperativeSticky,
        &[owning("x", 5), owning("y", 5)],
        &counts,
    );
    assert_eq!((division["x"].len(), division["y"].len()), (1, 1));
}

fn world() -> impl Strategy<Value = (Vec<Candidate>, BTreeMap<Arc<str>, usize>)> {
    let counts = prop::collection::vec(0usize..7, 1..5);
    let wants = prop::collection::vec(prop::collection::vec(any::<bool>(), 5), 1..7);
    (counts, wants).prop_map(|(counts, wants)| {
        let name = |index: usize| -> Arc<str> { Arc::from(format!("t{index}")) };
        let counts: BTreeMap<Arc<str>, usize> = counts
            .into_iter()
            .enumerate()
            .map(|(index, count)| (name(index), count))
            .collect();
        let members = wants.into_iter().enumerate().map(|(number, wants)| {
            let wanted = wants.iter().enumerate().filter(|(_, wants)| **wants);
            Candidate {
                id: format!("m{number}"),
                topics: wanted.map(|(index, _)| name(index)).collect(),
                generation: -1,
                ..Candidate::default()
            }
        });
        (members.collect(), counts)
    })
}

/// Every partition that somebody wants has one owner, who wants it.
fn check_whole(members: &[Candidate], topics: &BTreeMap<Arc<str>, usize>, division: &Division) {
    let mut seen = BTreeSet::new();
    for member in members {
        for it in &division[&member.id] {
            assert!(
                member.topics.contains(&it.topic),
                "{} does not want {it}",
                member.id
            );
            assert!(seen.insert(it.clone()), "two owners of {it}");
        }
    }
    let wanted = topics
        .iter()
        .filter(|(topic, _)| members.iter().any(|member| member.topics.contains(*topic)));
    let count: usize = wanted.map(|(_, count)| *count).sum();
    assert_eq!(seen.len(), count, "every one has an owner");
}

/// The members with what they have now.
fn holding(members: &[Candidate], division: &Division, generation: i32) -> Vec<Candidate> {
    let with = |member: &Candidate| Candidate {
        owned: division.get(&member.id).cloned().unwrap_or_default(),
        generation,
        ..member.clone()
    };
    members.iter().map(with).collect()
}

/// Cooperative members divide until nobody has anything to give back, which takes a few rounds at most.
fn settle(members: &[Candidate], topics: &BTreeMap<Arc<str>, usize>, before: &Division) -> Division {
    let mut before = before.clone();
    before.retain(|id, _| members.iter().any(|member| &member.id == id));
    for generation in 1..6 {
        let holding = holding(members, &before, generation);
        let after = divide(Assignor::CooperativeSticky, &holding, topics);
        for (id, share) in &after {
            for (other, held) in before.iter().filter(|(other, _)| *other != id) {
                let taken = share.intersection(held).next();
                assert_eq!(taken, None, "{id} is given what {other} still has");
            }
        }
        let is_settled = before.iter().all(|(id, held)| held.is_subset(&after[id]));
        before = after;
        if is_settled {
            return before;
        }
    }
    panic!("there is no end to it: {before:?}");
}

proptest! {
    #[test]
    fn every_partition_has_one_owner_who_wants_it((members, topics) in world()) {
        for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
            check_whole(&members, &topics, &divide(assignor, &members, &topics));
        }
    }

    #[test]
    fn like_members_get_alike_much(count in 1usize..9, partitions in prop::collection::vec(0usize..9, 1..4)) {
        let names: Vec<String> = (0..partitions.len()).map(|index| format!("t{index}")).collect();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let members: Vec<_> = (0..count).map(|number| member(&format!("m{number}"), &wanted)).collect();
        let topics = names.iter().map(|name| Arc::from(name.as_str())).zip(partitions).collect();
        for assignor in [Assignor::RoundRobin, Assignor::CooperativeSticky] {
            let sizes: Vec<_> = divide(assignor, &members, &topics).values().map(BTreeSet::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn all_settles_whoever_goes_and_comes((members, topics) in world(), leaver in 0usize..7) {
        let before = settle(&members, &topics, &Division::new());
        check_whole(&members, &topics, &before);
        let stay: Vec<_> = members.iter().filter(|it| it.id != format!("m{leaver}")).cloned().collect();
        let after = settle(&stay, &topics, &before);
        check_whole(&stay, &topics, &after);
        let again = settle(&members, &topics, &after);
        check_whole(&members, &topics, &again);
    }

    #[test]
    fn no_more_moves_than_the_one_who_comes_gets(count in 1usize..9, partitions in 0usize..30) {
        let members: Vec<_> = (0..=count).map(|number| member(&format!("m{number}"), &["t"])).collect();
        let topics = topics(&[("t", partitions)]);
        let before = settle(&members[..count], &topics, &Division::new());
        let after = settle(&members, &topics, &before);
        let moved: usize = before.iter().map(|(id, share)| share.difference(&after[id]).count()).sum();
        prop_assert_eq!(moved, after[&format!("m{count}")].len());
        // It goes again: the others keep what they have.
        let left = settle(&members[..count], &topics, &after);
        for it in &members[..count] {
            prop_assert!(left[&it.id].is_superset(&after[&it.id]));
        }
    }
}
