//! Share coordinators, one for each partition of their topic.

use super::coordinator::{Coordinator, Handle};
use crate::coordination::Post;
use crate::metadata::Topic;
use crate::metadata::topic::SHARE_STATE_TOPIC;
use crate::partition::Partition;
use crate::sys::Sys;
use futures_util::future::BoxFuture;
use headwater_protocol::ids::LeaderEpoch;
use std::sync::Arc;
use tokio::sync::watch;

pub(super) struct SharePost {
    pub(super) sys: Sys,
}

impl Post for SharePost {
    type Handle = Handle;

    const TOPIC: &'static str = SHARE_STATE_TOPIC;

    fn fill(
        &self,
        partition: Partition,
        epoch: LeaderEpoch,
        opened: watch::Sender<u64>,
    ) -> (BoxFuture<'static, ()>, Handle) {
        let (coordinator, handle) = Coordinator::new(partition, epoch, self.sys.clone(), opened);
        (Box::pin(coordinator.run()), handle)
    }

    fn is_open(handle: &Handle) -> bool {
        handle.is_open()
    }

    fn epoch(handle: &Handle) -> LeaderEpoch {
        handle.epoch()
    }

    fn topics_removed(&self, handle: &Handle, topics: &[Arc<Topic>]) {
        handle.forget_topics(topics.iter().map(|topic| topic.id).collect());
    }
}
