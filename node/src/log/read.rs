//! What a read asks for, and the gathering of whole batches until it has enough.
//! Owns the rule of where a read ends. It must never split a batch, nor skip one.

use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchHeader;

/// What to do with a first batch that is larger than the read may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversize {
    /// Give it all the same, alone: the reader could never get past it otherwise.
    Give,
    /// Give nothing.
    Withhold,
}

/// How far a read goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes_max: usize,
    pub oversize: Oversize,
    /// Only batches that end at this offset or before it.
    pub until: Offset,
}

/// Whole batches in offset order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// The batches end to end. A part may hold many batches, and one batch may lie in two parts.
    pub parts: Vec<Bytes>,
    pub bytes: usize,
    /// Where to read on. Larger than what was asked for even without any bytes, when no batch lies between.
    pub next: Offset,
}

/// A slice in the making.
#[derive(Debug)]
pub(super) struct Gathered {
    slice: Slice,
    limits: Limits,
    is_full: bool,
}

impl Gathered {
    pub(super) fn new(from: Offset, limits: Limits) -> Self {
        let slice = Slice {
            parts: Vec::new(),
            bytes: 0,
            next: from,
        };
        Self {
            slice,
            limits,
            is_full: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slice.parts.is_empty()
    }

    pub(super) fn wants_more(&self) -> bool {
        let has_room = self.room() > 0 || self.is_empty();
        !self.is_full && has_room && self.slice.next < self.limits.until
    }

    pub(super) fn next(&self) -> Offset {
        self.slice.next
    }

    /// How many bytes still fit.
    pub(super) fn room(&self) -> usize {
        self.limits.bytes_max.saturating_sub(self.slice.bytes)
    }

    pub(super) fn finish(self) -> Slice {
        self.slice
    }

    /// Notes that no batch lies before `offset`.
    pub(super) fn skip_to(&mut self, offset: Offset) {
        self.slice.next = self.slice.next.max(offset.min(self.limits.until));
    }

    /// Takes what it may of a run of whole batches that ends before `run_next`. Returns whether to go on.
    pub(super) fn take_run(&mut self, run: &Bytes, run_next: Offset) -> bool {
        // Mostly all of a run is wanted: then its batches need not be looked at.
        let is_wanted = BatchHeader::parse(run).is_ok_and(|first| first.base_offset >= self.slice.next);
        if is_wanted && run_next <= self.limits.until && run.len() <= self.room() {
            self.slice.parts.push(run.clone());
            self.slice.bytes += run.len();
            self.slice.next = run_next;
            return true;
        }
        let (mut start, mut at) = (0, 0);
        while at < run.len() {
            let header = BatchHeader::parse(&run[at..]).expect("a run holds whole batches");
            let end = at + header.total_bytes();
            if header.next_offset() <= self.slice.next {
                (start, at) = (end, end);
                continue;
            }
            if !self.may_take(&header, at - start) {
                self.is_full = true;
                break;
            }
            at = end;
            self.slice.next = header.next_offset();
        }
        if at > start {
            self.slice.parts.push(run.slice(start..at));
            self.slice.bytes += at - start;
        }
        !self.is_full
    }

    /// Takes one batch that lies in two parts, if it may.
    pub(super) fn take_parted(&mut self, head: &Bytes, body: &Bytes) -> bool {
        let header = BatchHeader::parse(head).expect("the head of a batch is its header");
        if !self.may_take(&header, 0) {
            self.is_full = true;
            return false;
        }
        self.slice.parts.extend([head.clone(), body.clone()]);
        self.slice.bytes += header.total_bytes();
        self.slice.next = header.next_offset();
        true
    }

    /// Takes a run of whole batches that were judged by [`Gathered::may_take`].
    pub(super) fn take(&mut self, run: Bytes, next: Offset) {
        self.slice.bytes += run.len();
        self.slice.parts.push(run);
        self.slice.next = next;
    }

    /// Notes that the next batch does not belong to this read.
    pub(super) fn fill(&mut self) {
        self.is_full = true;
    }

    /// Whether a batch still belongs to this read, `pending` bytes having been taken and not yet counted.
    pub(super) fn may_take(&self, header: &BatchHeader, pending: usize) -> bool {
        if header.next_offset() > self.limits.until {
            return false;
        }
        let taken = self.slice.bytes + pending;
        let fits = taken + header.total_bytes() <= self.limits.bytes_max;
        fits || (taken == 0 && self.limits.oversize == Oversize::Give)
    }
}
