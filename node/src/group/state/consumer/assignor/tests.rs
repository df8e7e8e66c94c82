//! How partitions are dealt out: everything to somebody who wants it, evenly, and what need not move stays.

use super::*;
use proptest::prelude::*;

fn topic(n: u8) -> TopicId {
    TopicId([n; 16])
}

fn subscriber(id: &str, topics: &[u8], before: &[(u8, i32)]) -> Subscriber {
    Subscriber {
        id: Name::from(id),
        instance: None,
        topics: topics.iter().map(|n| topic(*n)).collect(),
        before: before
            .iter()
            .map(|(n, index)| (topic(*n), PartitionIndex(*index)))
            .collect(),
    }
}

fn shown(assignments: &[Assignment]) -> Vec<Vec<(u8, i32)>> {
    let shown = |it: &Assignment| {
        it.iter()
            .map(|(topic, index)| (topic.bytes()[0], index.value()))
            .collect()
    };
    assignments.iter().map(shown).collect()
}

#[test]
fn ranges_follow_the_order_of_the_members() {
    let topics = BTreeMap::from([(topic(1), 3), (topic(2), 3)]);
    let mut members = vec![subscriber("b", &[1, 2], &[]), subscriber("a", &[1, 2], &[])];
    let both = [(1, 2), (2, 2)];
    let most = [(1, 0), (1, 1), (2, 0), (2, 1)];
    let dealt = assign(Assignor::Range, &members, &topics);
    assert_eq!(shown(&dealt), [both.to_vec(), most.to_vec()]);
    // Static members come first.
    members[0].instance = Some(Name::from("z"));
    let dealt = assign(Assignor::Range, &members, &topics);
    assert_eq!(shown(&dealt), [most.to_vec(), both.to_vec()]);
    members.push(subscriber("c", &[2], &[]));
    let dealt = assign(Assignor::Range, &members, &topics);
    assert_eq!(shown(&dealt)[2], [(2, 2)]);
}

#[test]
fn what_need_not_move_stays() {
    let topics = BTreeMap::from([(topic(1), 5)]);
    let members = [
        subscriber("a", &[1], &[(1, 4)]),
        subscriber("b", &[1], &[(1, 0), (1, 1), (1, 2), (1, 3)]),
    ];
    let dealt = assign(Assignor::Uniform, &members, &topics);
    assert_eq!(
        shown(&dealt),
        [vec![(1, 3), (1, 4)], vec![(1, 0), (1, 1), (1, 2)]]
    );
    assert_eq!(assign(Assignor::Uniform, &[], &topics).len(), 0);
}

proptest! {
    #[test]
    fn everything_goes_to_somebody_who_wants_it_and_evenly(
        wants in prop::collection::vec(prop::collection::btree_set(0u8..4, 1..4), 1..7),
        counts in prop::collection::vec(0i32..7, 4),
        shift in 0usize..5,
    ) {
        let counts: BTreeMap<_, _> = (0u8..).zip(counts).collect();
        let wanted: BTreeSet<u8> = wants.iter().flatten().copied().collect();
        let topics: BTreeMap<_, _> = wanted.iter().map(|n| (topic(*n), counts[n])).collect();
        let mut members: Vec<_> = wants
            .iter()
            .enumerate()
            .map(|(n, wants)| subscriber(&n.to_string(), &wants.iter().copied().collect::<Vec<_>>(), &[]))
            .collect();
        for assignor in Assignor::ALL {
            for round in 0..3 {
                let dealt = assign(assignor, &members, &topics);
                let all: Vec<_> = dealt.iter().flat_map(Assignment::iter).collect();
                let distinct: BTreeSet<_> = all.iter().collect();
                let expected: i32 = topics.values().sum();
                prop_assert_eq!((all.len(), distinct.len()), (expected as usize, expected as usize));
                for (member, has) in members.iter().zip(&dealt) {
                    prop_assert!(has.iter().all(|(topic, _)| member.topics.contains(&topic)));
                }
                let is_even = wants.iter().all(|it| *it == wants[0]);
                if assignor == Assignor::Uniform && is_even {
                    let sizes: Vec<_> = dealt.iter().map(Assignment::count).collect();
                    prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
                }
                for (member, has) in members.iter_mut().zip(&dealt) {
                    member.before = has.clone();
                }
                let again = assign(assignor, &members, &topics);
                prop_assert_eq!(&again, &dealt, "nothing moves without a reason");
                if round == 0 {
                    // Others have what they had.
                    let before: Vec<_> = members.iter().map(|it| it.before.clone()).collect();
                    let count = members.len();
                    for (n, member) in members.iter_mut().enumerate() {
                        member.before = before[(n + shift) % count].clone();
                    }
                }
            }
        }
    }
}
