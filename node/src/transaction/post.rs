//! Coordinators of transactions, one for each partition of their topic.

use super::coordinator::{Coordinator, Handle};
use super::markers::Markers;
use super::state::Settings;
use crate::coordination::Post;
use crate::metadata::topic::TRANSACTIONS_TOPIC;
use crate::partition::Partition;
use crate::sys::Sys;
use futures_util::future::BoxFuture;
use headwater_protocol::ids::LeaderEpoch;
use tokio::sync::watch;

pub(super) struct TransactionPost {
    pub(super) settings: Settings,
    pub(super) sys: Sys,
    pub(super) markers: Markers,
}

impl Post for TransactionPost {
    type Handle = Handle;

    const TOPIC: &'static str = TRANSACTIONS_TOPIC;

    fn fill(
        &self,
        partition: Partition,
        epoch: LeaderEpoch,
        opened: watch::Sender<u64>,
    ) -> (BoxFuture<'static, ()>, Handle) {
        let (settings, sys) = (self.settings.clone(), self.sys.clone());
        let markers = self.markers.clone();
        let (coordinator, handle) = Coordinator::new(partition, epoch, settings, sys, markers, opened);
        (Box::pin(coordinator.run()), handle)
    }

    fn is_open(handle: &Handle) -> bool {
        handle.is_open()
    }

    fn epoch(handle: &Handle) -> LeaderEpoch {
        handle.epoch()
    }
}
