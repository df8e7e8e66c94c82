//! What a coordinator is asked, by whom, and how he is answered.

use super::Coordinator;
use crate::group::error::GroupError;
use crate::group::request::{
    Commit, ConsumerDescription, ConsumerHeartbeat, Description, Epoch, Heartbeat, Identity, Join, Joined,
    Listed, Name, Offsets, PerPartition, Reconciled, ShareDescription, ShareHeartbeat, SyncGroup, Synced,
    TopicPartition,
};
use crate::group::state::Answer;
use crate::sys::mailbox::Sender;
use headwater_protocol::ids::LeaderEpoch;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};

/// One request. Whoever asked may be gone when it is answered.
pub(in crate::group) enum Letter {
    Join {
        join: Join,
        reply: oneshot::Sender<Result<Joined, GroupError>>,
    },
    Sync {
        sync: SyncGroup,
        reply: oneshot::Sender<Result<Synced, GroupError>>,
    },
    Heartbeat {
        beat: Heartbeat,
        reply: oneshot::Sender<Result<(), GroupError>>,
    },
    Leave {
        group: Name,
        members: Vec<Identity>,
        reply: oneshot::Sender<Result<Vec<Result<(), GroupError>>, GroupError>>,
    },
    Commit {
        commit: Commit,
        reply: oneshot::Sender<Result<PerPartition, GroupError>>,
    },
    Offsets {
        group: Name,
        /// A member of the consumer protocol that says so.
        who: Option<(Name, Epoch)>,
        wanted: Option<Vec<TopicPartition>>,
        reply: oneshot::Sender<Result<(Offsets, Vec<TopicPartition>), GroupError>>,
    },
    DeleteOffsets {
        group: Name,
        wanted: Vec<TopicPartition>,
        reply: oneshot::Sender<Result<PerPartition, GroupError>>,
    },
    DeleteGroup {
        group: Name,
        reply: oneshot::Sender<Result<(), GroupError>>,
    },
    Describe {
        group: Name,
        reply: oneshot::Sender<Option<Description>>,
    },
    List {
        reply: oneshot::Sender<Vec<Listed>>,
    },
    ConsumerHeartbeat {
        beat: ConsumerHeartbeat,
        reply: oneshot::Sender<Result<Reconciled, GroupError>>,
    },
    DescribeConsumers {
        group: Name,
        reply: oneshot::Sender<Result<Option<ConsumerDescription>, GroupError>>,
    },
    ShareHeartbeat {
        beat: ShareHeartbeat,
        reply: oneshot::Sender<Result<Reconciled, GroupError>>,
    },
    DescribeSharers {
        group: Name,
        reply: oneshot::Sender<Result<Option<ShareDescription>, GroupError>>,
    },
    /// Topics were deleted; by now there may be others of their names.
    ForgetTopics(BTreeSet<Name>),
}

/// Somebody whose answer has to wait.
pub(super) enum Reply {
    Join(oneshot::Sender<Result<Joined, GroupError>>),
    Sync(oneshot::Sender<Result<Synced, GroupError>>),
    PerPartition(oneshot::Sender<Result<PerPartition, GroupError>>),
    Delete(oneshot::Sender<Result<(), GroupError>>),
    Reconcile(oneshot::Sender<Result<Reconciled, GroupError>>),
}

impl Reply {
    /// That nobody waits any more is normal.
    pub(super) fn give(self, answer: Answer) {
        match (self, answer) {
            (Self::Join(reply), Answer::Joined(result)) => drop(reply.send(result)),
            (Self::Sync(reply), Answer::Synced(result)) => drop(reply.send(result)),
            (Self::PerPartition(reply), Answer::PerPartition(result)) => drop(reply.send(result)),
            (Self::Delete(reply), Answer::Deleted(result)) => drop(reply.send(result)),
            (Self::Reconcile(reply), Answer::Reconciled(result)) => drop(reply.send(result)),
            (
                Self::Join(_) | Self::Sync(_) | Self::PerPartition(_) | Self::Delete(_) | Self::Reconcile(_),
                answer,
            ) => unreachable!("a call is answered in its own kind, not by {answer:?}"),
        }
    }
}

/// What others see of a coordinator without asking it.
pub(super) struct Status {
    is_open: AtomicBool,
    groups: AtomicUsize,
    /// Those of them that use the consumer protocol.
    consumer_groups: AtomicUsize,
    share_groups: AtomicUsize,
    /// Counted up when it is open.
    opened: watch::Sender<u64>,
}

impl Status {
    pub(super) fn new(opened: watch::Sender<u64>) -> Self {
        Self {
            is_open: AtomicBool::new(false),
            groups: AtomicUsize::new(0),
            consumer_groups: AtomicUsize::new(0),
            share_groups: AtomicUsize::new(0),
            opened,
        }
    }

    /// The groups are read: from now on it can be asked.
    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.opened.send_modify(|count| *count += 1);
    }

    pub(super) fn show_groups(&self, all: usize, consumers: usize, sharers: usize) {
        self.groups.store(all, Ordering::Relaxed);
        self.consumer_groups.store(consumers, Ordering::Relaxed);
        self.share_groups.store(sharers, Ordering::Relaxed);
    }
}

/// The way to a coordinator. Cheap to clone.
#[derive(Clone)]
pub(in crate::group) struct Handle {
    epoch: LeaderEpoch,
    letters: Sender<Letter>,
    status: Arc<Status>,
}

impl Handle {
    pub(super) fn new(epoch: LeaderEpoch, letters: Sender<Letter>, status: Arc<Status>) -> Self {
        Self {
            epoch,
            letters,
            status,
        }
    }

    /// That of the partition in which it coordinates.
    pub(in crate::group) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether it has read its groups.
    pub(in crate::group) fn is_open(&self) -> bool {
        self.status.is_open.load(Ordering::Acquire)
    }

    pub(in crate::group) fn group_count(&self) -> usize {
        self.status.groups.load(Ordering::Relaxed)
    }

    pub(in crate::group) fn consumer_group_count(&self) -> usize {
        self.status.consumer_groups.load(Ordering::Relaxed)
    }

    pub(in crate::group) fn share_group_count(&self) -> usize {
        self.status.share_groups.load(Ordering::Relaxed)
    }

    /// Asks, and waits for the answer. A coordinator that ends answers nobody: another one is to be looked for.
    pub(in crate::group) async fn ask<T>(
        &self,
        letter: impl FnOnce(oneshot::Sender<T>) -> Letter,
    ) -> Result<T, GroupError> {
        if !self.is_open() {
            return Err(GroupError::Loading);
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.letters.send(letter(reply)).await;
        sent.map_err(|_| GroupError::NotCoordinator)?;
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// What was committed of topics that are gone is forgotten; at the next reading, if there is no room to say so.
    pub(in crate::group) fn forget_topics(&self, names: &BTreeSet<Name>) {
        if self
            .letters
            .try_send(Letter::ForgetTopics(names.clone()))
            .is_err()
        {
            tracing::debug!("a coordinator is busy: offsets of deleted topics stay until they expire");
        }
    }
}

impl Coordinator {
    /// Hands a request to the state. Those that are answered at once are.
    pub(super) fn handle(&mut self, letter: Letter) {
        let now = self.now();
        match letter {
            Letter::Join { join, reply } => {
                let call = self.call(Reply::Join(reply));
                let fresh = u128::from_be_bytes(self.sys.random.secret::<16>());
                self.state.join(now, call, &join, fresh);
            }
            Letter::Sync { sync, reply } => {
                let call = self.call(Reply::Sync(reply));
                self.state.sync(now, call, &sync);
            }
            Letter::Heartbeat { beat, reply } => drop(reply.send(self.state.heartbeat(now, &beat))),
            Letter::Leave {
                group,
                members,
                reply,
            } => drop(reply.send(self.state.leave(now, &group, &members))),
            Letter::Commit { commit, reply } => {
                self.meters.commits.increment();
                let call = self.call(Reply::PerPartition(reply));
                self.state.commit(now, call, &commit);
            }
            Letter::Offsets {
                group,
                who,
                wanted,
                reply,
            } => {
                let may_read = self.state.check_reader(&group, who.as_ref());
                let found = may_read.map(|()| {
                    let offsets = self.state.offsets(&group, wanted.as_deref());
                    let unstable = self.state.unstable(&group, &offsets);
                    (offsets, unstable)
                });
                drop(reply.send(found));
            }
            Letter::DeleteOffsets { group, wanted, reply } => {
                let call = self.call(Reply::PerPartition(reply));
                self.state.delete_offsets(call, &group, &wanted);
            }
            Letter::DeleteGroup { group, reply } => {
                let call = self.call(Reply::Delete(reply));
                self.state.delete_group(call, &group);
            }
            Letter::Describe { group, reply } => drop(reply.send(self.state.describe(&group))),
            Letter::ConsumerHeartbeat { beat, reply } => {
                let call = self.call(Reply::Reconcile(reply));
                let fresh = u128::from_be_bytes(self.sys.random.secret::<16>());
                self.state.consumer_heartbeat(now, call, beat, fresh);
            }
            Letter::DescribeConsumers { group, reply } => {
                drop(reply.send(self.state.describe_consumers(&group)));
            }
            Letter::ShareHeartbeat { beat, reply } => {
                let call = self.call(Reply::Reconcile(reply));
                self.state.share_heartbeat(now, call, beat);
            }
            Letter::DescribeSharers { group, reply } => {
                drop(reply.send(self.state.describe_sharers(&group)));
            }
            Letter::List { reply } => drop(reply.send(self.state.list())),
            Letter::ForgetTopics(names) => self.state.forget_topics(|topic| !names.contains(topic)),
        }
    }
}
