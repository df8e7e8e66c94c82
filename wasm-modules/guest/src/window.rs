//! Windows that have closed, as `emit` gets them.
//! It owns the layout "closed windows" of `wit/README.md`.

use crate::wire::Reader;

/// A closed window of one key.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub(crate) index: u32,
    start_ms: i64,
    end_ms: i64,
    key: &'a [u8],
}

impl<'a> Window<'a> {
    /// Inclusive.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// Exclusive.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        self.end_ms
    }

    /// The grouping key that [`crate::Aggregate::key`] wrote.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }
}

/// Reads windows and their states in order.
pub(crate) fn closed_windows(buffer: &[u8]) -> impl Iterator<Item = (Window<'_>, &[u8])> {
    let mut reader = Reader::new(buffer);
    (0..reader.u32()).map(move |index| {
        let (start_ms, end_ms) = (reader.i64(), reader.i64());
        let key = reader.bytes().expect("the host sent a window without a key");
        let state = reader.bytes().expect("the host sent a window without a state");
        (
            Window {
                index,
                start_ms,
                end_ms,
                key,
            },
            state,
        )
    })
}
