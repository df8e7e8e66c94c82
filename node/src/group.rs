//! Consumer groups by Kafka's two protocols: who is in a group, who gets which partitions, what was committed. In the classic
//! one a member divides the partitions, in the consumer protocol (KIP-848) the coordinator does. Of share groups (KIP-932) the
//! members and who reads what; what was delivered to them is for `share` to know.
//!
//! Owns the topic `__consumer_offsets` and, for each of its partitions that this node leads, the groups that belong to
//! it. It decides nothing about the topics that are consumed. A group is only ever answered for by the leader of its
//! partition, and nothing is acknowledged before all in-sync replicas have it.
//!
//! ```text
//! group        the handle: which partition a group belongs to, who coordinates it
//! post         what `coordination` runs for each partition led here
//! coordinator  the task: reads its partition, works requests off, writes, answers
//! state        the rules, pure      store   the records, pure
//! ```

mod coordinator;
mod error;
mod post;
mod request;
mod state;
mod store;

pub use error::GroupError;
pub use request::{
    Assignment, Assignor, Commit, Committed, ConsumerDescription, ConsumerHeartbeat, DescribedConsumer,
    DescribedMember, DescribedSharer, Description, Epoch, Generation, GroupKind, Heartbeat, Identity,
    InTransaction, Join, Joined, JoinedMember, Listed, NAME_BYTES_MAX, Name, NewOffset, Offsets,
    PerPartition, Protocol, Reconciled, SHARE_ASSIGNOR, ShareDescription, ShareHeartbeat, Stage, SyncGroup,
    Synced, TopicPartition, name,
};

use crate::config::GroupConfig;
use crate::controller::Controller;
use crate::coordination::{self, Deployment, OwnTopic, Unavailable};
use crate::metadata::View;
use crate::metadata::topic::OFFSETS_TOPIC;
use crate::partition::Registry;
use crate::sys::Sys;
use crate::telemetry::{Metrics, names};
use coordinator::{Handle, Letter, Meters};
use headwater_protocol::ids::{NodeId, PartitionIndex};
use post::GroupPost;
use std::sync::Arc;
use std::time::Duration;

/// What the groups of a node are made of.
pub struct Parts {
    pub me: NodeId,
    pub config: GroupConfig,
    /// How many nodes the quorum is meant to have.
    pub voters: usize,
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub metrics: Metrics,
}

/// The groups of this node. Cheap to clone.
///
/// - A call that is dropped may have happened; a member that joins and is gone stays until its session ends.
#[derive(Clone)]
pub struct Groups {
    coordinators: Arc<Deployment<GroupPost>>,
}

impl Groups {
    /// Begins to coordinate what this node leads. Ends with its scope of `parts.sys.tasks`.
    pub fn start(parts: Parts) -> Self {
        let post = GroupPost {
            config: parts.config.clone(),
            sys: parts.sys.clone(),
            view: parts.view.clone(),
            meters: Meters::new(&parts.metrics),
        };
        let topic = OwnTopic {
            name: OFFSETS_TOPIC,
            partitions: parts.config.offsets_partitions,
            replication_factor: parts.config.offsets_replication_factor,
            segment_bytes: parts.config.offsets_segment_bytes,
            voters: parts.voters,
        };
        let means = coordination::Means {
            me: parts.me,
            topic,
            tasks: parts.sys.tasks.child("group"),
            sys: parts.sys,
            view: parts.view,
            controller: parts.controller,
            registry: parts.registry,
        };
        let coordinators = Deployment::start(means, post);
        let shown = Arc::clone(&coordinators);
        parts.metrics.on_scrape(move |scrape| {
            let coordinators = shown.all();
            let count = coordinators.values().map(Handle::group_count).sum::<usize>();
            let consumers = coordinators.values().map(Handle::consumer_group_count);
            let consumers = consumers.sum::<usize>();
            scrape.value(&names::GROUP_COORDINATORS, &[], coordinators.len() as u64);
            scrape.value(&names::GROUPS, &[], count as u64);
            let sharers = coordinators.values().map(Handle::share_group_count);
            let sharers = sharers.sum::<usize>();
            scrape.value(&names::CONSUMER_GROUPS, &[], consumers as u64);
            scrape.value(&names::SHARE_GROUPS, &[], sharers as u64);
        });
        Self { coordinators }
    }

    /// Ends all coordinators. What they were asked and have not answered is answered `NotCoordinator`.
    pub async fn stop(&self, patience: Duration) {
        self.coordinators.stop(patience).await;
    }

    /// The node that coordinates a group. Makes the offsets topic if there is none yet.
    pub async fn coordinator_of(&self, group: &str) -> Result<NodeId, GroupError> {
        let found = self.coordinators.coordinator_of(group).await;
        found.map_err(|Unavailable| GroupError::NotAvailable)
    }

    /// Joins a group; returns when its next generation begins. `JoinGroup` in Kafka.
    pub async fn join(&self, join: Join) -> Result<Joined, GroupError> {
        check_group(&join.who.group)?;
        let group = join.who.group.clone();
        self.ask(&group, |reply| Letter::Join { join, reply }).await?
    }

    /// Asks for the member's assignment; returns when the leader has given it. `SyncGroup` in Kafka.
    pub async fn sync(&self, sync: SyncGroup) -> Result<Synced, GroupError> {
        check_group(&sync.who.group)?;
        let group = sync.who.group.clone();
        match self.ask(&group, |reply| Letter::Sync { sync, reply }).await {
            // What was agreed on is lost: the member has to join again, and older clients expect nothing else here.
            Err(GroupError::Loading) => Err(GroupError::RebalanceInProgress),
            answer => answer?,
        }
    }

    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<(), GroupError> {
        check_group(&beat.who.group)?;
        let group = beat.who.group.clone();
        match self.ask(&group, |reply| Letter::Heartbeat { beat, reply }).await {
            // Its session begins when the group has been read.
            Err(GroupError::Loading) => Ok(()),
            answer => answer?,
        }
    }

    /// A member of the consumer protocol is there, comes or goes; returns when what it is told is kept.
    /// `ConsumerGroupHeartbeat` in Kafka.
    pub async fn consumer_heartbeat(&self, beat: ConsumerHeartbeat) -> Result<Reconciled, GroupError> {
        let group = beat.who.group.clone();
        self.ask(&group, |reply| Letter::ConsumerHeartbeat { beat, reply })
            .await?
    }

    /// None: there is no such group.
    pub async fn describe_consumers(&self, group: Name) -> Result<Option<ConsumerDescription>, GroupError> {
        let name = group.clone();
        self.ask(&name, |reply| Letter::DescribeConsumers { group, reply })
            .await?
    }

    /// A member of a share group is there, comes or goes; returns when what it is told is kept. `ShareGroupHeartbeat` in
    /// Kafka.
    pub async fn share_heartbeat(&self, beat: ShareHeartbeat) -> Result<Reconciled, GroupError> {
        let group = beat.group.clone();
        self.ask(&group, |reply| Letter::ShareHeartbeat { beat, reply })
            .await?
    }

    /// None: there is no such group.
    pub async fn describe_sharers(&self, group: Name) -> Result<Option<ShareDescription>, GroupError> {
        let name = group.clone();
        self.ask(&name, |reply| Letter::DescribeSharers { group, reply })
            .await?
    }

    /// Takes members out of a group: each by its id, or by its instance id alone. Their results are in the same order.
    pub async fn leave(
        &self,
        group: Name,
        members: Vec<Identity>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group(&group)?;
        let name = group.clone();
        let letter = |reply| Letter::Leave {
            group,
            members,
            reply,
        };
        self.ask(&name, letter).await?
    }

    /// Commits offsets; when it returns they are on all in-sync replicas.
    pub async fn commit(&self, commit: Commit) -> Result<PerPartition, GroupError> {
        let group = commit.who.group.clone();
        self.ask(&group, |reply| Letter::Commit { commit, reply }).await?
    }

    /// What a group has committed; `wanted` None: of all partitions.
    pub async fn offsets(
        &self,
        group: Name,
        wanted: Option<Vec<TopicPartition>>,
    ) -> Result<Offsets, GroupError> {
        let found = self.offsets_and_unstable(group, None, wanted).await;
        found.map(|(offsets, _)| offsets)
    }

    /// As `offsets`, and for which of the partitions commits wait for the end of their transaction. `who`: the member of the
    /// consumer protocol that asks, if it says so.
    pub async fn offsets_and_unstable(
        &self,
        group: Name,
        who: Option<(Name, Epoch)>,
        wanted: Option<Vec<TopicPartition>>,
    ) -> Result<(Offsets, Vec<TopicPartition>), GroupError> {
        let name = group.clone();
        let letter = |reply| Letter::Offsets {
            group,
            who,
            wanted,
            reply,
        };
        let handle = self.handle(&name)?;
        let found = handle.ask(letter).await?;
        // Whoever goes on from an older offset reads again what was done with, and one that copies in transactions does not notice.
        if found.is_ok() && !self.coordinators.is_in_office(&name, &handle).await {
            return Err(GroupError::NotCoordinator);
        }
        found
    }

    /// The partition of the offsets topic that a group belongs to. None: there is no such topic yet.
    pub fn offsets_partition(&self, group: &str) -> Option<PartitionIndex> {
        self.coordinators.partition_of(group)
    }

    pub async fn delete_offsets(
        &self,
        group: Name,
        wanted: Vec<TopicPartition>,
    ) -> Result<PerPartition, GroupError> {
        let name = group.clone();
        let letter = |reply| Letter::DeleteOffsets { group, wanted, reply };
        self.ask(&name, letter).await?
    }

    /// Deletes a group without members, and all it has committed.
    pub async fn delete(&self, group: Name) -> Result<(), GroupError> {
        let name = group.clone();
        self.ask(&name, |reply| Letter::DeleteGroup { group, reply })
            .await?
    }

    /// None: there is no such group of the classic protocol.
    pub async fn describe(&self, group: Name) -> Result<Option<Description>, GroupError> {
        let name = group.clone();
        self.ask(&name, |reply| Letter::Describe { group, reply }).await
    }

    /// The groups that this node coordinates, and an error beside those if it does not know all of them yet.
    pub async fn list(&self) -> (Vec<Listed>, Result<(), GroupError>) {
        let coordinators = self.coordinators.all();
        let (mut groups, mut complete) = (Vec::new(), Ok(()));
        for handle in coordinators.values() {
            match handle.ask(|reply| Letter::List { reply }).await {
                Ok(listed) => groups.extend(listed),
                Err(GroupError::Loading) => complete = Err(GroupError::Loading),
                // It is another node's by now, which lists it.
                Err(_) => {}
            }
        }
        (groups, complete)
    }

    async fn ask<T>(
        &self,
        group: &str,
        letter: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Letter,
    ) -> Result<T, GroupError> {
        self.handle(group)?.ask(letter).await
    }

    fn handle(&self, group: &str) -> Result<Handle, GroupError> {
        let handle = self.coordinators.get(group);
        handle.ok_or(GroupError::NotCoordinator)
    }
}

/// Groups that have members have a name. Offsets alone may belong to the nameless one, as old clients expect.
fn check_group(group: &str) -> Result<(), GroupError> {
    if group.is_empty() {
        return Err(GroupError::InvalidGroupId);
    }
    Ok(())
}
