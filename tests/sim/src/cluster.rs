//! The nodes of a run: how they are configured, and what is read of all of them at once.
//! It must never change a node; that is the faults' work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use headwater::metadata::Image;
use headwater::sys::net::simulated::Fabric;
use headwater::sys::random::Random;

use crate::client::Partition;
use crate::digest::Digest;
use crate::invariants::replicas::Copy;
use crate::invariants::watermarks::{Opened, Replica};
use crate::invariants::{Regular, Violation, levels, replicas, whole};
use crate::logs;
use crate::machine::{Machine, Parts};
use crate::reached::Reached;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::workload::keep;

pub(crate) const PORT: u16 = 9092;

/// The machines of a scenario, all down.
pub(crate) fn build(scenario: &Scenario, random: &Random, fabric: &Fabric, trace: &Trace) -> Vec<Machine> {
    let ids = 1..=i32::try_from(scenario.nodes).expect("a few nodes");
    ids.zip(&scenario.skews)
        .map(|(id, skew)| {
            Machine::new(Parts {
                id,
                config: config(scenario, id),
                level: scenario.level(),
                skew: *skew,
                pace: scenario.disk,
                random: random.fork(),
                fabric: fabric.clone(),
                trace: trace.clone(),
            })
        })
        .collect()
}

fn config(scenario: &Scenario, id: i32) -> BTreeMap<String, String> {
    let address = format!("n{id}:{PORT}");
    let timing = scenario.timing;
    let mut config: BTreeMap<String, String> = [
        ("node.id", id.to_string()),
        ("cluster.id", "simulated".to_owned()),
        ("cluster.secret", "a secret of the simulation".to_owned()),
        ("data.dir", "data".to_owned()),
        ("listen.tcp", address.clone()),
        ("listen.quic", address.clone()),
        ("listen.http", String::new()),
        ("advertise.tcp", address.clone()),
        ("advertise.quic", address),
        ("auto.create.topics.enable", "false".to_owned()),
        ("log.segment.bytes", scenario.segment_bytes.to_string()),
        (
            "controller.quorum.election.timeout.ms",
            timing.election_ms.to_string(),
        ),
        (
            "controller.quorum.heartbeat.interval.ms",
            timing.heartbeat_ms.to_string(),
        ),
        ("broker.session.timeout.ms", timing.session_ms.to_string()),
        ("replica.lag.time.max.ms", timing.lag_ms.to_string()),
        (
            "replica.fetch.wait.max.ms",
            (timing.lag_ms / 2).min(500).to_string(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(plan) = scenario.members {
        let least = plan.session_ms.to_string();
        config.insert("group.min.session.timeout.ms".to_owned(), least);
        let first = plan.first_ms.to_string();
        config.insert("group.initial.rebalance.delay.ms".to_owned(), first);
        let silent = plan.session_ms.to_string();
        config.insert("group.consumer.session.timeout.ms".to_owned(), silent);
        let beat = (plan.session_ms / 4).to_string();
        config.insert("group.consumer.heartbeat.interval.ms".to_owned(), beat);
    }
    if let Some(plan) = &scenario.kept {
        let rest = plan.rest_ms.to_string();
        config.insert("log.cleaner.backoff.ms".to_owned(), rest);
    }
    for topic in ["transaction.state.log", "offsets.topic"] {
        let (partitions, replicas) = (scenario.coordinators, scenario.coordinator_replicas);
        config.insert(format!("{topic}.num.partitions"), partitions.to_string());
        config.insert(format!("{topic}.replication.factor"), replicas.to_string());
    }
    if scenario.nodes > 1 {
        let voters: Vec<_> = (1..=scenario.nodes)
            .map(|id| format!("{id}@n{id}:{PORT}"))
            .collect();
        config.insert("voters".to_owned(), voters.join(","));
    }
    config
}

/// Looks at every running node.
pub(crate) fn check(
    machines: &[Machine],
    regular: &mut Regular,
    reached: &mut Reached,
) -> Result<(), Violation> {
    for machine in machines {
        let Some(core) = machine.core() else { continue };
        let replicas = replicas_of(machine);
        regular.watermarks.forget_others(machine.id, &replicas);
        for replica in replicas {
            regular.watermarks.check(&replica)?;
            regular.leaders.check(&replica)?;
        }
        let image = core.view.image();
        let (node, life, offset) = (machine.id, machine.lives(), image.offset.value());
        if !regular.images.is_known(node, life, offset) {
            levels::check(machine.id, machine.level(), image.level())?;
            let digest = digest(&image, machines.iter().any(Machine::began_old));
            regular.images.check(node, life, offset, digest)?;
            reached.see(&image);
        }
    }
    Ok(())
}

/// Older binaries pass over what nodes support, and keep nothing of it.
fn digest(image: &Image, without_features: bool) -> Digest {
    let mut image = image.clone();
    if without_features {
        let nodes = Arc::make_mut(&mut image.nodes).values_mut();
        nodes.for_each(|node| node.features.clear());
    }
    Digest::of(format!("{image:?}").as_bytes())
}

/// What a running node shows of its partitions.
pub(crate) fn replicas_of(machine: &Machine) -> Vec<Replica> {
    let Some(core) = machine.core() else {
        return Vec::new();
    };
    let partitions = core.registry.list();
    let replica = |partition: &headwater::partition::Partition| Replica {
        partition: Partition {
            topic: partition.name().topic.to_string(),
            index: partition.name().index.value(),
        },
        node: machine.id,
        life: machine.lives(),
        epoch: partition.leader_epoch().value(),
        is_leader: partition.is_leader(),
        is_offline: partition.offline().is_some(),
        marks: *partition.watermarks().borrow(),
        opened: Opened(Some(partition.watermarks())),
    };
    partitions.iter().map(replica).collect()
}

/// Reads every log of every running node from its disk and compares.
pub(crate) fn compare(machines: &[Machine]) -> Result<(), Violation> {
    let mut copies: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
    for machine in machines {
        let Some(core) = machine.core() else { continue };
        for partition in core.registry.list() {
            let name = partition.name();
            // Each replica compacts by itself, and files change their names meanwhile: that is judged by what consumers read.
            if partition.offline().is_some() || &*name.topic == keep::TOPIC {
                continue;
            }
            let folder = PathBuf::from("topics").join(format!("{}-{}", name.topic_id, name.index));
            let high_watermark = partition.watermarks().borrow().high_watermark.value();
            let batches = logs::read(&machine.disk, &folder);
            whole::check(&format!("{name} on {}", machine.name), &batches, high_watermark)?;
            copies.entry(name.to_string()).or_default().push(Copy {
                node: machine.id,
                high_watermark,
                batches,
            });
        }
    }
    for (partition, copies) in &copies {
        for (index, one) in copies.iter().enumerate() {
            for other in &copies[index + 1..] {
                replicas::check(partition, one, other)?;
            }
        }
    }
    Ok(())
}
