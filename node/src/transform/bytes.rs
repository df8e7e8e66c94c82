//! A reader of the flat buffers that cross the border to a guest (`wasm-modules/wit/README.md`), and the few
//! writers the host needs. It reads fixed little-endian numbers, Kafka's varints and length-prefixed bytes.
//! It must never read past its slice, allocate by a number it was sent, or panic on any input.

/// Why a buffer cannot be read on.
#[cfg(feature = "wasm")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("cut short at byte {at}")]
    Cut { at: usize },
    #[error("varint too long at byte {at}")]
    Overlong { at: usize },
    #[error("negative length {length} at byte {at}")]
    NegativeLength { at: usize, length: i64 },
}

/// Reads a buffer from front to back and knows where it is.
#[cfg(feature = "wasm")]
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

#[cfg(feature = "wasm")]
impl<'a> Reader<'a> {
    pub(crate) fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.all.len() - self.at
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.all.len());
        let Some(end) = end else {
            return Err(ReadError::Cut { at: self.at });
        };
        let part = &self.all[self.at..end];
        self.at = end;
        Ok(part)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let part = self.take(N)?;
        Ok(part.try_into().expect("`take` gave as many bytes as asked"))
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, ReadError> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, ReadError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A zigzag varint of at most 32 bits, which is what every length and count is.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<i32, ReadError> {
        let start = self.at;
        let mut raw = 0u64;
        for index in 0..5 {
            let byte = self.u8()?;
            raw |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                let raw = u32::try_from(raw).map_err(|_| ReadError::Overlong { at: start })?;
                return Ok((raw >> 1) as i32 ^ -((raw & 1) as i32));
            }
        }
        Err(ReadError::Overlong { at: start })
    }

    /// A varint length and that many bytes; -1 is none.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<Option<&'a [u8]>, ReadError> {
        let start = self.at;
        match self.varint()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length).map(Some),
                Err(_) => Err(ReadError::NegativeLength {
                    at: start,
                    length: i64::from(length),
                }),
            },
        }
    }
}

/// Appends `value` as a zigzag varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    let mut raw = ((value << 1) ^ (value >> 31)) as u32;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Appends `value` with its length in front; none as -1.
///
/// # Panics
/// When the value is larger than 2 GiB, which no batch and no state entry can be.
pub(crate) fn put_bytes(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        out.push(1);
        return;
    };
    put_varint(
        out,
        i32::try_from(value.len()).expect("a value fits a batch, whose length is an i32"),
    );
    out.extend_from_slice(value);
}

/// Optional byte strings as a guest reads a list of them.
#[cfg(feature = "wasm")]
pub(crate) fn items<'i>(all: impl Iterator<Item = Option<&'i [u8]>>) -> Vec<u8> {
    let mut buffer = vec![0; 4];
    let mut count = 0u32;
    for item in all {
        put_bytes(&mut buffer, item);
        count += 1;
    }
    buffer[..4].copy_from_slice(&count.to_le_bytes());
    buffer
}

#[cfg(all(test, feature = "wasm"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0usize, 1, 63, 64, 8191, 8192, 100_000] {
            let value = vec![7u8; length];
            let mut out = Vec::new();
            put_bytes(&mut out, Some(&value));
            put_bytes(&mut out, None);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.bytes(), Ok(Some(&value[..])));
            assert_eq!(reader.bytes(), Ok(None));
            assert_eq!(reader.left(), 0);
        }
    }

    #[test]
    fn a_bad_length_is_an_error() {
        assert_eq!(
            Reader::new(&[0x80; 6]).varint(),
            Err(ReadError::Overlong { at: 0 })
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]).varint(),
            Err(ReadError::Overlong { at: 0 })
        );
        assert_eq!(
            Reader::new(&[3]).bytes(),
            Err(ReadError::NegativeLength { at: 0, length: -2 })
        );
        assert_eq!(Reader::new(&[4, 1]).bytes(), Err(ReadError::Cut { at: 1 }));
        assert_eq!(Reader::new(&[1, 2, 3]).u32(), Err(ReadError::Cut { at: 0 }));
    }
}
