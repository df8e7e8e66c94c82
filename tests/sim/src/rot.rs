//! Bit rot and lost files: what was synced long ago on one replica is not there any more, while others are whole.
//!
//! Owns what is damaged, and that it is healed: found by whoever reads, by the start of a node, or by the scrub, never served,
//! and the same to the byte as before. It must never damage a record on two replicas, nor what may still be torn by a crash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use headwater::sys::disk::Disk;
use headwater::sys::net::simulated::Crash;
use headwater::sys::random::Random;

use crate::machine::Machine;
use crate::summary::Summary;
use crate::trace::Trace;
use crate::workload::keep;

/// Of one log, about as many segments are damaged at most.
const STRUCK_MAX: u64 = 8;

/// What was there before, to be there again.
#[derive(Debug, Default)]
pub(crate) struct Rot {
    /// The log of one machine in a folder, as far as it was committed and durable.
    whole: BTreeMap<(usize, PathBuf), Vec<u8>>,
}

impl Rot {
    /// Damages one replica of each partition that has several, and lets some of their nodes start again. Everything must be
    /// in sync.
    pub(crate) fn strike(
        random: &Random,
        machines: &mut [Machine],
        trace: &Trace,
        summary: &mut Summary,
    ) -> Self {
        let mut rot = Self::default();
        for (folder, holders) in folders(machines) {
            if holders.len() < 2 {
                continue;
            }
            let (victim, safe_until) = holders[random.below(holders.len() as u64) as usize];
            let machine = &machines[victim];
            let all = files(machine, &folder);
            // Only what is closed, committed and known to be durable: the next segment begins below.
            let safe = all.iter().zip(all.iter().skip(1));
            let safe = safe.take_while(|(_, next)| base_of(next) <= safe_until);
            let safe: Vec<&PathBuf> = safe.map(|(file, _)| file).collect();
            let whole = joined(machine, safe.iter().copied());
            // Every other one, or as many as are repaired in time.
            let one_in = (safe.len() as u64 / STRUCK_MAX).max(2);
            let mut is_struck = false;
            for file in safe {
                if random.one_in(one_in) {
                    is_struck = true;
                    damage(random, machine, file, trace, summary);
                }
            }
            if is_struck {
                rot.whole.insert((victim, folder), whole);
            }
        }
        for (index, machine) in machines.iter_mut().enumerate() {
            let is_struck = rot.whole.keys().any(|(at, _)| *at == index);
            if is_struck && random.one_in(3) {
                let how = if random.one_in(2) {
                    Crash::Power
                } else {
                    Crash::Process
                };
                summary.count("rotten_starts");
                machine.crash(how);
            }
        }
        rot
    }

    /// Has every node scrub what it has.
    pub(crate) fn scrub(machines: &[Machine]) {
        for core in machines.iter().filter_map(Machine::core) {
            core.registry.scrub(&core.registry.list());
        }
    }

    /// Whether all that was asked for was scrubbed, and nothing is damaged any more.
    pub(crate) fn is_healed(machines: &[Machine]) -> Result<(), String> {
        for machine in machines {
            let Some(core) = machine.core() else {
                return Err(format!("{} does not run", machine.name));
            };
            if !core.registry.is_scrubbed() {
                return Err(format!("{} scrubs", machine.name));
            }
            let damaged = core.registry.damaged();
            if let Some(((topic, index), found)) = damaged.borrow().iter().next() {
                return Err(format!("{topic}-{index} on {}: {found:?}", machine.name));
            }
        }
        Ok(())
    }

    /// Whether every byte is back.
    pub(crate) fn check(&self, machines: &[Machine]) -> Result<(), String> {
        for ((at, folder), whole) in &self.whole {
            let machine = &machines[*at];
            let now = joined(machine, files(machine, folder).iter());
            if !now.starts_with(whole) {
                return Err(format!("{} on {}", folder.display(), machine.name));
            }
        }
        Ok(())
    }
}

fn damage(random: &Random, machine: &Machine, file: &Path, trace: &Trace, summary: &mut Summary) {
    let content = machine.disk.content(file).unwrap_or_default();
    if content.is_empty() {
        return;
    }
    if random.one_in(5) {
        trace.say(format_args!("{} loses {}", machine.name, file.display()));
        summary.count("lost_files");
        let _ = machine.disk.remove_file(file);
        return;
    }
    summary.count("rot");
    for _ in 0..=random.below(3) {
        let place = random.below(content.len() as u64) as usize;
        trace.say(format_args!(
            "{} rots in {} at {place}",
            machine.name,
            file.display()
        ));
        machine
            .disk
            .corrupt(file, place, &[content[place] ^ (1 << random.below(8))]);
    }
    let index = file.with_extension("index");
    let has_index = machine.disk.content(&index).is_some_and(|bytes| bytes.len() >= 8);
    if has_index && random.one_in(4) {
        machine.disk.corrupt(&index, random.below(8) as usize, &[0xa5]);
    }
}

/// The folders of all partitions, and which machines hold them up to which offset for good.
fn folders(machines: &[Machine]) -> BTreeMap<PathBuf, Vec<(usize, i64)>> {
    let mut found: BTreeMap<PathBuf, Vec<(usize, i64)>> = BTreeMap::new();
    for (at, machine) in machines.iter().enumerate() {
        let Some(core) = machine.core() else { continue };
        for partition in core.registry.list() {
            let (name, marks) = (partition.name(), *partition.watermarks().borrow());
            // What is compacted anew is not what it was.
            if &*name.topic == keep::TOPIC {
                continue;
            }
            let folder = Path::new("topics").join(format!("{}-{}", name.topic_id, name.index));
            let Ok(known) = partition.recovery_point() else {
                continue;
            };
            let safe_until = known.min(marks.synced).min(marks.high_watermark).value();
            found.entry(folder).or_default().push((at, safe_until));
        }
    }
    found
}

/// The segments in a folder, in order.
fn files(machine: &Machine, folder: &Path) -> Vec<PathBuf> {
    let entries = machine.disk.list(folder).unwrap_or_default();
    let named = entries.into_iter().filter(|entry| entry.name.ends_with(".log"));
    named.map(|entry| folder.join(entry.name)).collect()
}

fn base_of(file: &Path) -> i64 {
    let base = file.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    base.unwrap_or(i64::MAX)
}

fn joined<'a>(machine: &Machine, files: impl Iterator<Item = &'a PathBuf>) -> Vec<u8> {
    files
        .filter_map(|file| machine.disk.content(file))
        .collect::<Vec<_>>()
        .concat()
}
