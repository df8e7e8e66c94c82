//! Whether a cluster has come to rest: everybody runs, all know the same, every replica is in sync and level.
//! Answers with what is missing. It must never wait, nor change anything.

use headwater::metadata::features::Level;
use headwater::metadata::{Image, PartitionState};

use crate::client::Partition;
use crate::cluster::replicas_of;
use crate::invariants::watermarks::Replica;
use crate::machine::{Machine, Status};

/// Whether every node runs and serves everything it has.
pub(crate) fn all_run(machines: &[Machine]) -> Result<(), String> {
    for machine in machines {
        if !machine.is_running() {
            return Err(format!("{} does not run", machine.name));
        }
        if let Some(replica) = replicas_of(machine).iter().find(|replica| replica.is_offline) {
            return Err(format!("{} is offline on {}", replica.partition, machine.name));
        }
    }
    Ok(())
}

/// Whether all know the same metadata, and every partition is led with all of its replicas in sync.
pub(crate) fn all_in_sync(machines: &[Machine]) -> Result<(), String> {
    all_run(machines)?;
    let image = common_image(machines)?;
    if image.level() < Level::NEWEST {
        return Err(format!("the cluster is at level {}", image.level()));
    }
    for_each_partition(&image, |partition, state| {
        if !state.replicas.contains(&state.leader) {
            return Err(format!("{partition}: nobody leads"));
        }
        if state.is_moving() {
            return Err(format!("{partition}: on its way to {:?}", state.replicas));
        }
        match state.isr.len() < state.replicas.len() {
            true => Err(format!(
                "{partition}: {:?} of {:?} are in sync",
                state.isr, state.replicas
            )),
            false => Ok(()),
        }
    })
}

/// Whether each replica has all its leader has, on its disk, and knows that it is committed.
pub(crate) fn all_level(machines: &[Machine]) -> Result<(), String> {
    all_in_sync(machines)?;
    let image = common_image(machines)?;
    let replicas: Vec<Replica> = machines.iter().flat_map(replicas_of).collect();
    for_each_partition(&image, |partition, state| {
        let of_partition = replicas.iter().filter(|replica| replica.partition == partition);
        is_level(&partition, state, &of_partition.collect::<Vec<_>>())
    })
}

/// Whether no transaction is open on any replica: all that is committed to the log may be seen by everybody.
pub(crate) fn all_stable(machines: &[Machine]) -> Result<(), String> {
    all_run(machines)?;
    for Replica {
        partition,
        node,
        marks,
        ..
    } in machines.iter().flat_map(replicas_of)
    {
        if marks.last_stable < marks.high_watermark {
            return Err(format!("{partition} on n{node}: {marks:?}"));
        }
    }
    Ok(())
}

fn is_level(partition: &Partition, state: &PartitionState, copies: &[&Replica]) -> Result<(), String> {
    if copies.len() < state.replicas.len() {
        return Err(format!("{partition}: only {} replicas are open", copies.len()));
    }
    let Some(leader) = copies.iter().find(|replica| replica.is_leader) else {
        return Err(format!("{partition}: n{} does not lead yet", state.leader));
    };
    let end = leader.marks.log_end;
    for Replica { node, marks, .. } in copies {
        if (marks.log_end, marks.synced, marks.high_watermark) != (end, end, end) {
            return Err(format!(
                "{partition} on n{node}: {marks:?}, the leader ends at {end}"
            ));
        }
    }
    Ok(())
}

fn common_image(machines: &[Machine]) -> Result<std::sync::Arc<Image>, String> {
    let images = machines
        .iter()
        .filter_map(|machine| Some((machine, machine.core()?.view.image())));
    let mut images: Vec<_> = images.collect();
    images.sort_by_key(|(_, image)| image.offset);
    match (images.first(), images.last()) {
        (Some((behind, first)), Some((_, last))) if first.offset < last.offset => Err(format!(
            "{} knows the metadata up to {}, others up to {}",
            behind.name, first.offset, last.offset
        )),
        (_, Some((_, last))) => Ok(last.clone()),
        (_, None) => Err("nobody runs".to_owned()),
    }
}

fn for_each_partition(
    image: &Image,
    mut look: impl FnMut(Partition, &PartitionState) -> Result<(), String>,
) -> Result<(), String> {
    for topic in image.topics.values() {
        for (index, state) in topic.indexes().zip(&topic.partitions) {
            let partition = Partition {
                topic: topic.name.to_string(),
                index: index.value(),
            };
            look(partition, state)?;
        }
    }
    Ok(())
}
