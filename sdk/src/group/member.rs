//! The task of a member: it joins, takes its share, says that it is there, and joins again when the group divides anew.
//!
//! Owns the member's id and generation, and says what is to be held. It never takes a partition from its reader: it asks
//! for it back, and goes on when it has been given back. Nor does it touch offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_protocol::consumer_protocol::{Assignment, PROTOCOL_TYPE, Subscription, TopicPartitions};
use headwater_protocol::ids::NodeId;
use headwater_protocol::kafka::heartbeat::HeartbeatRequest;
use headwater_protocol::kafka::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use headwater_protocol::kafka::leave_group::LeaveGroupRequest;
use headwater_protocol::kafka::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::Str;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::assignor::{self, Assignor, Candidate};
use super::{GroupConfig, partitions_of};
use crate::admin::{Committer, Coordinated, find_coordinator};
use crate::client::{self, Client, Lane};
use crate::consumer::TopicPartition;
use crate::door::{self, Instant};
use crate::error::Error;
use crate::routing::Cluster;

/// What an answer may take beyond the time that the others of the group may take.
const MARGIN: Duration = Duration::from_secs(5);
/// How long leaving may take: the group notices anyway.
const LEAVING: Duration = Duration::from_secs(5);
/// The last version in which one member leaves by its id.
const LEAVE_ONE_UNTIL: i16 = 2;

/// What the member is to hold, by the word of its group.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Counts up with each change.
    pub(super) revision: u64,
    /// As whom it commits.
    pub(super) who: Committer,
    pub(super) target: Target,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    /// These, and no others.
    Hold(Arc<BTreeSet<TopicPartition>>),
    /// Nothing; others may have it all, so nothing is to be committed any more.
    Lost,
    /// The group does not take it.
    Failed(Error),
}

/// Why a generation is over, for this member.
#[derive(Debug)]
enum Setback {
    /// The group divides its partitions anew.
    Rebalance,
    /// The group does not know it, or not in this generation.
    Lost(Id),
    /// Nobody answered, or not the one who should have.
    Unreachable,
    /// Trying again would not help.
    Fatal(Error),
}

/// What becomes of the member's id.
#[derive(Debug, PartialEq, Eq)]
enum Id {
    Kept,
    Void,
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        match error.code() {
            Some(ErrorCode::REBALANCE_IN_PROGRESS) => Self::Rebalance,
            Some(ErrorCode::ILLEGAL_GENERATION) => Self::Lost(Id::Kept),
            Some(ErrorCode::UNKNOWN_MEMBER_ID) => Self::Lost(Id::Void),
            _ if error.is_retriable() => Self::Unreachable,
            _ => Self::Fatal(error),
        }
    }
}

/// Whether the reader is there: it waits for a record, or has done so lately.
#[derive(Debug, Default)]
pub(super) struct Presence {
    waits: AtomicBool,
    has_come: AtomicBool,
}

impl Presence {
    /// The reader is there until what this gives is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        self.waits.store(true, Ordering::Relaxed);
        Entered(Arc::clone(self))
    }

    /// Whether it is there, or was since this was asked last.
    fn was_seen(&self) -> bool {
        self.has_come.swap(false, Ordering::Relaxed) || self.waits.load(Ordering::Relaxed)
    }
}

pub(super) struct Entered(Arc<Presence>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.has_come.store(true, Ordering::Relaxed);
        self.0.waits.store(false, Ordering::Relaxed);
    }
}

pub(super) struct Member {
    client: Client,
    config: Arc<GroupConfig>,
    lane: Lane,
    standing: watch::Sender<Standing>,
    /// The last revision that the reader has followed.
    settled: watch::Receiver<u64>,
    reader: Arc<Presence>,
    coordinator: Option<NodeId>,
    member_id: String,
    generation: i32,
    /// What it was given last, and in which generation.
    held: Arc<BTreeSet<TopicPartition>>,
    held_since: i32,
    /// When the group last answered it as its member.
    heard: Instant,
    /// When its reader was seen last.
    seen: Instant,
    /// For the leader: the topics that it has divided, with their partitions.
    divided: Option<BTreeMap<Arc<str>, usize>>,
}

impl Member {
    pub(super) fn new(
        client: Client,
        config: Arc<GroupConfig>,
        lane: Lane,
        standing: watch::Sender<Standing>,
        settled: watch::Receiver<u64>,
        reader: Arc<Presence>,
    ) -> Self {
        Self {
            client,
            config,
            lane,
            standing,
            settled,
            reader,
            seen: door::now(),
            coordinator: None,
            member_id: String::new(),
            generation: -1,
            held: Arc::default(),
            held_since: -1,
            heard: door::now(),
            divided: None,
        }
    }

    /// Runs until the reader is gone, and leaves the group then.
    pub(super) async fn run(mut self, stopped: CancellationToken) {
        let failure = tokio::select! {
            biased;
            () = stopped.cancelled() => None,
            failure = self.live() => Some(failure),
        };
        if let Some(failure) = failure {
            self.say(Target::Failed(failure));
            stopped.cancelled().await;
        }
        self.leave().await;
        self.client.end(self.lane);
    }

    /// Goes from generation to generation; ends with what keeps it out for good.
    async fn live(&mut self) -> Error {
        let mut failures = 0;
        loop {
            let mut setback = match self.generation().await {
                Ok(()) => Setback::Rebalance,
                Err(setback) => setback,
            };
            if matches!(setback, Setback::Rebalance) {
                failures = 0;
                if self.config.is_cooperative() {
                    continue;
                }
                match self.give_back_all().await {
                    Ok(()) => continue,
                    Err(worse) => setback = worse,
                }
            }
            match setback {
                Setback::Rebalance => {}
                Setback::Lost(id) => self.lose(id).await,
                Setback::Fatal(error) => return error,
                Setback::Unreachable => {
                    failures += 1;
                    self.rest(failures).await;
                    if self.is_forgotten() {
                        self.lose(Id::Kept).await;
                    }
                }
            }
        }
    }

    /// One generation, from joining to its end. It ends well when something was given back and is to be given to others.
    async fn generation(&mut self) -> Result<(), Setback> {
        let joined = self.join().await?;
        let given = self.sync(joined).await?;
        let gives_back = !self.held.is_subset(&given);
        (self.held, self.held_since) = (Arc::new(given), self.generation);
        self.heard = door::now();
        let revision = self.say(Target::Hold(Arc::clone(&self.held)));
        if gives_back && self.config.is_cooperative() {
            return self.attend(Some(revision)).await;
        }
        self.attend(None).await
    }

    /// Nothing is kept over a rebalance.
    async fn give_back_all(&mut self) -> Result<(), Setback> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.held = Arc::default();
        let revision = self.say(Target::Hold(Arc::default()));
        self.attend(Some(revision)).await
    }

    /// Others may have what it held. It joins again when its reader has let go of it.
    async fn lose(&mut self, id: Id) {
        if id == Id::Void {
            self.member_id.clear();
        }
        self.generation = -1;
        let has_let_go = self.held.is_empty() && *self.settled.borrow() == self.standing.borrow().revision;
        if !has_let_go {
            self.held = Arc::default();
            let revision = self.say(Target::Lost);
            // The reader lives longer than this task.
            let _ = self.settled.wait_for(|settled| *settled >= revision).await;
            self.seen = door::now();
        }
    }

    async fn join(&mut self) -> Result<JoinGroupResponse, Setback> {
        loop {
            let request = self.join_request()?;
            let what = format!("join group {:?}", self.config.group);
            let timeout = self.config.rebalance_timeout + MARGIN;
            let answer = self.call(&request, timeout).await?;
            match ErrorCode(answer.error_code) {
                ErrorCode::NONE => {
                    self.member_id = answer.member_id.to_string();
                    self.generation = answer.generation_id;
                    self.heard = door::now();
                    return Ok(answer);
                }
                ErrorCode::MEMBER_ID_REQUIRED => self.member_id = answer.member_id.to_string(),
                _ => {
                    self.check(&what, answer.error_code)?;
                }
            }
        }
    }

    fn join_request(&self) -> Result<JoinGroupRequest, Setback> {
        let config = &self.config;
        let owned = config.is_cooperative().then_some(&*self.held);
        let subscription = Subscription {
            topics: config.topics.iter().map(|topic| Str::from(&**topic)).collect(),
            owned: owned.map(by_topic).unwrap_or_default(),
            generation: if self.held.is_empty() { -1 } else { self.held_since },
            ..Subscription::default()
        };
        let metadata = subscription
            .encode()
            .map_err(|_| Setback::Fatal(Error::Usage("the names of a group's topics are too long")))?;
        let protocols = config.assignors.iter().map(|assignor| JoinGroupRequestProtocol {
            name: Str::from_static(assignor.name()),
            metadata: metadata.clone(),
            ..JoinGroupRequestProtocol::default()
        });
        Ok(JoinGroupRequest {
            group_id: Str::from(&*config.group),
            session_timeout_ms: whole_ms(config.session_timeout),
            rebalance_timeout_ms: whole_ms(config.rebalance_timeout),
            member_id: Str::from(&*self.member_id),
            group_instance_id: config.instance_id.as_deref().map(Str::from),
            protocol_type: Str::from_static(PROTOCOL_TYPE),
            protocols: protocols.collect(),
            ..JoinGroupRequest::default()
        })
    }

    /// Takes the member's share; the leader divides before that.
    async fn sync(&mut self, joined: JoinGroupResponse) -> Result<BTreeSet<TopicPartition>, Setback> {
        self.divided = None;
        let mut assignments = Vec::new();
        if joined.leader == joined.member_id {
            assignments = self.divide(&joined).await?;
        }
        if joined.skip_assignment {
            // All have what they had; but it is for the leader to see when topics change.
            assignments.clear();
        }
        let request = SyncGroupRequest {
            group_id: Str::from(&*self.config.group),
            generation_id: self.generation,
            member_id: Str::from(&*self.member_id),
            group_instance_id: self.config.instance_id.as_deref().map(Str::from),
            protocol_type: Some(Str::from_static(PROTOCOL_TYPE)),
            protocol_name: joined.protocol_name,
            assignments,
            ..SyncGroupRequest::default()
        };
        let what = format!("take a share of group {:?}", self.config.group);
        let timeout = self.config.rebalance_timeout + MARGIN;
        let answer = self.call(&request, timeout).await?;
        self.check(&what, answer.error_code)?;
        let unreadable = || Error::Usage("the group's leader has assigned something that is no assignment");
        let assignment = Assignment::decode(answer.assignment).ok_or_else(unreadable)?;
        Ok(partitions_of(&assignment.partitions).collect())
    }

    /// What each member gets, by the assignor that the group has agreed on.
    async fn divide(
        &mut self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, Setback> {
        let agreed = joined.protocol_name.as_deref().unwrap_or_default();
        let assignors: &[Assignor] = &self.config.assignors;
        let assignor = assignors.iter().find(|assignor| assignor.name() == agreed);
        let unknown = || Setback::Fatal(Error::Usage("the group agreed on an assignor that was not named"));
        let assignor = *assignor.ok_or_else(unknown)?;
        let members: Vec<Candidate> = joined.members.iter().map(candidate).collect();
        let names: BTreeSet<&Arc<str>> = members.iter().flat_map(|member| &member.topics).collect();
        let mut topics = BTreeMap::new();
        for name in names {
            let count = match self.client.topic(name).await {
                Ok(topic) => topic.partitions.len(),
                // It is divided when it is there.
                Err(Error::UnknownTopic(_)) => 0,
                Err(error) => return Err(error.into()),
            };
            topics.insert(Arc::clone(name), count);
        }
        let division = assignor::divide(assignor, &members, &topics);
        self.divided = Some(topics);
        let mut assignments = Vec::with_capacity(division.len());
        for (member_id, share) in division {
            let assignment = Assignment {
                partitions: by_topic(&share),
                user_data: None,
            };
            let too_large = |_| Setback::Fatal(Error::Usage("an assignment is too large to be written"));
            assignments.push(SyncGroupRequestAssignment {
                member_id: Str::from(member_id),
                assignment: assignment.encode().map_err(too_large)?,
                ..SyncGroupRequestAssignment::default()
            });
        }
        Ok(assignments)
    }

    /// Says now and then that it is there: until its reader has followed a revision, or else until the generation ends.
    async fn attend(&mut self, until: Option<u64>) -> Result<(), Setback> {
        let mut image = self.client.metadata().watch();
        let mut settled = self.settled.clone();
        let mut next = door::now() + self.config.heartbeat_interval;
        let mut failures = 0;
        loop {
            let followed = async {
                match until {
                    // The reader lives longer than this task.
                    Some(revision) => drop(settled.wait_for(|settled| *settled >= revision).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = followed => return Ok(()),
                changed = image.changed(), if until.is_none() && self.divided.is_some() => {
                    if changed.is_ok() && self.must_divide_anew(&self.client.cluster()) {
                        return Err(Setback::Rebalance);
                    }
                }
                () = door::sleep_until(next) => {
                    if self.reader_is_away() {
                        // The others do not wait for it. It comes back when its reader does.
                        self.leave().await;
                        return Err(Setback::Lost(Id::Void));
                    }
                    match self.heartbeat().await {
                        Ok(()) => failures = 0,
                        // It knows: that is what it waits for its reader for.
                        Err(Setback::Rebalance) if until.is_some() => failures = 0,
                        Err(Setback::Unreachable) => {
                            failures += 1;
                            self.rest(failures).await;
                            if self.is_forgotten() {
                                return Err(Setback::Lost(Id::Kept));
                            }
                            next = door::now();
                            continue;
                        }
                        Err(setback) => return Err(setback),
                    }
                    next = door::now() + self.config.heartbeat_interval;
                }
            }
        }
    }

    async fn heartbeat(&mut self) -> Result<(), Setback> {
        let request = HeartbeatRequest {
            group_id: Str::from(&*self.config.group),
            generation_id: self.generation,
            member_id: Str::from(&*self.member_id),
            group_instance_id: self.config.instance_id.as_deref().map(Str::from),
            ..HeartbeatRequest::default()
        };
        let what = format!("stay in group {:?}", self.config.group);
        let timeout = self.client.config().request_timeout;
        let timeout = timeout.min(self.config.session_timeout);
        let answer = self.call(&request, timeout).await?;
        let checked = self.check(&what, answer.error_code);
        if matches!(checked, Ok(()) | Err(Setback::Rebalance)) {
            self.heard = door::now();
        }
        checked
    }

    /// Whether topics have come, gone or grown since the leader divided them.
    fn must_divide_anew(&self, cluster: &Cluster) -> bool {
        let count = |topic: &Arc<str>| cluster.topic(topic).map_or(0, |topic| topic.partitions.len());
        let divided = self.divided.iter().flatten();
        let mut changed = divided.map(|(topic, before)| count(topic) != *before);
        changed.any(|changed| changed)
    }

    /// Whether the reader has not been seen for longer than the group waits for a member.
    fn reader_is_away(&mut self) -> bool {
        let now = door::now();
        if self.reader.was_seen() {
            self.seen = now;
        }
        now >= self.seen + self.config.rebalance_timeout
    }

    /// Whether the group has heard nothing of it for so long that it is a member no more.
    fn is_forgotten(&self) -> bool {
        !self.held.is_empty() && door::now() >= self.heard + self.config.session_timeout
    }

    /// Waits before the next attempt; whoever coordinates then is looked for anew.
    async fn rest(&mut self, failures: u32) {
        self.coordinator = None;
        let pause = self.client.config().backoff.pause(failures, door::random_u64());
        door::sleep_until(door::now() + pause).await;
        // Where nobody can be reached, the next attempt says so.
        let _ = self.client.metadata().refresh().await;
    }

    async fn call<R: Request>(&mut self, request: &R, timeout: Duration) -> Result<R::Response, Setback> {
        let node = match self.coordinator {
            Some(node) => node,
            None => {
                let node = find_coordinator(&self.client, Coordinated::Group, &self.config.group).await?;
                *self.coordinator.insert(node)
            }
        };
        let connection = self.client.connection(node, self.lane).await?;
        let answer = connection.call(request, timeout).await;
        answer.map_err(|cause| Error::from(cause).into())
    }

    fn check(&self, what: &str, code: i16) -> Result<(), Setback> {
        match ErrorCode(code) {
            ErrorCode::NONE => Ok(()),
            _ => Err(Error::refused(what, code, None).into()),
        }
    }

    /// Tells the reader, and says under which revision.
    fn say(&self, target: Target) -> u64 {
        let who = Committer {
            member_id: self.member_id.clone(),
            instance_id: self.config.instance_id.clone(),
            generation: self.generation,
        };
        let mut revision = 0;
        self.standing.send_modify(|standing| {
            standing.revision += 1;
            revision = standing.revision;
            (standing.who, standing.target) = (who, target);
        });
        revision
    }

    /// Static members stay: they come back within their session.
    async fn leave(&mut self) {
        if self.member_id.is_empty() || self.config.instance_id.is_some() {
            return;
        }
        let Some(node) = self.coordinator else { return };
        let request = LeaveGroupRequest {
            group_id: Str::from(&*self.config.group),
            member_id: Str::from(&*self.member_id),
            ..LeaveGroupRequest::default()
        };
        // Over another lane: what it still waits for in its own would be answered first. That nobody hears it is no harm.
        let target = client::Target::Node(node);
        let leaving = self.client.call_up_to(LEAVE_ONE_UNTIL, target, &request, LEAVING);
        let _ = door::timeout_at(door::now() + LEAVING, leaving).await;
    }
}

/// A member as the leader sees it. One whose subscription cannot be read wants nothing.
fn candidate(member: &headwater_protocol::kafka::join_group::JoinGroupResponseMember) -> Candidate {
    let subscription = Subscription::decode(member.metadata.clone()).unwrap_or_default();
    Candidate {
        id: member.member_id.to_string(),
        instance: member.group_instance_id.as_ref().map(ToString::to_string),
        topics: subscription
            .topics
            .iter()
            .map(|topic| Arc::from(&**topic))
            .collect(),
        owned: partitions_of(&subscription.owned).collect(),
        generation: subscription.generation,
    }
}

fn by_topic(partitions: &BTreeSet<TopicPartition>) -> Vec<TopicPartitions> {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for it in partitions {
        match topics.last_mut() {
            Some(last) if *last.topic == *it.topic => last.partitions.push(it.partition.0),
            _ => topics.push(TopicPartitions {
                topic: Str::from(&*it.topic),
                partitions: vec![it.partition.0],
            }),
        }
    }
    topics
}

fn whole_ms(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
