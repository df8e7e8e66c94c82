//! Several nodes in one process: registries with disks that crash, edges that serve them, fetchers over streams in memory,
//! and a quorum that the test plays. Time moves on by itself, but slower than everybody who has something to do.

mod cluster;
mod compaction;
mod damage;
mod failover;
mod followers;
mod groups;
mod histories;
mod throttle;

use cluster::{Cluster, batch, idempotent, values, write};
