//! The primitive parts of every buffer: fixed little-endian integers, Kafka's varints, length-prefixed bytes.
//! It owns the reader; writing is appending to a `Vec<u8>`.
//! The host checks a buffer before it calls, so a malformed one is a broken host: reading it panics, which traps.

use crate::bytes::put;

/// Reads parts one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            cut_short()
        };
        self.rest = rest;
        taken
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            cut_short()
        };
        self.rest = rest;
        *taken
    }

    #[inline(always)]
    pub(crate) fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    #[inline(always)]
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    #[inline(always)]
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    #[inline(always)]
    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    /// Most varints of a batch have one or two bytes: those are read without a call.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> i64 {
        match *self.rest {
            [first @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                unzigzag(u64::from(first))
            }
            [first, second @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => {
                let (value, rest) = long_varint(self.rest);
                self.rest = rest;
                value
            }
        }
    }

    /// A count or size that cannot be negative.
    #[inline(always)]
    pub(crate) fn length(&mut self) -> usize {
        usize::try_from(self.varint()).expect("the host sent a negative length")
    }

    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        match self.varint() {
            -1 => None,
            length => Some(self.take(usize::try_from(length).expect("the host sent a negative length"))),
        }
    }
}

/// Takes the bytes by value, so that nobody's reader has to live in memory for it.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> (i64, &[u8]) {
    let mut reader = Reader::new(bytes);
    let (mut raw, mut shift) = (0, 0);
    loop {
        let byte = reader.u8();
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (unzigzag(raw), reader.rest);
        }
        shift += 7;
        assert!(shift < 64, "the host sent an overlong varint");
    }
}

#[inline]
fn unzigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}

#[cold]
fn cut_short() -> ! {
    panic!("the host sent a buffer that ends too early")
}

#[inline]
pub(crate) fn put_varint(to: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    if (0x80..0x4000).contains(&raw) {
        to.extend_from_slice(&[raw as u8 | 0x80, (raw >> 7) as u8]);
        return;
    }
    while raw >= 0x80 {
        to.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    to.push(raw as u8);
}

#[inline]
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(to, -1),
        Some(bytes) => {
            put_varint(
                to,
                i64::try_from(bytes.len()).expect("memory is smaller than i64::MAX"),
            );
            put(to, bytes);
        }
    }
}

/// Overwrites the count that a builder left room for at the front.
pub(crate) fn set_count(buffer: &mut [u8], count: u32) {
    buffer[..4].copy_from_slice(&count.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_kafkas() {
        let cases: [(i64, &[u8]); 10] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (-8192, &[0xff, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (
                i64::MAX,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (value, bytes) in cases {
            let mut written = Vec::new();
            put_varint(&mut written, value);
            assert_eq!(written, bytes, "{value}");
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.varint(), value);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn none_is_not_empty() {
        let mut written = Vec::new();
        put_bytes(&mut written, None);
        put_bytes(&mut written, Some(b""));
        put_bytes(&mut written, Some(b"ab"));
        let mut reader = Reader::new(&written);
        assert_eq!(reader.bytes(), None);
        assert_eq!(reader.bytes(), Some(&b""[..]));
        assert_eq!(reader.bytes(), Some(&b"ab"[..]));
    }
}
