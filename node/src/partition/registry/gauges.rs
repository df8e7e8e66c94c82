//! What the registry tells at each scrape: how many partitions are how, and how far each one is.
//!
//! It owns the bound on series by follower. It must never wait for a partition's task.

use super::Registry;
use crate::partition::{FollowerProgress, Partition};
use crate::telemetry::metrics::Scrape;
use crate::telemetry::{Metrics, names};
use std::sync::Arc;

/// Followers that have a series of their own; beyond it, those that lag most. `FOLLOWER_LAG_MAX` sees all.
const FOLLOWERS_MAX: usize = 2000;

impl Registry {
    /// Has `metrics` ask for the partitions at each scrape, as long as they are there.
    pub(super) fn describe(&self, metrics: &Metrics) {
        let weak = Arc::downgrade(&self.shared);
        metrics.on_scrape(move |scrape| {
            let Some(shared) = weak.upgrade() else { return };
            let index = shared.index.load_full();
            let partitions: Vec<&Partition> =
                index.by_name.values().flat_map(|topic| topic.values()).collect();
            scrape.value(&names::TAIL_BYTES, &[], shared.logs.tail_bytes() as u64);
            counts(scrape, &partitions);
            followers(scrape, &partitions);
            for partition in partitions {
                marks(scrape, partition);
            }
        });
    }
}

fn counts(scrape: &mut Scrape, partitions: &[&Partition]) {
    scrape.value(&names::PARTITIONS, &[], partitions.len() as u64);
    let is_offline = |partition: &Partition| partition.offline().is_some();
    let is_damaged = |partition: &Partition| !partition.damaged().is_empty();
    let is_lost = |partition: &Partition| !partition.can_be_repaired() && is_damaged(partition);
    let kinds: [(_, &dyn Fn(&Partition) -> bool); 8] = [
        (&names::PARTITIONS_LEADING, &Partition::is_leader),
        (&names::PARTITIONS_OFFLINE, &is_offline),
        (
            &names::PARTITIONS_UNDER_REPLICATED,
            &Partition::is_under_replicated,
        ),
        (&names::PARTITIONS_UNDER_MIN_ISR, &Partition::is_under_min_in_sync),
        (&names::PARTITIONS_AT_MIN_ISR, &Partition::is_at_min_in_sync),
        (&names::PARTITIONS_DISK_FULL, &Partition::is_disk_full),
        (&names::PARTITIONS_DAMAGED, &is_damaged),
        (&names::PARTITIONS_UNREPAIRABLE, &is_lost),
    ];
    for (family, is) in kinds {
        let count = partitions.iter().filter(|partition| is(partition)).count();
        scrape.value(family, &[], count as u64);
    }
}

fn followers(scrape: &mut Scrape, partitions: &[&Partition]) {
    let mut all: Vec<(&Partition, FollowerProgress)> = partitions
        .iter()
        .flat_map(|partition| partition.followers().into_iter().map(|it| (*partition, it)))
        .collect();
    let most = all.iter().map(|(_, follower)| follower.lag).max();
    scrape.value(&names::FOLLOWER_LAG_MAX, &[], most.unwrap_or(0));
    // Stable: among equals, those that come first by name stay.
    all.sort_by_key(|(_, follower)| std::cmp::Reverse(follower.lag));
    all.truncate(FOLLOWERS_MAX);
    for (partition, follower) in all {
        let name = partition.name();
        let labels = [&*name.topic, &name.index.to_string(), &follower.node.to_string()];
        scrape.value(&names::FOLLOWER_LAG, &labels, follower.lag);
    }
}

fn marks(scrape: &mut Scrape, partition: &Partition) {
    let name = partition.name();
    let labels = [&*name.topic, &name.index.to_string()];
    let marks = *partition.watermarks().borrow();
    if !partition.is_leader() {
        scrape.value(&names::REPLICA_LAG, &labels, partition.replica_lag());
    }
    scrape.value(&names::LOG_BYTES, &labels, partition.size_bytes());
    for (family, offset) in [
        (&names::LOG_START_OFFSET, marks.log_start),
        (&names::LOG_END_OFFSET, marks.log_end),
        (&names::HIGH_WATERMARK, marks.high_watermark),
    ] {
        scrape.value(family, &labels, u64::try_from(offset.value()).unwrap_or(0));
    }
}
