//! What one step sends: records gathered into batches by sink and partition, and whole batches passed on as they are.
//! It owns routing (a key goes where Kafka's own producer would put it, a record without a key keeps its partition's
//! number) and the limits of sinks. It must never hold more than one step's output, nor reorder it.

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::partitioner::partition_for_key;
use headwater_protocol::record::{
    self, BatchBuilder, BatchOptions, BatchView, Compression, HEADER_BYTES, Headers, TimestampType,
};
use std::sync::Arc;

use super::answer::Output;
use super::input::Source;
use super::stamp::unstamped;
use super::windows::Closed;

/// A gathered batch is closed when it reaches this size, or the sink's limit if that is smaller.
const BATCH_BYTES: usize = 256 << 10;

/// A topic that outputs go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sink {
    pub(crate) name: Arc<str>,
    /// At least one.
    pub(crate) partitions: u32,
    /// The topic's `max.message.bytes`.
    pub(crate) message_bytes_max: usize,
}

impl AsRef<str> for Sink {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

/// A record that no sink would take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsendableRecord {
    #[error("the output has {bytes} bytes, topic {sink} takes at most {limit} in a batch")]
    TooLarge {
        bytes: usize,
        sink: Arc<str>,
        limit: usize,
    },
    #[error("the output cannot be written: {0}")]
    Malformed(record::Error),
}

/// Batches to be appended to one partition.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    /// Which of the sinks.
    pub(crate) sink: usize,
    pub(crate) partition: PartitionIndex,
    pub(crate) batches: Bytes,
}

/// One record to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

impl<'a> Outgoing<'a> {
    /// A record of the source as it is.
    pub(crate) fn of_record(source: &Source<'a>) -> Self {
        Self {
            timestamp_ms: source.timestamp_ms,
            key: source.record.key,
            value: source.record.value,
            headers: source.record.headers,
        }
    }

    /// What the result of a window begins as: its key, in its last millisecond.
    pub(crate) fn of_window(window: &'a Closed) -> Self {
        Self {
            timestamp_ms: window.end_ms.saturating_sub(1),
            key: Some(&window.key),
            value: None,
            headers: Headers::NONE,
        }
    }

    /// What its key, value and headers take.
    pub(crate) fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.encoded().len()
    }

    /// The same, but for what a module said.
    pub(crate) fn changed_by(self, output: &Output<'a>) -> Self {
        Self {
            timestamp_ms: output.timestamp_ms.unwrap_or(self.timestamp_ms),
            key: output.key.unwrap_or(self.key),
            value: output.value.unwrap_or(self.value),
            headers: output.headers.unwrap_or(self.headers),
        }
    }
}

/// Gathers the output of one step. Its memory is kept from step to step.
pub(crate) struct Outbox {
    sinks: Arc<[Sink]>,
    /// The partition the input comes from.
    source: PartitionIndex,
    /// One per sink and partition, made when first needed.
    targets: Vec<Vec<Option<Target>>>,
}

struct Target {
    builder: BatchBuilder,
    /// Finished batches, in order.
    done: Vec<Bytes>,
}

impl Outbox {
    pub(crate) fn new(sinks: Arc<[Sink]>, source: PartitionIndex) -> Self {
        let targets = sinks
            .iter()
            .map(|sink| (0..sink.partitions).map(|_| None).collect())
            .collect();
        Self {
            sinks,
            source,
            targets,
        }
    }

    pub(crate) fn sinks(&self) -> &Arc<[Sink]> {
        &self.sinks
    }

    /// Whether the partition of a record depends on its key.
    pub(crate) fn routes_by_key(&self, sink: usize) -> bool {
        self.sinks[sink].partitions > 1
    }

    /// The partition of `sink` that a record with this key goes to.
    #[inline]
    pub(crate) fn route(&self, sink: usize, key: Option<&[u8]>) -> u32 {
        let count = self.sinks[sink].partitions;
        match key {
            _ if count == 1 => 0,
            Some(key) => partition_for_key(key, count),
            None => self.source.value().unsigned_abs() % count,
        }
    }

    /// Adds a record. On failure nothing is added.
    pub(crate) fn push(
        &mut self,
        sink: usize,
        record: &Outgoing<'_>,
        compression: Compression,
    ) -> Result<(), UnsendableRecord> {
        let partition = self.route(sink, record.key);
        let limit = self.sinks[sink].message_bytes_max;
        let target = self.target(sink, partition);
        target
            .use_compression(compression)
            .map_err(UnsendableRecord::Malformed)?;
        // A close bound: the longest varints instead of the ones it will have.
        let bytes = 5 + 1 + 10 + 5 + 5 + 5 + 5 + 5 + record.bytes();
        let plain = target.builder.plain_bytes();
        if !target.builder.is_empty() && plain + bytes > BATCH_BYTES.min(limit) {
            target.close().map_err(UnsendableRecord::Malformed)?;
        }
        let Outgoing {
            timestamp_ms,
            key,
            value,
            headers,
        } = *record;
        let append = target.builder.append_forwarded(timestamp_ms, key, value, headers);
        append.map_err(UnsendableRecord::Malformed)?;
        if HEADER_BYTES + bytes > limit && target.builder.plain_bytes() > limit {
            // Alone and too large as it is; compressed it may fit.
            let batch = target
                .builder
                .build()
                .map_err(UnsendableRecord::Malformed)?
                .unwrap_or_default();
            if batch.len() > limit {
                let sink = Arc::clone(&self.sinks[sink].name);
                return Err(UnsendableRecord::TooLarge {
                    bytes: batch.len(),
                    sink,
                    limit,
                });
            }
            target.done.push(batch);
        }
        Ok(())
    }

    /// Whether a whole batch can be passed on to `sink` as it is.
    pub(crate) fn takes_whole(&self, sink: usize, batch: &BatchView) -> bool {
        let header = batch.header();
        header.timestamp_type() == TimestampType::CreateTime
            && !header.has_delete_horizon()
            && header.last_offset_delta == header.record_count - 1
            && batch.bytes().len() <= self.sinks[sink].message_bytes_max
    }

    /// Passes a whole batch on, shared with the source's log unless a producer had stamped it.
    pub(crate) fn push_batch(
        &mut self,
        sink: usize,
        partition: u32,
        batch: &BatchView,
    ) -> Result<(), record::Error> {
        let target = self.target(sink, partition);
        target.close()?;
        target.done.push(unstamped(batch));
        Ok(())
    }

    /// Everything gathered, one append per sink and partition, in their order.
    pub(crate) fn finish(&mut self) -> Result<Vec<Append>, record::Error> {
        let mut appends = Vec::new();
        for (sink, partitions) in self.targets.iter_mut().enumerate() {
            for (partition, target) in partitions.iter_mut().enumerate() {
                let Some(target) = target else { continue };
                target.close()?;
                let Some(batches) = target.take() else { continue };
                let partition = PartitionIndex(partition as i32);
                appends.push(Append {
                    sink,
                    partition,
                    batches,
                });
            }
        }
        Ok(appends)
    }

    /// Forgets everything gathered.
    pub(crate) fn discard(&mut self) {
        for target in self.targets.iter_mut().flatten().flatten() {
            // What was gathered is built and dropped; that it cannot be built makes no difference.
            let _ = target.builder.build();
            target.done.clear();
        }
    }

    fn target(&mut self, sink: usize, partition: u32) -> &mut Target {
        self.targets[sink][partition as usize].get_or_insert_with(|| Target {
            builder: BatchBuilder::new(BatchOptions::PLAIN),
            done: Vec::new(),
        })
    }
}

impl Target {
    fn use_compression(&mut self, compression: Compression) -> Result<(), record::Error> {
        if self.builder.options().compression != compression {
            self.close()?;
            self.builder.options_mut().compression = compression;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), record::Error> {
        self.done.extend(self.builder.build()?);
        Ok(())
    }

    fn take(&mut self) -> Option<Bytes> {
        match self.done.len() {
            0 => None,
            1 => self.done.pop(),
            _ => {
                let mut all = BytesMut::with_capacity(self.done.iter().map(Bytes::len).sum());
                self.done
                    .drain(..)
                    .for_each(|batch| all.extend_from_slice(&batch));
                Some(all.freeze())
            }
        }
    }
}

#[cfg(test)]
mod tests;
