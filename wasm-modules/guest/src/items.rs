//! Lists of optional byte strings in one buffer: lookup keys and values, accumulators.
//! It owns the layout "items" of `wit/README.md`.

use crate::wire::{Reader, put_bytes, set_count};

/// A list of optional byte strings as the host sent it.
#[derive(Clone, Debug)]
pub struct Items {
    buffer: Vec<u8>,
}

impl Items {
    /// # Panics
    /// When the buffer has no count; reading panics where the rest is malformed (see [`crate::Batch::new`]).
    #[must_use]
    pub fn new(buffer: Vec<u8>) -> Self {
        assert!(buffer.len() >= 4, "the host sent a buffer that ends too early");
        Self { buffer }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        Reader::new(&self.buffer).u32() as usize
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items in order.
    #[must_use]
    pub fn iter(&self) -> ItemsIter<'_> {
        let mut reader = Reader::new(&self.buffer);
        ItemsIter {
            left: reader.u32(),
            reader,
        }
    }
}

impl<'a> IntoIterator for &'a Items {
    type Item = Option<&'a [u8]>;
    type IntoIter = ItemsIter<'a>;

    fn into_iter(self) -> ItemsIter<'a> {
        self.iter()
    }
}

/// Iterates over items.
#[derive(Clone, Debug)]
pub struct ItemsIter<'a> {
    left: u32,
    reader: Reader<'a>,
}

impl<'a> Iterator for ItemsIter<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Option<&'a [u8]>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.reader.bytes())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for ItemsIter<'_> {}

/// Writes a list of optional byte strings.
#[derive(Clone, Debug)]
pub struct ItemsBuilder {
    buffer: Vec<u8>,
    count: u32,
}

impl ItemsBuilder {
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 4);
        buffer.extend_from_slice(&[0; 4]);
        Self { buffer, count: 0 }
    }

    #[inline]
    pub fn push(&mut self, item: Option<&[u8]>) {
        put_bytes(&mut self.buffer, item);
        self.count += 1;
    }

    /// The finished buffer.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        set_count(&mut self.buffer, self.count);
        self.buffer
    }
}

impl Default for ItemsBuilder {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut builder = ItemsBuilder::default();
        builder.push(Some(b"one"));
        builder.push(None);
        builder.push(Some(b""));
        let buffer = builder.finish();
        assert_eq!(buffer, [3, 0, 0, 0, 6, b'o', b'n', b'e', 1, 0]);
        let items = Items::new(buffer);
        assert_eq!(
            items.iter().collect::<Vec<_>>(),
            [Some(&b"one"[..]), None, Some(&b""[..])]
        );
        assert_eq!(items.iter().len(), 3);
    }
}
