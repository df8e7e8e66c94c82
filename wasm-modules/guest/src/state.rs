//! A keyed store that belongs to one partition of one transform. What a call writes is kept if and only if the outputs
//! of the same batch are. Call it once or twice per batch, not per record.
//! In tests on the host's own target the store is one of the test's thread.

use crate::items::Items;

#[cfg(target_arch = "wasm32")]
use crate::bindings::services::headwater::module::state as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::state as host;

/// One item per key, in order; none where the key is none or not in the store. Make `keys` with
/// [`crate::ItemsBuilder`].
#[must_use]
pub fn get_many(keys: &[u8]) -> Items {
    Items::new(host::get_many(keys))
}

/// Writes pairs of key and value, as [`crate::ItemsBuilder`] makes them; a value of none removes the key.
pub fn put_many(entries: &[u8]) {
    host::put_many(entries);
}

/// Keys from `start` up to but not including `end` (empty: to the last) with their values in turn, in key order, at
/// most `limit` pairs.
#[must_use]
pub fn scan(start: &[u8], end: &[u8], limit: u32) -> Items {
    Items::new(host::scan(start, end, limit))
}
