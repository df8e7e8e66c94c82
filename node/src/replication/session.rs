//! One replica's fetch session with one leader: what is asked next, and what an answer means. Pure: time is an argument.
//!
//! Owns the state of each partition's fetching, and the session's ids. It never touches a log: what is to be done with
//! one is returned, and its result comes back by `done`.
//!
//! A partition that was given something rests, in the leader's session and here, until it was dealt with and is named
//! anew. So the others are asked for meanwhile, whatever it takes. A second request may be on its way behind a first: the
//! leader ends the wait of the first when it comes.

mod slots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData, ReplicaState,
};
use headwater_protocol::primitives::Records;

use self::slots::Slots;
use super::Key;
use crate::partition::{EpochEnd, LeaderMarks, Position};

/// Requests on their way at once: one that waits at the leader, and one that carries news.
const IN_FLIGHT_MAX: usize = 2;
/// How long a partition that failed once is left alone; each further time twice as long.
const BACKOFF: Duration = Duration::from_millis(10);

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) partition_bytes_max: usize,
    pub(super) response_bytes_max: usize,
    pub(super) wait_max: Duration,
    pub(super) backoff_max: Duration,
}

/// What is to be done for a partition.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// Find out where the replica goes on.
    Follow,
    Append {
        marks: LeaderMarks,
        records: Records,
        /// It comes nearer to the leader's watermark by half of what it copies, at least.
        is_gaining: bool,
    },
    /// Nothing was appended: what the leader says of itself, beside which fetching goes on.
    Note { marks: LeaderMarks },
    /// The histories part; the leader's side of it, and the end of the replica's log.
    Truncate { leader: EpochEnd, own_end: Offset },
    /// The leader begins behind the replica's end.
    Restart { at: Offset },
}

/// Work, in the epoch it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) key: Key,
    pub(super) epoch: LeaderEpoch,
    pub(super) work: Work,
}

/// What came of an answer.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) tasks: Vec<Task>,
    /// What the leader refused, for the log and the metrics.
    pub(super) refused: Vec<(Key, ErrorCode)>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The replica works: nothing is asked for.
    Busy,
    /// To be asked for from here on; the request that said so, if one did.
    Ready { at: Position, asked_in: Option<u64> },
    /// Something failed. Where to go on, if that is known still.
    Resting { until: Instant, at: Option<Position> },
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    epoch: LeaderEpoch,
    phase: Phase,
    failures: u32,
    /// The leader was last told of the partition in this request of the session.
    named_in: Option<u64>,
    /// Where it stood when it was given records last.
    behind: Option<Behind>,
}

/// How far a replica is from its leader's watermark.
#[derive(Debug, Clone, Copy)]
struct Behind {
    next: Offset,
    records: i64,
}

impl Behind {
    /// Whether the way has become shorter since `before` by half of what was copied, at least. So whoever rests only then
    /// reaches any leader that is slower than copying without a rest.
    fn is_gaining(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| 2 * (before.records - self.records) >= self.next.since(before.next))
    }
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    number: u64,
    /// The session it belongs to: an answer to an older one says nothing.
    session: u64,
    at: Instant,
}

/// See the module.
///
/// - Answers come in the order of the requests.
/// - While the id is 0, one request is on its way at most, and it names everything.
pub(super) struct Session {
    me: NodeId,
    limits: Limits,
    slots: Slots,
    /// In the leader's session and not wanted any more.
    forgotten: BTreeSet<Key>,
    id: i32,
    epoch: i32,
    session: u64,
    in_flight: VecDeque<InFlight>,
    number: u64,
}

impl Session {
    pub(super) fn new(me: NodeId, limits: Limits) -> Self {
        Self {
            me,
            limits,
            slots: Slots::default(),
            forgotten: BTreeSet::new(),
            id: 0,
            epoch: 0,
            session: 0,
            in_flight: VecDeque::new(),
            number: 0,
        }
    }

    /// Takes over which partitions are fetched, in which epochs. Returns what has to be found out first.
    pub(super) fn assign(&mut self, wanted: &BTreeMap<Key, LeaderEpoch>) -> Vec<Task> {
        let known = self.slots.iter().map(|(key, _)| *key);
        let gone: Vec<Key> = known.filter(|key| !wanted.contains_key(key)).collect();
        for key in gone {
            if let Some(slot) = self.slots.remove(&key)
                && slot.named_in.is_some()
            {
                self.forgotten.insert(key);
            }
        }
        let mut tasks = Vec::new();
        for (key, epoch) in wanted {
            let known = self.slots.get(key);
            if known.is_some_and(|slot| slot.epoch == *epoch) {
                continue;
            }
            let slot = Slot {
                epoch: *epoch,
                phase: Phase::Busy,
                failures: 0,
                named_in: known.and_then(|slot| slot.named_in),
                behind: None,
            };
            self.slots.insert(*key, slot);
            tasks.push(self.follow(*key, *epoch));
        }
        tasks
    }

    fn follow(&self, key: Key, epoch: LeaderEpoch) -> Task {
        let work = Work::Follow;
        Task { key, epoch, work }
    }

    /// The stream is a new one: the leader knows nothing of this session.
    pub(super) fn reconnected(&mut self) {
        self.in_flight.clear();
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        (self.id, self.epoch) = (0, 0);
        self.session += 1;
        self.forgotten.clear();
        self.slots.change_all(|slot| {
            slot.named_in = None;
            if let Phase::Ready { asked_in, .. } = &mut slot.phase {
                *asked_in = None;
            }
        });
    }

    /// The next request, if one is to be sent now.
    pub(super) fn next(&mut self, now: Instant, broker_epoch: Option<BrokerEpoch>) -> Option<FetchRequest> {
        let is_full = self.id == 0;
        let may_send = match self.in_flight.len() {
            0 => true,
            waiting => !is_full && waiting < IN_FLIGHT_MAX,
        };
        if !may_send {
            return None;
        }
        if !self.slots.has_ready() {
            return None;
        }
        let number = self.number + 1;
        // A session begins without anything asked for, and while it has no id each request names everything.
        if is_full {
            self.ask_anew();
        }
        let mut topics: BTreeMap<TopicId, Vec<FetchPartition>> = BTreeMap::new();
        let mut named = Vec::new();
        for (key, slot) in self.slots.unasked() {
            if let Phase::Ready { at, .. } = slot.phase {
                let wanted = self.wanted(key.1, slot.epoch, at);
                topics.entry(key.0).or_default().push(wanted);
                named.push(*key);
            }
        }
        if named.is_empty() && !self.in_flight.is_empty() {
            // Nothing new: the request that waits is enough.
            return None;
        }
        for key in named {
            self.slots.change(&key, |slot| {
                slot.named_in = Some(number);
                if let Phase::Ready { asked_in, .. } = &mut slot.phase {
                    *asked_in = Some(number);
                }
            });
            self.forgotten.remove(&key);
        }
        let request = self.request(topics, broker_epoch);
        self.number = number;
        self.in_flight.push_back(InFlight {
            number,
            session: self.session,
            at: now,
        });
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        Some(request)
    }

    fn ask_anew(&mut self) {
        self.slots.change_all(|slot| {
            if let Phase::Ready { asked_in, .. } = &mut slot.phase {
                *asked_in = None;
            }
        });
    }

    fn wanted(&self, index: PartitionIndex, epoch: LeaderEpoch, at: Position) -> FetchPartition {
        FetchPartition {
            partition: index.value(),
            current_leader_epoch: epoch.value(),
            fetch_offset: at.next.value(),
            last_fetched_epoch: at.epoch.value(),
            log_start_offset: at.log_start.value(),
            partition_max_bytes: bytes(self.limits.partition_bytes_max),
            ..FetchPartition::default()
        }
    }

    fn request(
        &mut self,
        topics: BTreeMap<TopicId, Vec<FetchPartition>>,
        broker_epoch: Option<BrokerEpoch>,
    ) -> FetchRequest {
        let topics = topics.into_iter().map(|(id, partitions)| FetchTopic {
            topic_id: id.into(),
            partitions,
            ..FetchTopic::default()
        });
        let mut forgotten: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, index) in std::mem::take(&mut self.forgotten) {
            forgotten.entry(topic).or_default().push(index.value());
        }
        let forgotten = forgotten.into_iter().map(|(id, partitions)| ForgottenTopic {
            topic_id: id.into(),
            partitions,
            ..ForgottenTopic::default()
        });
        FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.me.value(),
                replica_epoch: broker_epoch.map_or(-1, BrokerEpoch::value),
                ..ReplicaState::default()
            },
            max_wait_ms: i32::try_from(self.limits.wait_max.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: bytes(self.limits.response_bytes_max),
            session_id: self.id,
            session_epoch: self.epoch,
            topics: topics.collect(),
            forgotten_topics_data: forgotten.collect(),
            ..FetchRequest::default()
        }
    }

    /// Takes an answer over. An error is about all of it: the stream is of no use any more.
    pub(super) fn answered(&mut self, response: FetchResponse, now: Instant) -> Result<Taken, ErrorCode> {
        let Some(request) = self.in_flight.pop_front() else {
            return Err(ErrorCode::CORRUPT_MESSAGE);
        };
        let is_current = request.session == self.session;
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND
            | ErrorCode::INVALID_FETCH_SESSION_EPOCH
            | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR => {
                if is_current {
                    self.begin_anew();
                }
                return Ok(Taken::default());
            }
            code => return Err(code),
        }
        if is_current && self.id != response.session_id {
            if self.id != 0 {
                // The leader forgot the session, and answered once more.
                self.begin_anew();
            } else {
                self.id = response.session_id;
            }
        }
        if self.id == 0 {
            self.epoch = 0;
        }
        let mut taken = Taken::default();
        for topic in response.responses {
            let id = TopicId::from(topic.topic_id);
            for data in topic.partitions {
                let key = (id, PartitionIndex(data.partition_index));
                self.take(key, data, request.number, now, &mut taken);
            }
        }
        Ok(taken)
    }

    fn take(&mut self, key: Key, data: PartitionData, number: u64, now: Instant, taken: &mut Taken) {
        let Some(slot) = self.slots.get(&key) else {
            return;
        };
        let Phase::Ready { at, asked_in } = slot.phase else {
            return;
        };
        // One that was named anew meanwhile is answered anew.
        if asked_in.is_none_or(|asked| asked > number) {
            return;
        }
        let epoch = slot.epoch;
        let marks = LeaderMarks {
            epoch,
            high_watermark: Offset(data.high_watermark),
            log_start: Offset(data.log_start_offset),
        };
        let work = match ErrorCode(data.error_code) {
            ErrorCode::NONE if data.diverging_epoch.end_offset >= 0 || data.diverging_epoch.epoch >= 0 => {
                Work::Truncate {
                    leader: EpochEnd {
                        epoch: LeaderEpoch(data.diverging_epoch.epoch),
                        end: Offset(data.diverging_epoch.end_offset),
                    },
                    own_end: at.next,
                }
            }
            ErrorCode::NONE => match data.records.filter(|records| !records.is_empty()) {
                Some(records) => {
                    let behind = Behind {
                        next: at.next,
                        records: marks.high_watermark.since(at.next),
                    };
                    let is_gaining = behind.is_gaining(slot.behind);
                    self.slots.change(&key, |slot| slot.behind = Some(behind));
                    Work::Append {
                        marks,
                        records,
                        is_gaining,
                    }
                }
                None => {
                    self.slots.change(&key, |slot| slot.failures = 0);
                    let work = Work::Note { marks };
                    return taken.tasks.push(Task { key, epoch, work });
                }
            },
            ErrorCode::OFFSET_OUT_OF_RANGE if marks.log_start > at.next => {
                Work::Restart { at: marks.log_start }
            }
            code => {
                taken.refused.push((key, code));
                self.rest(key, now, Some(at));
                return;
            }
        };
        self.slots.change(&key, |slot| slot.phase = Phase::Busy);
        taken.tasks.push(Task { key, epoch, work });
    }

    /// The work for a partition is done, and it goes on at `result`; None: it failed.
    pub(super) fn done(&mut self, key: Key, epoch: LeaderEpoch, result: Option<Position>, now: Instant) {
        let Some(slot) = self.slots.get(&key) else {
            return;
        };
        if slot.epoch != epoch || !matches!(slot.phase, Phase::Busy) {
            return;
        }
        match result {
            Some(at) => self.slots.change(&key, |slot| {
                slot.failures = 0;
                slot.phase = Phase::Ready { at, asked_in: None };
            }),
            None => self.rest(key, now, None),
        }
    }

    fn rest(&mut self, key: Key, now: Instant, at: Option<Position>) {
        let longest = self.limits.backoff_max;
        self.slots.change(&key, |slot| {
            let pause = BACKOFF * 2_u32.saturating_pow(slot.failures.min(16));
            slot.failures += 1;
            let until = now + pause.min(longest);
            slot.phase = Phase::Resting { until, at };
        });
    }

    /// Those that have rested long enough go on. Returns what has to be found out for that.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<Task> {
        let mut tasks = Vec::new();
        for key in self.slots.rested(now) {
            self.slots.change(&key, |slot| {
                let Phase::Resting { at, .. } = slot.phase else {
                    return;
                };
                slot.phase = match at {
                    Some(at) => Phase::Ready { at, asked_in: None },
                    None => {
                        let (work, epoch) = (Work::Follow, slot.epoch);
                        tasks.push(Task { key, epoch, work });
                        Phase::Busy
                    }
                };
            });
        }
        tasks
    }

    /// When `wake` has something to do next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.slots.wakes_at()
    }

    /// Since when the oldest request waits for its answer.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|request| request.at)
    }
}

fn bytes(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
