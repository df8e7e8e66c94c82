//! [`GroupConsumer`]: reads its share of some topics, as a member of a consumer group.
//!
//! Owns what this member reads and when that is committed. A task of its own is the member towards the group
//! (`member.rs`); partitions are taken up and given back here, between two records, so that nothing is committed that
//! was not handed out, and nothing is read any more that belongs to others.

mod assignor;
mod commits;
mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use headwater_protocol::consumer_protocol::TopicPartitions;
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::kafka::ErrorCode;
use tokio::sync::watch;

pub use self::assignor::Assignor;
use self::commits::Commits;
use self::member::{Member, Presence, Standing, Target};
use crate::admin::{Committer, OffsetSpec};
use crate::client::{Client, Lane};
use crate::consumer::{Batch, Consumer, ConsumerConfig, ConsumerRecord, Start, TopicPartition};
use crate::door::{self, Instant, Tasks};
use crate::error::Error;

/// Settings of a [`GroupConsumer`].
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group: String,
    pub topics: Vec<String>,
    /// Makes this a static member (KIP-345): a process that comes back under the same name within the session takes up
    /// what it had, and nothing moves meanwhile.
    pub instance_id: Option<String>,
    /// The one it likes best first. Members keep what they have while the group divides anew only if all of them are
    /// cooperative. Members of other clients need one in common: `range` is what all of them have.
    pub assignors: Vec<Assignor>,
    /// A member that is silent for so long is none any more.
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    /// How long a member may take between two calls of `next`, and the others wait for it when the group divides anew. One
    /// that takes longer is out, and comes back when it calls again.
    pub rebalance_timeout: Duration,
    /// Where to begin in partitions of which the group has committed nothing.
    pub start: Start,
    /// How often what was handed out is committed, and that it is when a partition is given back and at the end. Without
    /// it nothing is committed but by [`GroupConsumer::commit`].
    pub auto_commit: Option<Duration>,
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// Default settings for a member of `group` that reads these topics.
    pub fn new<T: Into<String>>(group: &str, topics: impl IntoIterator<Item = T>) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance_id: None,
            assignors: vec![Assignor::CooperativeSticky],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            start: Start::Earliest,
            auto_commit: Some(Duration::from_secs(5)),
            consumer: ConsumerConfig::default(),
        }
    }

    fn is_cooperative(&self) -> bool {
        self.assignors.iter().all(|assignor| assignor.is_cooperative())
    }

    fn check(&self) -> Result<(), Error> {
        if self.group.is_empty() || self.topics.is_empty() || self.assignors.is_empty() {
            return Err(Error::Usage(
                "a group consumer needs the name of its group, a topic and an assignor",
            ));
        }
        if self.heartbeat_interval.is_zero() || self.heartbeat_interval >= self.session_timeout {
            return Err(Error::Usage(
                "a group consumer's heartbeat interval must be shorter than its session timeout",
            ));
        }
        Ok(())
    }
}

/// As whom a member of a group commits: what [`crate::Producer::send_offsets`] is to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub group: String,
    /// Empty: nobody's in particular.
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Counts how often the group has divided its partitions; -1: that does not matter.
    pub generation: i32,
}

impl GroupMetadata {
    /// For offsets of partitions that are assigned by hand: the group has no members.
    pub fn of_group(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            member_id: String::new(),
            instance_id: None,
            generation: -1,
        }
    }
}

/// Tells lanes of members apart.
static MEMBERS: AtomicU32 = AtomicU32::new(0);

/// Reads a share of some topics together with the other members of its group.
///
/// - Each record of a partition is handed out at least once to some member; those behind the last commit come again when
///   another member takes the partition over. A call of `next` says that everything handed out before has been dealt with.
/// - Partitions come and go only within calls of `next`, `next_batch` and `commit`. Heartbeats go on beside them.
/// - Dropping it leaves the group without committing; [`GroupConsumer::close`] commits first.
pub struct GroupConsumer {
    consumer: Consumer,
    config: Arc<GroupConfig>,
    commits: Arc<Commits>,
    standing: watch::Receiver<Standing>,
    /// The revision of the standing that has been followed.
    settled: watch::Sender<u64>,
    presence: Arc<Presence>,
    /// As whom to commit.
    who: Committer,
    held: BTreeSet<TopicPartition>,
    /// Where the reading of partitions began of which nothing was committed, if that is no place that can be found again.
    begun: BTreeMap<TopicPartition, Offset>,
    commit_at: Option<Instant>,
    tasks: Tasks,
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl GroupConsumer {
    pub(crate) fn new(client: Client, config: GroupConfig) -> Result<Self, Error> {
        config.check()?;
        let consumer = client.consumer(config.consumer.clone())?;
        let config = Arc::new(config);
        let isolation = config.consumer.isolation;
        let commits = Arc::new(Commits::new(client.clone(), config.group.clone(), isolation));
        let (told, standing) = watch::channel(Standing {
            revision: 0,
            who: Committer::default(),
            target: Target::Hold(Arc::default()),
        });
        let (settled, followed) = watch::channel(0);
        let tasks = client.tasks().child();
        let lane = Lane::Group(MEMBERS.fetch_add(1, Ordering::Relaxed));
        let presence = Arc::new(Presence::default());
        let member = Member::new(
            client,
            Arc::clone(&config),
            lane,
            told,
            followed,
            Arc::clone(&presence),
        );
        tasks.spawn(member.run(tasks.token().clone()));
        Ok(Self {
            consumer,
            commit_at: config.auto_commit.map(|interval| door::now() + interval),
            config,
            commits,
            standing,
            settled,
            presence,
            who: Committer::default(),
            held: BTreeSet::new(),
            begun: BTreeMap::new(),
            tasks,
        })
    }

    /// The next record of this member's share, waiting for one.
    ///
    /// Cancel safe: a dropped future has handed out nothing.
    pub async fn next(&mut self) -> Result<ConsumerRecord, Error> {
        self.hand_out(async |consumer| consumer.next().await).await
    }

    /// The next batch of this member's share, waiting for one.
    ///
    /// Cancel safe: a dropped future has handed out nothing.
    pub async fn next_batch(&mut self) -> Result<Batch, Error> {
        self.hand_out(async |consumer| consumer.next_batch().await).await
    }

    /// What comes next, by the word of `next`, while the group is followed.
    async fn hand_out<T>(
        &mut self,
        next: impl AsyncFn(&mut Consumer) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _here = self.presence.enter();
        loop {
            self.keep_up().await?;
            let due = self.commit_at;
            tokio::select! {
                biased;
                changed = self.standing.changed() => changed.map_err(|_| Error::Closed)?,
                handed_out = next(&mut self.consumer) => return handed_out,
                () = sleep_until(due) => {}
            }
        }
    }

    /// Commits everything that was handed out of what this member holds.
    ///
    /// While the group divides anew this waits, as `next` does, and commits what is still this member's afterwards. A
    /// dropped future may have committed it.
    pub async fn commit(&mut self) -> Result<(), Error> {
        let positions = self.positions(self.held.iter());
        self.commit_offsets(&positions).await
    }

    /// As [`GroupConsumer::commit`], up to these offsets: of each partition the one that is to be read next. Partitions
    /// that are not this member's are passed over.
    pub async fn commit_offsets(&mut self, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<(), Error> {
        let _here = self.presence.enter();
        let timeout = self.consumer.client().config().request_timeout;
        let deadline = door::now() + timeout;
        loop {
            let own = offsets.iter().filter(|(it, _)| self.held.contains(*it));
            let own = own.map(|(it, offset)| (it.clone(), *offset)).collect();
            let Err(error) = self.commits.commit(&self.who, own).await else {
                return Ok(());
            };
            let moves_on = [
                ErrorCode::REBALANCE_IN_PROGRESS,
                ErrorCode::ILLEGAL_GENERATION,
                ErrorCode::GROUP_ID_NOT_FOUND,
                ErrorCode::UNKNOWN_MEMBER_ID,
            ];
            if !error.code().is_some_and(|code| moves_on.contains(&code)) {
                return Err(error);
            }
            match door::timeout_at(deadline, self.standing.changed()).await {
                Ok(changed) => changed.map_err(|_| Error::Closed)?,
                Err(_) => return Err(error),
            }
            self.settle().await?;
        }
    }

    /// As whom this member commits what was handed out last.
    pub fn group_metadata(&self) -> GroupMetadata {
        GroupMetadata {
            group: self.config.group.clone(),
            member_id: self.who.member_id.clone(),
            instance_id: self.who.instance_id.clone(),
            generation: self.who.generation,
        }
    }

    /// Goes back to what the group has committed of each partition that this member reads, or to where it began: after a
    /// transaction that was aborted.
    ///
    /// A dropped future may have done so for some.
    pub async fn rewind(&mut self) -> Result<(), Error> {
        let _here = self.presence.enter();
        let held = self.held.clone();
        self.take_up(&held).await
    }

    /// The partitions that this member reads at the moment.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.held.iter()
    }

    /// The offset of the next record of a partition; `None` until it is known, or if it is not this member's.
    pub fn position(&self, topic: &str, partition: PartitionIndex) -> Option<Offset> {
        self.consumer.position(topic, partition)
    }

    /// How many offsets the position is behind the high watermark.
    pub fn lag(&self, topic: &str, partition: PartitionIndex) -> Option<i64> {
        self.consumer.lag(topic, partition)
    }

    /// Commits what was handed out if that is done automatically, leaves the group and waits until it has left. Says
    /// whether all was committed. Static members do not leave: they are expected back.
    pub async fn close(mut self) -> Result<(), Error> {
        let committed = match self.config.auto_commit {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        self.tasks.cancel();
        // The member's task drops its end when it has left.
        while self.standing.changed().await.is_ok() {}
        committed
    }

    /// Follows the group, and commits when it is time.
    async fn keep_up(&mut self) -> Result<(), Error> {
        self.settle().await?;
        let Some(interval) = self.config.auto_commit else {
            return Ok(());
        };
        let now = door::now();
        if self.commit_at.is_some_and(|due| due <= now) {
            self.commit_at = Some(now + interval);
            self.begin_commit();
        }
        Ok(())
    }

    /// Commits what was handed out, beside the reading. What is not taken this time is taken the next.
    fn begin_commit(&self) {
        let mut positions = self.positions(self.held.iter());
        positions.retain(|it, offset| self.commits.differs(it, *offset));
        if positions.is_empty() {
            return;
        }
        let (commits, who) = (Arc::clone(&self.commits), self.who.clone());
        let stopped = self.tasks.token().clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                _ = commits.commit(&who, positions) => {}
            }
        });
    }

    /// Takes up and gives back what the group says. If the future is dropped, the rest is done the next time.
    async fn settle(&mut self) -> Result<(), Error> {
        let (revision, who, target) = {
            let standing = self.standing.borrow_and_update();
            if standing.revision == *self.settled.borrow() {
                return Ok(());
            }
            (standing.revision, standing.who.clone(), standing.target.clone())
        };
        match target {
            Target::Failed(error) => {
                return Err(error);
            }
            Target::Lost => {
                let all = self.held.clone();
                self.let_go(&all).await?;
            }
            Target::Hold(wanted) => {
                self.who = who;
                let back: BTreeSet<_> = self.held.difference(&wanted).cloned().collect();
                self.give_back(&back).await?;
                let new: BTreeSet<_> = wanted.difference(&self.held).cloned().collect();
                self.take_up(&new).await?;
            }
        }
        self.settled.send_replace(revision);
        Ok(())
    }

    async fn give_back(&mut self, back: &BTreeSet<TopicPartition>) -> Result<(), Error> {
        if self.config.auto_commit.is_some() && !back.is_empty() {
            // What is not committed is read again by whoever comes next.
            let positions = self.positions(back.iter());
            let _ = self.commits.commit(&self.who, positions).await;
        }
        self.let_go(back).await
    }

    async fn let_go(&mut self, gone: &BTreeSet<TopicPartition>) -> Result<(), Error> {
        for it in gone {
            self.consumer.unassign(&it.topic, it.partition).await?;
            self.commits.forget(it);
            self.begun.remove(it);
            self.held.remove(it);
        }
        Ok(())
    }

    async fn take_up(&mut self, new: &BTreeSet<TopicPartition>) -> Result<(), Error> {
        if new.is_empty() {
            return Ok(());
        }
        let committed = self.commits.fetch(new).await?;
        for it in new {
            let start = match committed.get(it) {
                Some(offset) => Start::Offset(*offset),
                None => self.beginning_of(it).await?,
            };
            let (topic, partition) = (&*it.topic, it.partition);
            match self.consumer.assign(topic, &[partition], start).await {
                // It is gone again; the group will notice.
                Ok(()) | Err(Error::UnknownTopic(_) | Error::UnknownPartition { .. }) => {}
                Err(error) => return Err(error),
            }
            self.held.insert(it.clone());
        }
        Ok(())
    }

    /// Where to begin in a partition of which nothing was committed. Behind the last record is looked up by those who may
    /// come back to it: there are other records by then.
    async fn beginning_of(&mut self, it: &TopicPartition) -> Result<Start, Error> {
        if let Some(offset) = self.begun.get(it) {
            return Ok(Start::Offset(*offset));
        }
        let start = self.config.start;
        if start != Start::Latest || self.config.auto_commit.is_some() {
            return Ok(start);
        }
        let admin = self.consumer.client().admin();
        let places = [(it.partition, OffsetSpec::Latest)];
        let isolation = self.config.consumer.isolation;
        let listed = match admin.list_offsets(&it.topic, &places, isolation).await {
            Ok(listed) => listed,
            Err(Error::UnknownTopic(_) | Error::UnknownPartition { .. }) => return Ok(start),
            Err(error) => return Err(error),
        };
        let offset = listed.get(&it.partition).and_then(|listed| listed.offset);
        Ok(match offset {
            Some(offset) => {
                self.begun.insert(it.clone(), offset);
                Start::Offset(offset)
            }
            None => start,
        })
    }

    fn positions<'a>(
        &self,
        of: impl Iterator<Item = &'a TopicPartition>,
    ) -> BTreeMap<TopicPartition, Offset> {
        let position = |it: &TopicPartition| self.consumer.position(&it.topic, it.partition);
        of.filter_map(|it| Some((it.clone(), position(it)?))).collect()
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => door::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn partitions_of(topics: &[TopicPartitions]) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|topic| {
        let name: Arc<str> = Arc::from(&*topic.topic);
        topic.partitions.iter().map(move |index| TopicPartition {
            topic: Arc::clone(&name),
            partition: PartitionIndex(*index),
        })
    })
}
