//! [`Session`]: an incremental fetch session (KIP-227), so that a request names only what has changed.
//!
//! Pure. Owns what the broker believes this client asks for. It must never let that belief differ from what
//! was sent: after any doubt it starts over with a full request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_protocol::ids::{LeaderEpoch, Offset, TopicId};
use headwater_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use headwater_protocol::kafka::{ErrorCode, fetch::FetchResponse};
use headwater_protocol::primitives::{Str, Uuid};

use super::TopicPartition;

/// What one partition is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic_id: TopicId,
    pub(super) offset: Offset,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) bytes_max: i32,
}

/// The client's side of one session.
///
/// - `known` is what the broker would fetch if the next request named nothing.
/// - With `id` 0 there is no session, and every request is full.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: i32,
    epoch: i32,
    known: BTreeMap<TopicPartition, Wanted>,
}

impl Session {
    /// Puts into `request` what makes the broker fetch exactly `wanted`.
    pub(super) fn ask(&mut self, wanted: BTreeMap<TopicPartition, Wanted>, request: &mut FetchRequest) {
        request.session_id = self.id;
        request.session_epoch = self.epoch;
        let incremental = self.id != 0;
        let told = |key: &TopicPartition, want: &Wanted| incremental && self.known.get(key) == Some(want);
        let named = wanted.iter().filter(|(key, want)| !told(key, want));
        request.topics = topics(named);
        if incremental {
            let gone = self
                .known
                .iter()
                .filter(|(key, want)| wanted.get(key).is_none_or(|now| now.topic_id != want.topic_id));
            request.forgotten_topics_data = forgotten(gone);
        }
        self.known = wanted;
    }

    /// Takes note of an answer. `false` means that the broker has lost the session: nothing was fetched, and
    /// the next request is full.
    pub(super) fn answered(&mut self, answer: &FetchResponse) -> bool {
        let lost = [
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
            ErrorCode::INVALID_FETCH_SESSION_EPOCH,
            ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
        ];
        if lost.contains(&ErrorCode(answer.error_code)) {
            self.reset();
            return false;
        }
        if answer.error_code != ErrorCode::NONE.0 || answer.session_id == 0 {
            // Declined, which a broker may do at any time.
            self.reset();
        } else if self.id == 0 {
            self.id = answer.session_id;
            self.epoch = 1;
        } else {
            self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        }
        true
    }

    /// Starts over, for instance because an answer was lost.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn topics<'a>(named: impl Iterator<Item = (&'a TopicPartition, &'a Wanted)>) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut last: Option<(&Arc<str>, TopicId)> = None;
    for (key, want) in named {
        if last != Some((&key.topic, want.topic_id)) {
            last = Some((&key.topic, want.topic_id));
            topics.push(FetchTopic {
                topic: Str::from(&*key.topic),
                topic_id: Uuid::from(want.topic_id),
                ..Default::default()
            });
        }
        let partition = FetchPartition {
            partition: key.partition.0,
            current_leader_epoch: want.leader_epoch.0,
            fetch_offset: want.offset.0,
            partition_max_bytes: want.bytes_max,
            ..Default::default()
        };
        topics
            .last_mut()
            .expect("pushed above")
            .partitions
            .push(partition);
    }
    topics
}

fn forgotten<'a>(gone: impl Iterator<Item = (&'a TopicPartition, &'a Wanted)>) -> Vec<ForgottenTopic> {
    let mut topics: BTreeMap<(&Arc<str>, TopicId), BTreeSet<i32>> = BTreeMap::new();
    for (key, want) in gone {
        topics
            .entry((&key.topic, want.topic_id))
            .or_default()
            .insert(key.partition.0);
    }
    let topic = |((name, id), partitions): ((&Arc<str>, TopicId), BTreeSet<i32>)| ForgottenTopic {
        topic: Str::from(&**name),
        topic_id: Uuid::from(id),
        partitions: partitions.into_iter().collect(),
        ..Default::default()
    };
    topics.into_iter().map(topic).collect()
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::PartitionIndex;
    use proptest::prelude::*;

    use super::*;

    fn key(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: Arc::from("t"),
            partition: PartitionIndex(partition),
        }
    }

    fn want(offset: i64) -> Wanted {
        Wanted {
            topic_id: TopicId::NONE,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(0),
            bytes_max: 1,
        }
    }

    fn answer(session_id: i32, code: ErrorCode) -> FetchResponse {
        FetchResponse {
            session_id,
            error_code: code.0,
            ..Default::default()
        }
    }

    /// A broker's side of a session, in the plainest way.
    #[derive(Default)]
    struct Theirs {
        id: i32,
        epoch: i32,
        partitions: BTreeMap<i32, i64>,
    }

    impl Theirs {
        fn serve(&mut self, request: &FetchRequest) -> FetchResponse {
            if request.session_epoch == 0 {
                *self = Self {
                    id: self.id + 1,
                    epoch: 0,
                    partitions: BTreeMap::new(),
                };
            } else if request.session_id != self.id {
                return answer(0, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
            } else if request.session_epoch != self.epoch {
                return answer(0, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
            }
            self.epoch += 1;
            for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
                self.partitions
                    .insert(partition.partition, partition.fetch_offset);
            }
            for partition in request
                .forgotten_topics_data
                .iter()
                .flat_map(|topic| &topic.partitions)
            {
                self.partitions.remove(partition);
            }
            answer(self.id, ErrorCode::NONE)
        }
    }

    proptest! {
        /// Whatever is asked for, lost or declined: a broker that follows the rules fetches just that.
        #[test]
        fn the_broker_fetches_what_is_wanted(
            rounds in prop::collection::vec((prop::collection::btree_map(0i32..6, 0i64..4, 0..6), 0u8..8), 1..40)
        ) {
            let (mut ours, mut theirs) = (Session::default(), Theirs::default());
            for (wanted, chance) in rounds {
                let mut request = FetchRequest::default();
                ours.ask(wanted.iter().map(|(p, o)| (key(*p), want(*o))).collect(), &mut request);
                let answer = theirs.serve(&request);
                prop_assert_eq!(answer.error_code, 0);
                prop_assert_eq!(&theirs.partitions, &wanted);
                match chance {
                    0 => ours.reset(),
                    1 => drop(ours.answered(&FetchResponse { session_id: 0, ..answer })),
                    _ => prop_assert!(ours.answered(&answer)),
                }
            }
        }
    }

    #[test]
    fn a_lost_session_starts_over() {
        let mut session = Session::default();
        let mut request = FetchRequest::default();
        session.ask([(key(0), want(0))].into(), &mut request);
        assert!(session.answered(&answer(9, ErrorCode::NONE)));
        session.ask([(key(0), want(0))].into(), &mut request);
        assert_eq!(
            (request.session_id, request.session_epoch, request.topics.len()),
            (9, 1, 0)
        );
        assert!(!session.answered(&answer(0, ErrorCode::FETCH_SESSION_ID_NOT_FOUND)));
        session.ask([(key(0), want(0))].into(), &mut request);
        assert_eq!(
            (request.session_id, request.session_epoch, request.topics.len()),
            (0, 0, 1)
        );
    }
}
