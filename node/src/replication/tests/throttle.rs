//! Replicas that catch up as slowly as they are told to.

use super::cluster::{Cluster, LEADER, batch, write};
use crate::config::NodeConfig;
use crate::metadata::{PartitionState, Record, View};
use crate::replication::throttle::Throttle;
use headwater_protocol::ids::NodeId;
use std::time::Duration;

/// A second's worth of the rate is for nothing.
const RATE: usize = 10_000;
const BATCHES: usize = 30;
const BATCH: usize = 1_000;

/// How long a replica takes to come into sync that lacks three seconds' worth of bytes.
async fn catch_up(settings: &[(&str, &str)]) -> Duration {
    let cluster = Cluster::new(5, 2, 1, settings).await;
    let rates = [
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
    ];
    let rates = rates.map(|key| Record::BrokerConfig {
        key: key.to_owned(),
        value: Some(RATE.to_string()),
    });
    cluster.cut(1, 2);
    let state = cluster.quorum.partition(0);
    let alone = PartitionState {
        isr: vec![NodeId(1)],
        partition_epoch: state.partition_epoch + 1,
        ..state
    };
    cluster.quorum.set(0, alone);
    cluster.quorum.say(&rates);
    cluster.reconciled().await;
    let leader = cluster.get(1, 0);
    for _ in 0..BATCHES {
        let bytes = batch(&["x".repeat(BATCH)]);
        leader.append(bytes, LEADER).await.unwrap().done().await.unwrap();
    }
    let began = cluster.clock.now();
    cluster.heal();
    let is_in_sync = |cluster: &Cluster| cluster.quorum.partition(0).isr.len() == 2;
    cluster.until("it is in sync", is_in_sync).await;
    let took = cluster.clock.now().duration_since(began);
    // In sync it is held up no more, whatever is written.
    let began = cluster.clock.now();
    for _ in 0..BATCHES {
        let bytes = batch(&["y".repeat(BATCH)]);
        write(&leader, bytes).await;
    }
    let written = cluster.clock.now().duration_since(began);
    assert!(written < Duration::from_secs(1), "{written:?}");
    cluster.same_everywhere(0).await;
    took
}

#[tokio::test]
async fn a_replica_that_is_not_in_sync_is_copied_at_the_rate_of_its_leader_or_its_own() {
    let leader = "leader.replication.throttled.replicas";
    let follower = "follower.replication.throttled.replicas";
    let second = Duration::from_secs(1);
    assert!(catch_up(&[]).await < second);
    assert!(
        catch_up(&[(leader, "0:2"), (follower, "0:1,1:2")]).await < second,
        "others are named"
    );
    for settings in [[(leader, "0:1")], [(leader, "*")], [(follower, "0:2")]] {
        let took = catch_up(&settings).await;
        assert!(
            (3 * second / 2..6 * second).contains(&took),
            "{settings:?}: {took:?}"
        );
    }
}

#[tokio::test]
async fn a_replica_rests_while_it_is_not_in_sync_and_no_longer() {
    let cluster = Cluster::new(6, 2, 1, &[]).await;
    let values =
        [("data.dir", "data"), ("node.id", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let broker = NodeConfig::from_values(values.into()).unwrap().broker;
    let (_publisher, view) = View::new(cluster.quorum.image());
    let throttle = Throttle::new(NodeId(2), broker, view, cluster.clock.clone(), 25);
    let took = Duration::from_millis(100);
    let rested = async || {
        let began = cluster.clock.now();
        throttle.rest(&cluster.get(2, 0), took).await;
        cluster.clock.now().duration_since(began)
    };
    assert!(rested().await < took, "it is in sync");
    let state = cluster.quorum.partition(0);
    cluster.cut(1, 2);
    let alone = PartitionState {
        isr: vec![NodeId(1)],
        partition_epoch: state.partition_epoch + 1,
        ..state
    };
    cluster.quorum.set(0, alone);
    cluster.reconciled().await;
    assert!(rested().await >= 3 * took);
}
