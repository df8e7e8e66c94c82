//! Zigzag varints inside records. Owns their limits: 5 bytes for 32 bits, 10 for 64.
//! Must never read past the slice it is given.

/// What is wrong with some bytes: cheap to return from the inside of a walk.
pub(super) type Flaw = &'static str;

const OVERLONG: Flaw = "a varint is too long";
const CUT: Flaw = "a varint is cut short";

/// Reads a signed 32-bit varint and moves `input` past it.
#[inline]
pub(super) fn read_i32(input: &mut &[u8]) -> Result<i32, Flaw> {
    // Nearly all lengths and deltas fit one or two bytes.
    if let Some((&first, rest)) = input.split_first() {
        if first < 0x80 {
            *input = rest;
            return Ok(unzigzag32(u32::from(first)));
        }
        if let Some((&second, rest)) = rest.split_first()
            && second < 0x80
        {
            *input = rest;
            return Ok(unzigzag32(u32::from(first & 0x7f) | u32::from(second) << 7));
        }
    }
    let raw = read_slow(input, 5)?;
    u32::try_from(raw).map(unzigzag32).map_err(|_| OVERLONG)
}

/// Reads a signed 64-bit varint and moves `input` past it.
#[inline]
pub(super) fn read_i64(input: &mut &[u8]) -> Result<i64, Flaw> {
    if let Some((&first, rest)) = input.split_first()
        && first < 0x80
    {
        *input = rest;
        return Ok(unzigzag64(u64::from(first)));
    }
    read_slow(input, 10).map(unzigzag64)
}

#[cold]
fn read_slow(input: &mut &[u8], bytes_max: usize) -> Result<u64, Flaw> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate() {
        if index == bytes_max {
            return Err(OVERLONG);
        }
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return Err(OVERLONG);
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(value);
        }
    }
    Err(CUT)
}

/// A few varints and plain bytes gathered on the stack, so that a record's fields cost one copy.
pub(super) struct Gather {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Gather {
    /// Room for the longest run between two payloads: length, attributes, both deltas and a length.
    const BYTES_MAX: usize = 5 + 1 + 10 + 5 + 5;

    #[inline]
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; Self::BYTES_MAX],
            len: 0,
        }
    }

    #[inline]
    pub(super) fn byte(&mut self, value: u8) {
        self.bytes[self.len] = value;
        self.len += 1;
    }

    #[inline]
    pub(super) fn i32(&mut self, value: i32) {
        self.raw(u64::from(zigzag32(value)));
    }

    #[inline]
    pub(super) fn i64(&mut self, value: i64) {
        self.raw(zigzag64(value));
    }

    #[inline]
    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte((value as u8) | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How many bytes `value` takes as a varint.
#[inline]
pub(super) const fn len_i32(value: i32) -> usize {
    len_raw(zigzag32(value) as u64)
}

/// How many bytes `value` takes as a varint.
#[inline]
pub(super) const fn len_i64(value: i64) -> usize {
    len_raw(zigzag64(value))
}

#[inline]
const fn len_raw(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
const fn unzigzag32(value: u32) -> i32 {
    ((value >> 1) as i32) ^ -((value & 1) as i32)
}

#[inline]
const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
const fn unzigzag64(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_lengths_are_foretold() {
        let edges = [
            0,
            1,
            -1,
            63,
            64,
            -64,
            -65,
            8191,
            8192,
            1 << 20,
            i64::from(i32::MAX),
            i64::MAX,
            i64::MIN,
        ];
        for value in edges {
            let mut gather = Gather::new();
            gather.i64(value);
            assert_eq!(gather.as_slice().len(), len_i64(value));
            let mut input = gather.as_slice();
            assert_eq!(read_i64(&mut input), Ok(value));
            assert!(input.is_empty());
            if let Ok(small) = i32::try_from(value) {
                let mut gather = Gather::new();
                gather.i32(small);
                assert_eq!(gather.as_slice().len(), len_i32(small));
                assert_eq!(read_i32(&mut gather.as_slice()), Ok(small));
            }
        }
    }

    #[test]
    fn overlong_and_cut_varints_are_refused() {
        assert_eq!(read_i32(&mut [0x80u8; 3].as_slice()), Err(CUT));
        assert_eq!(read_i32(&mut [0xffu8; 6].as_slice()), Err(OVERLONG));
        assert_eq!(
            read_i32(&mut [0xff, 0xff, 0xff, 0xff, 0x7f].as_slice()),
            Err(OVERLONG)
        );
        assert_eq!(read_i64(&mut [0xffu8; 11].as_slice()), Err(OVERLONG));
        assert_eq!(read_i64(&mut [].as_slice()), Err(CUT));
    }
}
