//! What must be so of groups when everything is healed: they consume everything, and what they have committed is still there.

use super::transactions::committed;
use super::until;
use crate::client::Partition;
use crate::cluster::replicas_of;
use crate::invariants::Violation;
use crate::world::{World, partitions_of};

/// Nobody writes any more: every group comes to the end of what there is.
pub(super) fn reach_the_end(world: &mut World) -> Result<(), Violation> {
    let shares = shares(world);
    until(world, "groups reach the end", |world| {
        let replicas: Vec<_> = world.machines.iter().flat_map(replicas_of).collect();
        let history = world.oracle.history();
        for (group, partition) in &shares {
            let of_partition = replicas.iter().filter(|replica| replica.partition == *partition);
            let end = of_partition.map(|replica| replica.marks.log_end.value()).max();
            let reach = history.online.groups.reach(group, partition);
            if end.is_none_or(|end| reach < end) {
                return Err(format!("{group} is at {reach} of {end:?} in {partition}"));
            }
        }
        Ok(())
    })
}

/// What is committed at the end, nobody having committed any more.
pub(super) fn judge(world: &mut World) -> Result<(), Violation> {
    for (group, partition) in shares(world) {
        let offset = committed(world, &group, &partition)?;
        let history = world.oracle.history();
        history.online.groups.told(&group, None, &partition, offset)?;
    }
    Ok(())
}

/// Every group with every partition it consumes.
fn shares(world: &World) -> Vec<(String, Partition)> {
    let groups = world.scenario.members.into_iter().flat_map(|plan| plan.groups());
    let partitions: Vec<Partition> = world.scenario.topics.iter().flat_map(partitions_of).collect();
    let shares = groups.flat_map(|(group, _)| {
        let share = |partition: &Partition| (group.clone(), partition.clone());
        partitions.iter().map(share).collect::<Vec<_>>()
    });
    shares.collect()
}
