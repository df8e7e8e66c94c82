//! When everything is healed, the cluster must come to rest by itself: everybody runs, producers go on, consumers reach
//! the end, and the end is what was promised. Each within a bound of virtual time.

mod groups;
mod transactions;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::client::Partition;
use crate::cluster;
use crate::invariants::{Violation, lost};
use crate::oracle::Mark;
use crate::rest;
use crate::rot::Rot;
use crate::workload::{Control, consume};
use crate::world::{World, partitions_of};

/// For each thing to come about.
const PATIENCE: Duration = Duration::from_secs(120);
/// Records that must be acknowledged after all faults.
const ACKS_AFTER: u64 = 20;

/// Waits until there are topics to work with, before anything goes wrong.
pub(crate) fn begin(world: &mut World) -> Result<(), Violation> {
    until(world, "topics are made", |world| {
        match Control::is_set(&world.control.ready) {
            true => Ok(()),
            false => Err("not all are there".to_owned()),
        }
    })
}

/// Heals everything and waits for it, then judges what is there.
pub(crate) fn converge(world: &mut World) -> Result<(), Violation> {
    world.trace.say("everything is healed");
    world
        .faults
        .end(world.now, &mut world.machines, &mut world.summary);
    world.upgrades.end(world.now);
    Control::set(&world.control.stop_operating);
    Control::set(&world.control.calm);
    until(world, "every node runs", |world| rest::all_run(&world.machines))?;
    until(world, "operators end", |world| {
        none_left(world.control.operating.load(Ordering::Relaxed))
    })?;
    until(world, "every replica is in sync", |world| {
        rest::all_in_sync(&world.machines)
    })?;
    rot(world)?;
    let before = world.oracle.history().acks;
    until(world, "producers go on", |world| {
        let acks = world.oracle.history().acks - before;
        match acks >= ACKS_AFTER {
            true => Ok(()),
            false => Err(format!("{acks} records were acknowledged")),
        }
    })?;
    transactions::go_on(world)?;
    Control::set(&world.control.stop_producing);
    until(world, "producers end", |world| {
        none_left(world.control.producing.load(Ordering::Relaxed))
    })?;
    transactions::end(world)?;
    groups::reach_the_end(world)?;
    Control::set(&world.control.stop_consuming);
    until(world, "consumers end", |world| {
        none_left(world.control.consuming.load(Ordering::Relaxed))
    })?;
    until(world, "every replica is level", |world| {
        rest::all_level(&world.machines)
    })?;
    judge(world)?;
    transactions::judge(world)?;
    groups::judge(world)?;
    keys(world)?;
    cluster::compare(&world.machines)
}

/// Goes through the compacted topic once more, now that nobody writes.
fn keys(world: &mut World) -> Result<(), Violation> {
    let Some(plan) = world.scenario.kept.clone() else {
        return Ok(());
    };
    let reader = world.reader("judge of keys", &plan);
    answered(world, "every key is read", "not all were read", reader.judge())
}

/// Damages what is on disk, while everybody goes on reading and writing, and waits until it is whole again.
fn rot(world: &mut World) -> Result<(), Violation> {
    let random = world.rot.fork();
    world.is_rotten = true;
    let struck = Rot::strike(&random, &mut world.machines, &world.trace, &mut world.summary);
    world.pass(Duration::from_millis(random.below(500)))?;
    until(world, "every replica is in sync in spite of rot", |world| {
        rest::all_in_sync(&world.machines)
    })?;
    Rot::scrub(&world.machines);
    until(world, "what is damaged is repaired", |world| {
        Rot::is_healed(&world.machines)
    })?;
    let checked = struck.check(&world.machines);
    checked.map_err(|what| Violation::new("what was damaged is as it was", what))?;
    world.is_rotten = false;
    cluster::compare(&world.machines)
}

fn none_left(count: u64) -> Result<(), String> {
    match count {
        0 => Ok(()),
        count => Err(format!("{count} are left")),
    }
}

fn until(
    world: &mut World,
    what: &str,
    is_so: impl Fn(&World) -> Result<(), String>,
) -> Result<(), Violation> {
    let end = world.now + PATIENCE;
    loop {
        let Err(not_yet) = is_so(world) else {
            world.trace.say(format_args!("{what}: yes"));
            return Ok(());
        };
        if world.now >= end {
            let what = format!("{what}: not within {PATIENCE:?}: {not_yet}");
            return Err(Violation::new("it comes to rest", what));
        }
        world.pass(Duration::from_millis(10))?;
    }
}

/// Lets a client work until it has an answer, and waits for that.
fn answered<T: Send + 'static>(
    world: &mut World,
    what: &str,
    not_yet: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Violation> {
    let found: Arc<Mutex<Option<T>>> = Arc::default();
    let told = Arc::clone(&found);
    world.clients.spawn(async move {
        let answer = work.await;
        *locked(&told) = Some(answer);
    });
    until(world, what, |_| match locked(&found).is_some() {
        true => Ok(()),
        false => Err(not_yet.to_owned()),
    })?;
    let answer = locked(&found).take();
    Ok(answer.expect("nobody else takes it"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Content = BTreeMap<Partition, BTreeMap<i64, Mark>>;

/// Reads everything from front to end and compares it with what was acknowledged.
fn judge(world: &mut World) -> Result<(), Violation> {
    let partitions: Vec<Partition> = world.scenario.topics.iter().flat_map(partitions_of).collect();
    let (mut client, oracle) = (world.client("judge"), world.oracle.clone());
    let read = async move {
        let mut content = Content::new();
        for partition in partitions {
            let mut records = BTreeMap::new();
            let mut position = 0;
            loop {
                let Some(found) = consume::fetch(&mut client, &partition, position).await else {
                    client.forget_leader(&partition);
                    client.pause_ms(100).await;
                    continue;
                };
                if let Some(violation) = found.wrong {
                    oracle.wrong(violation);
                }
                records.extend(found.records);
                position = found.next;
                if found.is_end {
                    break;
                }
            }
            content.insert(partition, records);
        }
        content
    };
    let content = answered(world, "everything is read", "not all was read", read)?;
    let nothing = BTreeMap::new();
    let history = world.oracle.history();
    for (partition, acked) in &history.acked {
        lost::check(partition, acked, content.get(partition).unwrap_or(&nothing))?;
    }
    let total: usize = content.values().map(BTreeMap::len).sum();
    drop(history);
    world.summary.add("records", total as u64);
    Ok(())
}
