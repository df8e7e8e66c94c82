//! Fuzzers of everything that a module hands the node: its own bytes, the buffers it answers with, the arguments of
//! the host functions it calls. Each begins with what is sound and damages it, so that it comes deep.
//!
//! As tests they run a few hundred or thousand cases, the same each time. `cargo xtask fuzz` sets `HEADWATER_FUZZ_SECONDS` and
//! `HEADWATER_FUZZ_SEED`. A case has one number, from which all of it follows: what fails prints it.

mod answers;
mod host_calls;
mod modules;

use std::time::Duration;

use crate::sys::clock::Clock;
use crate::sys::random::Random;

/// Cases that a run is cut into.
const CASES_PER_LOOK: u64 = 64;

/// Runs so many cases, or for the time that the environment says. Counts those of which `one` says that they came deep.
fn run(target: &str, cases: u64, mut one: impl FnMut(&Random) -> Depth) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("HEADWATER_FUZZ_SEED").unwrap_or(1);
    let duration = number("HEADWATER_FUZZ_SECONDS").map(Duration::from_secs);
    let clock = Clock::system();
    let began = clock.now();
    let (mut seed, mut deep) = (first, 0u64);
    let took = loop {
        let case = Case { target, seed };
        deep += u64::from(one(&Random::seeded(seed)) == Depth::Deep);
        std::mem::forget(case);
        seed += 1;
        let count = seed - first;
        let took = clock.now().saturating_duration_since(began);
        let is_done = match duration {
            Some(duration) => count.is_multiple_of(CASES_PER_LOOK) && took >= duration,
            None => count >= cases,
        };
        if is_done {
            break took;
        }
    };
    let count = seed - first;
    println!(
        "{target}: {count} cases from seed {first} on, {deep} of them came through, {:.0} cases/s, none failed",
        count as f64 / took.as_secs_f64().max(1e-6)
    );
    if duration.is_none_or(|duration| !duration.is_zero()) && count >= 500 {
        assert!(
            deep > count / 50,
            "{target}: {deep} of {count} cases came through: it damages too much"
        );
    }
}

/// How far a case came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// It was refused.
    Shallow,
    /// It was taken in spite of what was done to it, or because nothing was.
    Deep,
}

/// Says how to run a case again if it is left by a panic.
struct Case<'t> {
    target: &'t str,
    seed: u64,
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        let Self { target, seed } = self;
        println!("{target}: failed: again with `cargo xtask fuzz {target} --seed {seed} --minutes 0`");
    }
}

/// Numbers at which lengths, counts and pointers break.
fn edge(random: &Random) -> u32 {
    const EDGES: [u32; 14] = [
        0,
        1,
        2,
        3,
        7,
        255,
        1024,
        65_535,
        65_536,
        1 << 20,
        i32::MAX as u32,
        1 << 31,
        u32::MAX - 7,
        u32::MAX,
    ];
    match random.below(3) {
        0 => random.u64() as u32,
        1 => random.below(256) as u32,
        _ => EDGES[random.below(EDGES.len() as u64) as usize],
    }
}

/// Damages bytes in one way.
fn damage(random: &Random, bytes: &mut Vec<u8>) {
    let at = |length: usize| random.below(length as u64 + 1) as usize;
    let Some(last) = bytes.len().checked_sub(1) else {
        bytes.push(random.u64() as u8);
        return;
    };
    let place = at(last);
    match random.below(8) {
        0 => bytes[place] ^= 1 << random.below(8),
        1 => bytes[place] = random.u64() as u8,
        2 => bytes.insert(place, random.u64() as u8),
        3 => drop(bytes.remove(place)),
        4 => bytes.truncate(place),
        5 => {
            let number = edge(random).to_le_bytes();
            let end = (place + 4).min(bytes.len());
            bytes[place..end].copy_from_slice(&number[..end - place]);
        }
        6 => {
            let end = place + at((last - place).min(40));
            let again = bytes[place..end].to_vec();
            let to = at(last);
            bytes.splice(to..to, again);
        }
        _ => {
            let end = place + at((last - place).min(40));
            bytes.drain(place..end);
        }
    }
}
