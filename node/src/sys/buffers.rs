//! Large buffers that are used again: memory that was touched once need not be given back and faulted in anew for
//! each request.
//!
//! Owns what lies unused, and the bound on it. A buffer is lent empty, filled by one owner, shared as [`Bytes`], and
//! comes back when the last of those is dropped. It must never hand out bytes of whoever had the buffer before.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Smaller ones are the allocator's: it keeps those by itself.
const BYTES_MIN: usize = 64 << 10;
/// Capacities are multiples of this, so that buffers of nearly one size stand in for each other.
const STEP_BYTES: usize = 64 << 10;

/// A shelf of unused buffers. Cheap to clone; clones are the same shelf.
#[derive(Clone, Debug)]
pub struct Buffers {
    shelf: Arc<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    unused: Mutex<Unused>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Unused {
    /// The one that came back last is the last, and the first to be lent: it is still in the processor's caches.
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer on loan. Goes back to its shelf when dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    shelf: Arc<Shelf>,
}

impl Buffers {
    /// Keeps `bytes_max` unused at most; what comes back beyond that is freed.
    pub fn new(bytes_max: usize) -> Self {
        let unused = Mutex::default();
        Self {
            shelf: Arc::new(Shelf { unused, bytes_max }),
        }
    }

    /// An empty buffer with room for `bytes` at least, and for a quarter more at most beside the rounding.
    pub fn take(&self, bytes: usize) -> Buffer {
        let known = (bytes >= BYTES_MIN).then(|| self.shelf.lock().take(bytes));
        let new = || match bytes < BYTES_MIN {
            true => Vec::with_capacity(bytes),
            false => Vec::with_capacity(bytes.next_multiple_of(STEP_BYTES)),
        };
        Buffer {
            bytes: known.flatten().unwrap_or_else(new),
            shelf: Arc::clone(&self.shelf),
        }
    }

    /// Bytes that lie unused.
    pub fn unused_bytes(&self) -> usize {
        self.shelf.lock().bytes
    }
}

impl Unused {
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (bytes..=bytes + bytes / 4 + STEP_BYTES).contains(&buffer.capacity());
        let at = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(at);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Unused> {
        // Nothing panics while it holds the lock.
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Shares what was written, without copying it. The buffer goes back when the last share is dropped.
    pub fn freeze(self) -> Bytes {
        if self.bytes.capacity() < BYTES_MIN {
            let mut buffer = self;
            return Bytes::from(std::mem::take(&mut buffer.bytes));
        }
        Bytes::from_owner(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        let capacity = bytes.capacity();
        if capacity < BYTES_MIN {
            return;
        }
        bytes.clear();
        let mut unused = self.shelf.lock();
        if unused.bytes + capacity <= self.shelf.bytes_max {
            unused.bytes += capacity;
            unused.buffers.push(bytes);
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_with_the_last_share_of_it() {
        let buffers = Buffers::new(1 << 20);
        let mut first = buffers.take(100_000);
        first.extend_from_slice(&[7; 100_000]);
        let place = first.as_ptr();
        let shared = first.freeze();
        let part = shared.slice(10..20);
        drop(shared);
        assert_eq!((buffers.unused_bytes(), &part[..]), (0, &[7; 10][..]));
        drop(part);
        assert_eq!(buffers.unused_bytes(), 2 * STEP_BYTES);
        let again = buffers.take(90_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert_eq!(buffers.unused_bytes(), 0);
    }

    #[test]
    fn no_more_is_kept_than_was_said() {
        let buffers = Buffers::new(300_000);
        let lent = [buffers.take(200_000), buffers.take(200_000)];
        drop(lent);
        assert_eq!(buffers.unused_bytes(), 200_000_usize.next_multiple_of(STEP_BYTES));
        drop(buffers.take(500_000).freeze());
        assert!(buffers.unused_bytes() <= 300_000);
    }

    #[test]
    fn a_small_wish_gets_no_large_buffer() {
        let buffers = Buffers::new(8 << 20);
        drop(buffers.take(4 << 20));
        assert!(buffers.take(1 << 20).capacity() < 2 << 20);
        assert!(buffers.take(1000).capacity() < BYTES_MIN);
        assert_eq!(buffers.unused_bytes(), (4 << 20) + (1 << 20));
    }
}
