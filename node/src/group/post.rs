//! Coordinators of groups, one for each partition of the offsets topic.

use super::coordinator::{Coordinator, Handle, Means, Meters};
use crate::config::GroupConfig;
use crate::coordination::Post;
use crate::metadata::topic::OFFSETS_TOPIC;
use crate::metadata::{Topic, View};
use crate::partition::Partition;
use crate::sys::Sys;
use futures_util::future::BoxFuture;
use headwater_protocol::ids::LeaderEpoch;
use std::sync::Arc;
use tokio::sync::watch;

pub(super) struct GroupPost {
    pub(super) config: GroupConfig,
    pub(super) sys: Sys,
    pub(super) view: View,
    pub(super) meters: Meters,
}

impl Post for GroupPost {
    type Handle = Handle;

    const TOPIC: &'static str = OFFSETS_TOPIC;

    fn fill(
        &self,
        partition: Partition,
        epoch: LeaderEpoch,
        opened: watch::Sender<u64>,
    ) -> (BoxFuture<'static, ()>, Handle) {
        let means = Means {
            sys: self.sys.clone(),
            view: self.view.clone(),
            meters: self.meters.clone(),
            opened,
        };
        let (coordinator, handle) = Coordinator::new(partition, epoch, &self.config, means);
        (Box::pin(coordinator.run()), handle)
    }

    fn is_open(handle: &Handle) -> bool {
        handle.is_open()
    }

    fn epoch(handle: &Handle) -> LeaderEpoch {
        handle.epoch()
    }

    /// What was committed of a topic that is gone is of no use.
    fn topics_removed(&self, handle: &Handle, topics: &[Arc<Topic>]) {
        handle.forget_topics(&topics.iter().map(|topic| Arc::clone(&topic.name)).collect());
    }
}
