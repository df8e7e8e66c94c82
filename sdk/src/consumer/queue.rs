//! What the fetcher hands to the consumer, and the bytes it may hold meanwhile.
//!
//! Owns the count of bytes fetched and not yet consumed, per partition and in all. It must never lose a
//! charge: bytes are given back when the last that holds them is dropped, wherever that is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchView;
use tokio::sync::Notify;

use super::TopicPartition;
use crate::error::Error;

/// One partition as both sides see it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: TopicPartition,
    /// Raised by every seek; what was fetched for an earlier one is void.
    pub(super) generation: AtomicU32,
    buffered: AtomicUsize,
    high_watermark: AtomicI64,
    last_stable: AtomicI64,
    log_start: AtomicI64,
}

/// Offsets of a partition as the last answer told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first record that is still there.
    pub log_start: Offset,
    /// Behind the last record that is safe and visible.
    pub high_watermark: Offset,
    /// Behind the last record that is not part of an open transaction.
    pub last_stable: Offset,
}

impl Slot {
    pub(super) fn new(key: TopicPartition) -> Arc<Self> {
        let unknown = || AtomicI64::new(-1);
        Arc::new(Self {
            key,
            generation: AtomicU32::new(0),
            buffered: AtomicUsize::new(0),
            high_watermark: unknown(),
            last_stable: unknown(),
            log_start: unknown(),
        })
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Acquire)
    }

    pub(super) fn note(&self, watermarks: Watermarks) {
        self.log_start.store(watermarks.log_start.0, Ordering::Relaxed);
        self.last_stable
            .store(watermarks.last_stable.0, Ordering::Relaxed);
        self.high_watermark
            .store(watermarks.high_watermark.0, Ordering::Release);
    }

    /// `None` before the first answer.
    pub(super) fn watermarks(&self) -> Option<Watermarks> {
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        (high_watermark >= 0).then(|| Watermarks {
            high_watermark: Offset(high_watermark),
            last_stable: Offset(self.last_stable.load(Ordering::Relaxed)),
            log_start: Offset(self.log_start.load(Ordering::Relaxed)),
        })
    }
}

/// The bytes of all answers that are not consumed yet.
#[derive(Debug, Default)]
pub(super) struct Budget {
    used: AtomicUsize,
    /// Tells the fetcher that bytes were given back.
    pub(super) freed: Notify,
}

impl Budget {
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Charges one whole answer: its memory is free only when no part of it is held any more.
    pub(super) fn frame(self: &Arc<Self>, bytes: usize) -> Arc<Frame> {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Arc::new(Frame {
            bytes,
            budget: Arc::clone(self),
        })
    }
}

#[derive(Debug)]
pub(super) struct Frame {
    bytes: usize,
    budget: Arc<Budget>,
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.freed.notify_one();
    }
}

/// One partition's part of an answer, charged to both.
#[derive(Debug)]
pub(super) struct Charge {
    slot: Arc<Slot>,
    bytes: usize,
    frame: Arc<Frame>,
}

impl Charge {
    pub(super) fn new(slot: Arc<Slot>, bytes: usize, frame: Arc<Frame>) -> Self {
        slot.buffered.fetch_add(bytes, Ordering::AcqRel);
        Self { slot, bytes, frame }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.slot.buffered.fetch_sub(self.bytes, Ordering::AcqRel);
        // The whole answer may still be held; the partition has room all the same.
        self.frame.budget.freed.notify_one();
    }
}

/// Batches of one partition, in order, ready to be consumed.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) slot: Arc<Slot>,
    pub(super) generation: u32,
    /// The offset that was asked for: records before it are not the consumer's.
    pub(super) from: Offset,
    pub(super) batches: VecDeque<BatchView>,
    /// Where reading goes on behind them; later than the last batch when some were left out.
    pub(super) next: Offset,
    pub(super) _charge: Charge,
}

/// What the fetcher tells the consumer.
#[derive(Debug)]
pub(super) enum Message {
    Data(Data),
    /// A place that was given by meaning is this offset.
    Placed {
        slot: Arc<Slot>,
        generation: u32,
        offset: Offset,
    },
    /// The partition cannot be read on; it rests until a seek.
    Failed {
        slot: Arc<Slot>,
        generation: u32,
        error: Error,
    },
}

/// Messages in order. Bounded by the fetcher, which stops asking when the budget is used up.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: Mutex<VecDeque<Message>>,
    filled: Notify,
}

impl Queue {
    pub(super) fn push(&self, message: Message) {
        self.lock().push_back(message);
        self.filled.notify_one();
    }

    /// Puts data back in front of all that waits, in its order.
    pub(super) fn push_front(&self, data: VecDeque<Data>) {
        let mut messages = self.lock();
        for data in data.into_iter().rev() {
            messages.push_front(Message::Data(data));
        }
        drop(messages);
        self.filled.notify_one();
    }

    /// The next message, waiting for one. Cancel safe.
    pub(super) async fn pop(&self) -> Message {
        loop {
            if let Some(message) = self.try_pop() {
                return message;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn try_pop(&self) -> Option<Message> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        // Nothing panics while it holds the lock.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
