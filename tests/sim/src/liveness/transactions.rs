//! What must be so of transactions when everything is healed: they go on, they end, none hangs, and what is seen of them is
//! what was promised.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{none_left, until};
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
    let is_read = Arc::new(Mutex::new(false));
    let (client, oracle, done) = (
        world.client("judge of transactions"),
        world.oracle.clone(),
        Arc::clone(&is_read),
    );
    world.clients.spawn(async move {
        watch::read_all(client, oracle, partitions).await;
        if let Ok(mut done) = done.lock() {
            *done = true;
        }
    });
    until(world, "everything committed is read", |_| {
        match is_read.lock().is_ok_and(|is_read| *is_read) {
            true => Ok(()),
            false => Err("not all was read".to_owned()),
        }
    })?;
    world.oracle.history().online.transactions.judge()?;
    let inputs: Vec<Partition> = world
        .scenario
        .topics
        .iter()
        .take(1)
        .flat_map(partitions_of)
        .collect();
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
    let found: Arc<Mutex<Option<i64>>> = Arc::default();
    let (mut client, result) = (world.client("judge of offsets"), Arc::clone(&found));
    let (what, of) = (Coordinated::Group(group.to_owned()), of.clone());
    world.clients.spawn(async move {
        loop {
            let committed = copy::committed(&mut client, &what, &of).await;
            if committed.is_some() {
                if let Ok(mut result) = result.lock() {
                    *result = committed;
                }
                return;
            }
            client.pause_ms(100).await;
        }
    });
    let answer = || found.lock().ok().and_then(|found| *found);
    until(world, "a committed offset is told", |_| {
        answer().map(drop).ok_or_else(|| "nobody tells it".to_owned())
    })?;
    Ok(answer().unwrap_or(-1))
}
