//! The exact sum of doubles: the same whatever their order and however they are cut into parts, rounded once at the end.
//!
//! Every finite double is a whole multiple of 2^-1074, so the sum is kept as one long integer in those units: limbs of
//! 32 bits, each in an `i64` so that carries can wait.

/// 2098 bits hold the largest double; 64 more hold the sum of as many as there can be.
const LIMBS: usize = 68;
const LIMB_BITS: usize = 32;
const LIMB_MASK: i64 = (1 << LIMB_BITS) - 1;
const FRACTION_BITS: usize = 52;
/// Where the bit of 1.0 lies.
const ONE: usize = 1074;
/// A limb takes less than 2^32 with each addition, and an `i64` takes 2^31 of those.
const ADDITIONS_MAX: u32 = 1 << 30;

/// A sum of doubles.
///
/// - Its value is the sum of `limbs[i] * 2^(32 i - 1074)`.
#[derive(Clone, Debug)]
pub(crate) struct ExactSum {
    limbs: [i64; LIMBS],
    additions: u32,
}

impl Default for ExactSum {
    fn default() -> Self {
        Self {
            limbs: [0; LIMBS],
            additions: 0,
        }
    }
}

impl ExactSum {
    /// `value` must be finite.
    pub(crate) fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let exponent = (bits >> FRACTION_BITS) as usize & 0x7ff;
        let fraction = bits & ((1 << FRACTION_BITS) - 1);
        debug_assert!(exponent < 0x7ff, "only finite numbers have a sum");
        // A subnormal has no hidden bit and the exponent of the smallest normal number.
        let (significand, at) = if exponent == 0 {
            (fraction, 0)
        } else {
            (fraction | 1 << FRACTION_BITS, exponent - 1)
        };
        self.add_at(significand, at, bits >> 63 != 0);
    }

    pub(crate) fn add_integer(&mut self, value: i128) {
        let magnitude = value.unsigned_abs();
        for piece in 0..4 {
            let bits = (magnitude >> (LIMB_BITS * piece)) as u32;
            self.add_at(bits.into(), ONE + LIMB_BITS * piece, value < 0);
        }
    }

    fn add_at(&mut self, significand: u64, at: usize, negative: bool) {
        let shifted = u128::from(significand) << (at % LIMB_BITS);
        for (piece, limb) in self.limbs[at / LIMB_BITS..].iter_mut().take(3).enumerate() {
            let bits = (shifted >> (LIMB_BITS * piece)) as i64 & LIMB_MASK;
            *limb += if negative { -bits } else { bits };
        }
        self.additions += 1;
        if self.additions == ADDITIONS_MAX {
            self.carry();
        }
    }

    /// Adds everything that another has summed.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.carry();
        other.carry();
        for (limb, others) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += others;
        }
        self.additions = 2;
    }

    /// Brings every limb but the last into 0..2^32.
    fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let sum = *limb + carry;
            *limb = sum & LIMB_MASK;
            carry = sum >> LIMB_BITS;
        }
        self.limbs[LIMBS - 1] += carry;
        self.additions = 0;
    }

    /// Sign and magnitude, the one form of each sum.
    fn magnitude(&self) -> (bool, [u32; LIMBS]) {
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.limbs[LIMBS - 1] < 0;
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.carry();
        }
        (negative, sum.limbs.map(|limb| limb as u32))
    }

    /// The nearest double, ties to even; `None` beyond the largest.
    pub(crate) fn round(&self) -> Option<f64> {
        let (negative, limbs) = self.magnitude();
        let Some(top) = limbs.iter().rposition(|limb| *limb != 0) else {
            return Some(0.0);
        };
        let highest = top * LIMB_BITS + 31 - limbs[top].leading_zeros() as usize;
        let bits_from = |at: usize| -> u64 {
            let limb = |index: usize| u128::from(limbs.get(index).copied().unwrap_or(0));
            let index = at / LIMB_BITS;
            let wide = limb(index) | limb(index + 1) << 32 | limb(index + 2) << 64;
            (wide >> (at % LIMB_BITS)) as u64
        };
        // Units of the last place: below 2^53 the bits are those of the double itself, subnormal or not.
        let Some(shift) = highest.checked_sub(FRACTION_BITS) else {
            return Some(signed(f64::from_bits(bits_from(0)), negative));
        };
        let significand = bits_from(shift) & ((1 << (FRACTION_BITS + 1)) - 1);
        let half = shift > 0 && bits_from(shift - 1) & 1 == 1;
        let below_half = shift > 1 && any_below(&limbs, shift - 1);
        let up = half && (below_half || significand & 1 == 1);
        // The significand's hidden bit adds the one to the exponent; rounding up may add another.
        let bits = ((shift as u64) << FRACTION_BITS) + significand + u64::from(up);
        let value = f64::from_bits(bits);
        (shift < 2046 && value.is_finite()).then(|| signed(value, negative))
    }

    /// Appends it in its one form: sign, index of the first limb, count of limbs, limbs.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        let (negative, limbs) = self.magnitude();
        let first = limbs.iter().position(|limb| *limb != 0).unwrap_or(0);
        let end = limbs
            .iter()
            .rposition(|limb| *limb != 0)
            .map_or(0, |last| last + 1);
        to.extend_from_slice(&[u8::from(negative), first as u8, (end - first.min(end)) as u8]);
        for limb in &limbs[first.min(end)..end] {
            to.extend_from_slice(&limb.to_le_bytes());
        }
    }

    /// Reads what `encode` wrote and moves `from` behind it.
    pub(crate) fn decode(from: &mut &[u8]) -> Option<Self> {
        let ([sign, first, count], rest) = from.split_first_chunk()?;
        let (limbs, rest) = rest.split_at_checked(usize::from(*count) * 4)?;
        let mut sum = Self::default();
        let places = sum
            .limbs
            .get_mut(usize::from(*first)..)?
            .get_mut(..usize::from(*count))?;
        for (place, limb) in places.iter_mut().zip(limbs.as_chunks::<4>().0) {
            let limb = i64::from(u32::from_le_bytes(*limb));
            *place = if *sign == 0 { limb } else { -limb };
        }
        *from = rest;
        Some(sum)
    }
}

fn signed(value: f64, negative: bool) -> f64 {
    if negative { -value } else { value }
}

fn any_below(limbs: &[u32; LIMBS], bit: usize) -> bool {
    let (whole, part) = (bit / LIMB_BITS, bit % LIMB_BITS);
    limbs[..whole].iter().any(|limb| *limb != 0) || limbs[whole] & ((1u32 << part) - 1) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum
    }

    #[test]
    fn one_number_is_itself() {
        for value in [
            0.0,
            1.0,
            -1.0,
            0.1,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            -2.5e-310,
            1e300,
            123456.789,
        ] {
            assert_eq!(sum(&[value]).round(), Some(value), "{value:e}");
        }
    }

    #[test]
    fn nothing_is_lost() {
        assert_eq!(sum(&[1e300, 1.0, -1e300]).round(), Some(1.0));
        assert_eq!(sum(&[0.1; 10]).round(), Some(1.0));
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).round(), Some(f64::MAX));
        assert_eq!(sum(&[f64::MAX, f64::MAX]).round(), None);
        assert_eq!(sum(&[5e-324, 5e-324]).round(), Some(1e-323));
        assert_eq!(sum(&[1.0, -1.0]).round(), Some(0.0));
    }

    #[test]
    fn ties_go_to_even() {
        let two_53 = 9_007_199_254_740_992.0;
        assert_eq!(sum(&[two_53, 1.0]).round(), Some(two_53));
        assert_eq!(sum(&[two_53, 1.0, 1.0]).round(), Some(two_53 + 2.0));
        assert_eq!(sum(&[two_53 + 2.0, 1.0]).round(), Some(two_53 + 4.0));
        assert_eq!(sum(&[two_53, 1.0, 5e-324]).round(), Some(two_53 + 2.0));
        assert_eq!(sum(&[-two_53, -1.0, -5e-324]).round(), Some(-two_53 - 2.0));
        // Rounding up runs through all bits into the exponent.
        assert_eq!(sum(&[two_53 - 1.0, 0.5]).round(), Some(two_53));
    }

    #[test]
    fn integers_count_in() {
        for value in [
            0,
            1,
            -1,
            i128::from(i64::MAX),
            i128::from(i64::MIN),
            1 << 100,
            -(1 << 100) + 1,
        ] {
            let mut exact = ExactSum::default();
            exact.add_integer(value);
            assert_eq!(exact.round(), Some(value as f64), "{value}");
            exact.add(0.5);
            exact.add_integer(-value);
            assert_eq!(exact.round(), Some(0.5), "{value}");
        }
    }

    /// A sequence that differs from run to run only by its seed.
    fn numbers(mut seed: u64, count: usize) -> Vec<f64> {
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed
        };
        (0..count)
            .map(|_| f64::from_bits((next() >> 1) & !(1 << 62) ^ (next() & 1 << 63)))
            .filter(|value| value.is_finite())
            .collect()
    }

    #[test]
    fn order_and_cuts_make_no_difference() {
        for seed in 0..50 {
            let values = numbers(seed, 200);
            let whole = sum(&values);
            let mut bytes = Vec::new();
            whole.encode(&mut bytes);
            let mut reversed = values.clone();
            reversed.reverse();
            let mut backwards = Vec::new();
            sum(&reversed).encode(&mut backwards);
            assert_eq!(bytes, backwards, "{seed}");
            let mut cut = Vec::new();
            sum(&values[..70]).encode(&mut cut);
            let mut resumed = ExactSum::decode(&mut cut.as_slice()).expect("what was written is read");
            values[70..].iter().for_each(|value| resumed.add(*value));
            let mut cut = Vec::new();
            resumed.encode(&mut cut);
            assert_eq!(bytes, cut, "{seed}");
            assert_eq!(whole.round(), resumed.round());
        }
    }

    #[test]
    fn two_numbers_round_as_the_machine_does() {
        for seed in 0..2000 {
            let values = numbers(seed, 2);
            let [left, right] = values[..] else { continue };
            let machine = left + right;
            assert_eq!(
                sum(&[left, right]).round(),
                machine.is_finite().then_some(machine),
                "{left:e} {right:e}"
            );
        }
    }

    #[test]
    fn bad_bytes_are_refused() {
        for bytes in [
            &[][..],
            &[0, 0],
            &[0, 0, 1, 0, 0],
            &[0, 68, 1, 0, 0, 0, 0],
            &[0, 255, 0],
        ] {
            assert!(ExactSum::decode(&mut &*bytes).is_none(), "{bytes:?}");
        }
    }
}
