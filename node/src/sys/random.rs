//! Random numbers: from the machine, or from a seed that makes a run repeatable.
//! Owns the only use of the machine's entropy. Must never give secrets that a seed could foretell, unless
//! the whole run is a simulation.

#![allow(clippy::disallowed_methods, reason = "the door itself")]

use std::sync::{Arc, Mutex, PoisonError};

/// A source of random numbers. Clones draw from the same one.
#[derive(Clone, Debug)]
pub struct Random {
    state: Arc<Mutex<Xoshiro>>,
    secrets: Secrets,
}

#[derive(Clone, Copy, Debug)]
enum Secrets {
    Machine,
    Seeded,
}

impl Random {
    /// Seeded by the machine; secrets come from the machine one by one.
    pub fn from_machine() -> Self {
        let mut seed = [0; 8];
        from_machine(&mut seed);
        Self {
            state: Arc::new(Mutex::new(Xoshiro::new(u64::from_le_bytes(seed)))),
            secrets: Secrets::Machine,
        }
    }

    /// Everything follows from `seed`, secrets too: for simulation and tests alone.
    pub fn seeded(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(Xoshiro::new(seed))),
            secrets: Secrets::Seeded,
        }
    }

    /// Whether everything it gives follows from a seed.
    pub fn is_seeded(&self) -> bool {
        matches!(self.secrets, Secrets::Seeded)
    }

    /// A source of its own, whose numbers do not depend on who else draws from this one.
    pub fn fork(&self) -> Self {
        let seed = self.u64();
        Self {
            state: Arc::new(Mutex::new(Xoshiro::new(seed))),
            secrets: self.secrets,
        }
    }

    pub fn u64(&self) -> u64 {
        // A poisoned generator is still a generator.
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// A number below `bound`, which must not be zero; even to within one in 2^64.
    pub fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether something of probability `one_in` happened.
    pub fn one_in(&self, one_in: u64) -> bool {
        self.below(one_in.max(1)) == 0
    }

    pub fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Bytes nobody can guess, for tokens and identities.
    pub fn secret<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match self.secrets {
            Secrets::Machine => from_machine(&mut bytes),
            Secrets::Seeded => self.fill(&mut bytes),
        }
        bytes
    }
}

fn from_machine(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the machine has entropy after it has booted");
}

/// xoshiro256++ by Blackman and Vigna, seeded through splitmix64.
#[derive(Debug)]
struct Xoshiro([u64; 4]);

impl Xoshiro {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_history() {
        let draw = |seed| {
            let random = Random::seeded(seed);
            (random.fork().u64(), random.below(1000), random.secret::<16>())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let random = Random::seeded(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn secrets_of_the_machine_differ() {
        assert_ne!(
            Random::from_machine().secret::<16>(),
            Random::from_machine().secret::<16>()
        );
    }
}
