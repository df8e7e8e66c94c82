//! The newest batches of each log in memory, for readers who follow it closely.
//!
//! It owns those bytes and the share of memory all logs of a node have for them. Large batches are kept as they
//! came, small ones are gathered into chunks, so that a reader gets few slices and a small batch does not hold a
//! large frame in memory. It must never hold a batch that is not in the file, nor grow past its bounds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchHeader;

use super::read::Gathered;

/// Batches below this size are copied into a chunk: cheaper than holding the frame they came in.
const COPY_BELOW: usize = 16 << 10;
const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 160;

/// The memory all tails of a node share.
#[derive(Debug)]
pub(super) struct TailBudget {
    capacity: usize,
    used: AtomicUsize,
    /// Tails with something in them, the one to give up memory next in front.
    tails: Mutex<VecDeque<Weak<Tail>>>,
}

impl TailBudget {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            used: AtomicUsize::new(0),
            tails: Mutex::new(VecDeque::new()),
        })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes memory back, half a tail at a time, until an eighth is free again.
    fn relieve(&self) {
        if self.used() <= self.capacity {
            return;
        }
        while self.used() > self.capacity - self.capacity / 8 {
            let Some(front) = lock(&self.tails).pop_front() else {
                return;
            };
            let Some(tail) = front.upgrade() else { continue };
            let mut window = lock(&tail.window);
            let half = window.bytes / 2;
            window.shrink(half, self);
            let is_empty = window.bytes == 0;
            window.registered = !is_empty;
            drop(window);
            if !is_empty {
                lock(&self.tails).push_back(front);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Tails are rebuilt from the log; a half-done update loses at worst what is cached.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The newest batches of one log.
#[derive(Debug)]
pub(super) struct Tail {
    budget: Arc<TailBudget>,
    window: Mutex<Window>,
}

/// - Entries follow one another; all that the log holds from the first one's base on is here.
/// - `open` holds the newest batches, not yet shared with anybody.
#[derive(Debug)]
struct Window {
    entries: VecDeque<Kept>,
    open: BytesMut,
    open_base: Offset,
    /// First offset that is here; the log's end when nothing is.
    start: Offset,
    end: Offset,
    bytes: usize,
    chunk_bytes: usize,
    registered: bool,
}

/// Whole batches in one run.
#[derive(Debug, Clone)]
struct Kept {
    base: Offset,
    next: Offset,
    /// The stamped header, when the rest came in memory that others hold too.
    head: Bytes,
    body: Bytes,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl Tail {
    pub(super) fn new(budget: Arc<TailBudget>, end: Offset) -> Arc<Self> {
        let window = Window {
            entries: VecDeque::new(),
            open: BytesMut::new(),
            open_base: end,
            start: end,
            end,
            bytes: 0,
            chunk_bytes: CHUNK_BYTES_MIN,
            registered: false,
        };
        Arc::new(Self {
            budget,
            window: Mutex::new(window),
        })
    }

    /// Adds a batch that is in the file now, keeping `bytes_max` at most. Its bytes are `head` and `body`.
    pub(super) fn push(self: &Arc<Self>, header: &BatchHeader, head: Bytes, body: Bytes, bytes_max: usize) {
        let mut window = lock(&self.window);
        let bytes = head.len() + body.len();
        if bytes < COPY_BELOW {
            window.copy(header, &head, &body, &self.budget);
        } else {
            window.seal_open(&self.budget);
            let kept = Kept {
                base: header.base_offset,
                next: header.next_offset(),
                head,
                body,
            };
            window.add(kept.bytes() + ENTRY_BYTES, &self.budget);
            window.entries.push_back(kept);
        }
        window.end = header.next_offset();
        if window.bytes > bytes_max {
            window.shrink(bytes_max, &self.budget);
        }
        let is_new = !window.registered && window.bytes > 0;
        window.registered |= is_new;
        drop(window);
        if is_new {
            lock(&self.budget.tails).push_back(Arc::downgrade(self));
        }
        self.budget.relieve();
    }

    /// Forgets everything: the log now ends at `end`.
    pub(super) fn reset(&self, end: Offset) {
        let mut window = lock(&self.window);
        window.shrink(0, &self.budget);
        window.open.clear();
        (window.start, window.end, window.open_base) = (end, end, end);
    }

    /// Forgets what lies below `offset`: in the file it is not the same any more. Something behind it may go, too.
    pub(super) fn drop_below(&self, offset: Offset) {
        let mut window = lock(&self.window);
        if window.start >= offset {
            return;
        }
        window.seal_open(&self.budget);
        let gone = window.entries.partition_point(|kept| kept.base < offset);
        let left: usize = window
            .entries
            .range(gone..)
            .map(|kept| kept.bytes() + ENTRY_BYTES)
            .sum();
        window.shrink(left, &self.budget);
    }

    /// Hands out batches from the one that holds `from` on. `false` when that one is not here.
    pub(super) fn read(&self, from: Offset, gathered: &mut Gathered) -> bool {
        let mut window = lock(&self.window);
        if from < window.start || from >= window.end {
            return false;
        }
        window.seal_open(&self.budget);
        let first = window.entries.partition_point(|kept| kept.next <= from);
        for kept in window.entries.range(first..) {
            let goes_on = if kept.head.is_empty() {
                gathered.take_run(&kept.body, kept.next)
            } else {
                gathered.take_parted(&kept.head, &kept.body)
            };
            if !goes_on {
                break;
            }
        }
        true
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        lock(&self.window).shrink(0, &self.budget);
    }
}

impl Window {
    fn copy(&mut self, header: &BatchHeader, head: &[u8], body: &[u8], budget: &TailBudget) {
        let bytes = head.len() + body.len();
        if self.open.capacity() - self.open.len() < bytes {
            self.seal_open(budget);
            self.open = BytesMut::with_capacity(self.chunk_bytes.max(bytes));
            self.chunk_bytes = (self.chunk_bytes * 2).min(CHUNK_BYTES_MAX);
        }
        if self.open.is_empty() {
            self.open_base = header.base_offset;
        }
        self.open.extend_from_slice(head);
        self.open.extend_from_slice(body);
        self.add(bytes, budget);
    }

    /// Makes the open batches an entry: from here on they can be shared.
    fn seal_open(&mut self, budget: &TailBudget) {
        if self.open.is_empty() {
            return;
        }
        let body = self.open.split().freeze();
        self.entries.push_back(Kept {
            base: self.open_base,
            next: self.end,
            head: Bytes::new(),
            body,
        });
        self.add(ENTRY_BYTES, budget);
    }

    /// Drops the oldest entries until `bytes` are left at most.
    fn shrink(&mut self, bytes: usize, budget: &TailBudget) {
        if self.bytes > bytes && self.entries.is_empty() {
            self.seal_open(budget);
        }
        while self.bytes > bytes
            && let Some(oldest) = self.entries.pop_front()
        {
            let freed = oldest.bytes() + ENTRY_BYTES;
            self.bytes -= freed;
            budget.used.fetch_sub(freed, Ordering::Relaxed);
            let open = (!self.open.is_empty()).then_some(self.open_base);
            self.start = self
                .entries
                .front()
                .map(|kept| kept.base)
                .or(open)
                .unwrap_or(self.end);
            if self.entries.is_empty() {
                self.seal_open(budget);
            }
        }
    }

    fn add(&mut self, bytes: usize, budget: &TailBudget) {
        self.bytes += bytes;
        budget.used.fetch_add(bytes, Ordering::Relaxed);
    }
}
