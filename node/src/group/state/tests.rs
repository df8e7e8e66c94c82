//! The rules of groups, one by one, with a log that takes what it is told to take.

mod commits;
mod consumers;
mod consumers_random;
mod members;
mod random;
mod rebalances;
mod sharers;
mod statics;

use super::super::request::{
    Commit, Heartbeat, Identity, Join, Joined, NewOffset, Protocol, Stage, SyncGroup,
};
use super::super::store::{Replay, Restored};
use super::*;
use crate::metadata::{Image, PartitionState, Record};
use crate::sys::clock::Clock;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId};
use std::sync::Arc;

const GROUP: &str = "g";
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);
const DELAY: Duration = Duration::from_secs(3);
const DAY: Duration = Duration::from_secs(86_400);

fn settings() -> Settings {
    Settings {
        session_timeout_min: Duration::from_secs(6),
        session_timeout_max: Duration::from_secs(1800),
        initial_delay: DELAY,
        size_max: 100,
        metadata_bytes_max: 16,
        retention: 7 * DAY,
        retention_check: Duration::from_secs(600),
        consumer_session_timeout: SESSION,
        heartbeat_interval: Duration::from_secs(5),
        consumer_size_max: 100,
        share_session_timeout: SESSION,
        share_heartbeat_interval: Duration::from_secs(5),
        share_size_max: 3,
        assignors: vec![Assignor::Uniform, Assignor::Range],
    }
}

/// A partition's groups, with the log that they are written to.
struct Lab {
    state: State,
    clock: Clock,
    calls: u64,
    ids: u128,
    answers: BTreeMap<CallId, Answer>,
    /// What was written and is not in the log yet.
    held: Vec<(WriteId, Vec<GroupRecord>)>,
    /// What is in the log for good.
    log: Vec<GroupRecord>,
    /// Writes stay on their way until they are let go.
    holds: bool,
    /// What the log says to what comes now.
    refuses: Option<AppendRefused>,
    image: Image,
}

impl Lab {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        Self {
            state: State::new(settings),
            clock: Clock::manual(1_700_000_000_000),
            calls: 0,
            ids: 0,
            answers: BTreeMap::new(),
            held: Vec::new(),
            log: Vec::new(),
            holds: false,
            refuses: None,
            image: Image::default(),
        }
    }

    /// Makes a topic, or gives it more partitions. Its id is its name's first letter.
    fn make_topic(&mut self, name: &str, partitions: i32) {
        let topic = topic_id(name);
        let header = Record::Topic {
            id: topic,
            name: name.to_owned(),
            internal: false,
            mirror: None,
        };
        let partition = |index| Record::Partition {
            topic,
            index: PartitionIndex(index),
            state: PartitionState::fresh(vec![NodeId(0)]),
        };
        let records: Vec<_> = std::iter::once(header)
            .chain((0..partitions).map(partition))
            .collect();
        self.change_metadata(&records);
    }

    fn change_metadata(&mut self, records: &[Record]) {
        self.image.apply_all(self.image.offset.plus(1), records);
        self.state.see(Arc::new(self.image.clone()));
    }

    fn now(&self) -> Now {
        Now {
            at: self.clock.now(),
            unix_ms: self.clock.unix_ms(),
        }
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    /// Does what the state wants done.
    fn settle(&mut self) {
        loop {
            let effects = self.state.take_effects();
            if effects.is_empty() && (self.holds || self.held.is_empty()) {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Answer { call, answer } => {
                        let before = self.answers.insert(call, answer);
                        assert_eq!(before, None, "a call is answered once");
                    }
                    Effect::Write { write, records, .. } => self.held.push((write, records)),
                }
            }
            if !self.holds {
                for (write, records) in std::mem::take(&mut self.held) {
                    let at = Offset(i64::try_from(self.log.len()).unwrap());
                    let result = self.refuses.map_or(Ok(at), Err);
                    if result.is_ok() {
                        self.log.extend(records);
                    }
                    let now = self.now();
                    self.state.appended(write, result, now);
                }
            }
        }
    }

    fn let_go(&mut self) {
        self.holds = false;
        self.settle();
        self.holds = true;
    }

    /// Time goes on, from one deadline to the next.
    fn pass(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while let Some(due) = self.state.next_deadline().filter(|due| *due <= end) {
            self.clock
                .advance(due.saturating_duration_since(self.clock.now()));
            let now = self.now();
            self.state.tick(now);
            self.settle();
        }
        self.clock.advance(end - self.clock.now());
    }

    fn join_as(&mut self, join: &Join) -> CallId {
        let call = self.call();
        self.ids += 1;
        let (now, fresh) = (self.now(), self.ids);
        self.state.join(now, call, join, fresh);
        self.settle();
        call
    }

    fn join(&mut self, member: &str) -> CallId {
        self.join_as(&join(member))
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> CallId {
        let call = self.call();
        let assignments = assignments.iter();
        let sync = SyncGroup {
            who: who(member),
            generation: Generation(generation),
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .map(|(id, given)| (Name::from(*id), Bytes::copy_from_slice(given.as_bytes())))
                .collect(),
        };
        let now = self.now();
        self.state.sync(now, call, &sync);
        self.settle();
        call
    }

    fn beat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let now = self.now();
        let beat = Heartbeat {
            who: who(member),
            generation: Generation(generation),
        };
        let result = self.state.heartbeat(now, &beat);
        self.settle();
        result
    }

    fn leave(&mut self, who: Identity) -> Result<(), GroupError> {
        let now = self.now();
        let results = self.state.leave(now, &who.group.clone(), &[who]);
        self.settle();
        results.and_then(|mut results| results.remove(0))
    }

    fn commit(&mut self, who: Identity, generation: i32, offset: i64) -> CallId {
        self.commit_of(who, generation, "t", offset)
    }

    fn commit_of(&mut self, who: Identity, generation: i32, topic: &str, offset: i64) -> CallId {
        let call = self.call();
        let commit = Commit {
            who,
            generation: Generation(generation),
            offsets: vec![(partition(topic, 0), new_offset(offset))],
            knows_epochs: true,
            transaction: None,
        };
        let now = self.now();
        self.state.commit(now, call, &commit);
        self.settle();
        call
    }

    fn committed(&self, topic: &str) -> Option<i64> {
        let wanted = [partition(topic, 0)];
        let (_, committed) = self.state.offsets(GROUP, Some(&wanted)).remove(0);
        committed.map(|committed| committed.offset.value())
    }

    fn joined(&mut self, call: CallId) -> Result<Joined, GroupError> {
        match self.answers.remove(&call) {
            Some(Answer::Joined(result)) => result,
            other => panic!("no answer to a join: {other:?}"),
        }
    }

    fn synced(&mut self, call: CallId) -> Result<String, GroupError> {
        match self.answers.remove(&call) {
            Some(Answer::Synced(result)) => {
                result.map(|synced| String::from_utf8(synced.assignment.to_vec()).unwrap())
            }
            other => panic!("no answer to a sync: {other:?}"),
        }
    }

    /// The one partition's.
    fn outcome(&mut self, call: CallId) -> Result<(), GroupError> {
        match self.answers.remove(&call) {
            Some(Answer::PerPartition(result)) => result.and_then(|mut all| all.remove(0).1),
            Some(Answer::Deleted(result)) => result,
            other => panic!("no answer to a commit: {other:?}"),
        }
    }

    fn waits(&self, call: CallId) -> bool {
        !self.answers.contains_key(&call)
    }

    fn stage(&self) -> Stage {
        self.state
            .describe(GROUP)
            .map_or(Stage::Dead, |group| group.stage)
    }

    /// Members a, b, ... in generation 1, stable. The first leads.
    fn stable(&mut self, members: &[&str]) {
        let calls: Vec<_> = members.iter().map(|_| self.join_as(&old_join(""))).collect();
        self.pass(2 * DELAY);
        let ids: Vec<Name> = calls
            .into_iter()
            .map(|call| self.joined(call).unwrap().member)
            .collect();
        let given: Vec<_> = ids.iter().map(|id| (&**id, &**id)).collect();
        for id in ids.iter().rev() {
            let assignments = if id == &ids[0] { &given[..] } else { &[] };
            self.sync(id, 1, assignments);
        }
        assert_eq!(self.stage(), Stage::Stable);
    }

    /// The groups as another node reads them from the log.
    fn read_back(&self) -> Self {
        let mut replay = Replay::default();
        for record in &self.log {
            replay.record(Some(&record.key), record.value.as_deref());
        }
        let Restored { groups, unknown, .. } = replay.finish();
        assert_eq!(unknown, 0);
        let mut lab = Self::with(self.state.settings.clone());
        lab.clock = self.clock.clone();
        lab.log = self.log.clone();
        lab.image = self.image.clone();
        lab.state.see(Arc::new(lab.image.clone()));
        lab.state.restore(groups, self.now());
        lab.settle();
        lab
    }
}

/// What `new_id` makes of the nth newcomer.
fn id(n: u128) -> String {
    format!("c-00000000-0000-0000-0000-{n:012x}")
}

fn who(member: &str) -> Identity {
    Identity {
        group: Name::from(GROUP),
        member: Name::from(member),
        instance: None,
    }
}

fn nobody() -> Identity {
    who("")
}

fn topic_id(name: &str) -> TopicId {
    TopicId([name.as_bytes()[0]; 16])
}

/// What a consumer of one topic says, in version 0 of its protocol.
fn protocol(name: &str, topic: &str) -> Protocol {
    let mut metadata = vec![0, 0, 0, 0, 0, 1, 0, u8::try_from(topic.len()).unwrap()];
    metadata.extend_from_slice(topic.as_bytes());
    // No data of the assignor's own.
    metadata.extend_from_slice(&[0xff; 4]);
    Protocol {
        name: Name::from(name),
        metadata: metadata.into(),
    }
}

/// A client that takes its id first.
fn join(member: &str) -> Join {
    Join {
        who: who(member),
        client_id: Name::from("c"),
        client_host: Name::from("/h"),
        protocol_type: Name::from("consumer"),
        protocols: vec![protocol("range", "t")],
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        takes_id_first: true,
        may_skip_assignment: true,
    }
}

/// One that does not.
fn old_join(member: &str) -> Join {
    Join {
        takes_id_first: false,
        may_skip_assignment: false,
        ..join(member)
    }
}

fn static_join(member: &str, instance: &str) -> Join {
    Join {
        who: Identity {
            instance: Some(Name::from(instance)),
            ..who(member)
        },
        ..join(member)
    }
}

fn partition(topic: &str, index: i32) -> TopicPartition {
    TopicPartition {
        topic: Name::from(topic),
        index: PartitionIndex(index),
    }
}

fn new_offset(offset: i64) -> NewOffset {
    NewOffset {
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: Name::from(""),
        kept_for: None,
    }
}
