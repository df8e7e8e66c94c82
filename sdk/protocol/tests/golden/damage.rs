//! Broken messages: cut short, changed at random, or random altogether. None may panic, and what is accepted
//! must mean something.

use bytes::Bytes;

use crate::vectors::Side;
use crate::{each, fill};

/// A small generator of its own (xorshift64*), so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    /// A byte, often one that means something as a length.
    fn byte(&mut self) -> u8 {
        match self.below(8) {
            0 => 0,
            1 => 0xff,
            2 => 0x7f,
            3 => 0x80,
            4 => self.below(4) as u8,
            _ => self.roll() as u8,
        }
    }
}

/// Decodes; if that succeeds, what is encoded again must be stable.
fn feed(name: &str, side: &Side, bytes: Bytes, version: i16) {
    let Ok(Some(once)) = (side.round_trip)(bytes.clone(), version) else {
        return;
    };
    let twice = (side.round_trip)(Bytes::from(once.clone()), version);
    assert_eq!(twice, Ok(Some(once)), "{name}: {bytes:?}");
}

#[test]
fn a_message_cut_short_is_refused() {
    each(|name, side, vector| {
        // All short prefixes, and then ever fewer: long values are cut many times anyway.
        let mut length = 0;
        while length < vector.bytes.len() {
            let cut = (side.round_trip)(vector.bytes.slice(..length), vector.version);
            assert!(cut.is_err(), "{name} accepts its first {length} bytes");
            length += 1 + length / 256;
        }
    });
}

#[test]
fn a_damaged_message_does_no_harm() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    each(|name, side, vector| {
        for _ in 0..40 {
            let mut bytes = vector.bytes.to_vec();
            for _ in 0..=dice.below(3) {
                match (bytes.len(), dice.below(4)) {
                    (0, _) => bytes.push(dice.byte()),
                    (length, 0) => bytes.insert(dice.below(length), dice.byte()),
                    (length, 1) => drop(bytes.remove(dice.below(length))),
                    (length, _) => bytes[dice.below(length)] = dice.byte(),
                }
            }
            feed(name, side, Bytes::from(bytes), vector.version);
        }
    });
}

#[test]
fn random_bytes_in_any_version_do_no_harm() {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for api in fill::apis() {
        for side in &api.sides {
            for version in -1..side.versions.end() + 2 {
                for _ in 0..30 {
                    let bytes: Bytes = (0..dice.below(80)).map(|_| dice.byte()).collect();
                    feed(api.name, side, bytes, version);
                }
            }
        }
    }
}
