//! What must be so of transactions when everything is healed: they go on, they end, none hangs, and what is seen of them is
//! what was promised.

use std::sync::atomic::Ordering;

use super::{answered, none_left, until};
use crate::client::{Coordinated, Partition};
use crate::invariants::Violation;
use crate::rest;
use crate::workload::transact::{copy, group_of};
use crate::workload::watch;
use crate::world::{World, partitions_of};

/// Commits that must be acknowledged after all faults.
const COMMITS_AFTER: u64 = 3;

/// Waits for some more commits.
pub(super) fn go_on(world: &mut World) -> Result<(), Violation> {
    if world.scenario.transactions.is_none() {
        return Ok(());
    }
    let commits = |world: &World| world.oracle.history().online.transactions.commits();
    let before = commits(world);
    until(world, "transactions go on", |world| {
        let commits = commits(world) - before;
        match commits >= COMMITS_AFTER {
            true => Ok(()),
            false => Err(format!("{commits} were committed")),
        }
    })
}

/// Nobody begins any more: whatever was left open is ended by its coordinator.
pub(super) fn end(world: &mut World) -> Result<(), Violation> {
    until(world, "clients with transactions end", |world| {
        none_left(world.control.transacting.load(Ordering::Relaxed))
    })?;
    until(world, "no transaction hangs", |world| {
        rest::all_stable(&world.machines)
    })
}

/// Reads everything as those do who read what is committed, and compares it with what was acknowledged.
pub(super) fn judge(world: &mut World) -> Result<(), Violation> {
    let Some(plan) = world.scenario.transactions.clone() else {
        return Ok(());
    };
    let partitions: Vec<Partition> = plan.topics.iter().flat_map(partitions_of).collect();
    let client = world.client("judge of transactions");
    let read = watch::read_all(client, world.oracle.clone(), partitions);
    answered(world, "everything committed is read", "not all was read", read)?;
    world.oracle.history().online.transactions.judge()?;
    let inputs = world.copied_partitions();
    for owner in plan.writers..plan.writers + plan.copiers {
        for input in &inputs {
            let committed = committed(world, &group_of(owner), input)?;
            let history = world.oracle.history();
            history.online.copies.judge(owner, input.index, committed)?;
        }
    }
    Ok(())
}

/// What a group has committed of a partition.
pub(super) fn committed(world: &mut World, group: &str, of: &Partition) -> Result<i64, Violation> {
    let mut client = world.client("judge of offsets");
    let (what, of) = (Coordinated::Group(group.to_owned()), of.clone());
    let ask = async move {
        loop {
            match copy::committed(&mut client, &what, &of).await {
                Some(offset) => return offset,
                None => client.pause_ms(100).await,
            }
        }
    };
    answered(world, "a committed offset is told", "nobody tells it", ask)
}
