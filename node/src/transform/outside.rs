//! The door from a pipeline to the cluster around it: partitions that may be led by any node, and transactions over them.
//!
//! It owns the words only; what is behind it belongs to the node that assembles them, or to a test or a simulation that stands in
//! for one. Through it a pipeline reaches everything but its source, which is here by definition; of two sources the second may be anywhere.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use headwater_protocol::ids::{Offset, ProducerEpoch, ProducerId};

use crate::config::TopicConfig;
use crate::metadata::Topic;
use crate::partition::PartitionName;

/// Who writes in transactions: one pipeline, in the reign that `begin` gave it and `commit` and `abort` carry on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The transactional id.
    pub id: Arc<str>,
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
}

/// Batches for one partition, in order. Each bears the writer's stamp and is sent by itself.
#[derive(Debug, Clone)]
pub struct Write {
    pub to: PartitionName,
    pub batches: Vec<Bytes>,
}

/// What was read of a partition: what is committed, and nothing of what was aborted.
#[derive(Debug, Clone)]
pub struct Read {
    pub batches: Bytes,
    /// What that takes in the log.
    pub bytes: usize,
    pub next: Offset,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    /// A partition does not take these records, now or ever.
    #[error("{0}")]
    Refused(String),
    /// Another pipeline writes by this id now.
    #[error("another pipeline has taken over")]
    Fenced,
    /// It may go well later. Whether it was done is not known.
    #[error("{0}")]
    Failed(String),
}

/// An append on its way.
pub type Sending = BoxFuture<'static, Result<Offset, OutsideError>>;

/// What a pipeline needs of the cluster. Futures that are dropped may have done their work.
pub trait Outside: Send + Sync + 'static {
    /// The properties of a topic.
    fn config(&self, topic: &Topic) -> TopicConfig;

    /// Whether a partition would take these records, by all that can be known without asking it. Does not block.
    fn check(&self, to: &PartitionName, batches: &Bytes) -> Result<(), OutsideError>;

    /// Takes the transactional id over: from then on nothing of a former writer is committed that was not before, and everything
    /// that was is seen.
    fn begin(&self, id: Arc<str>) -> BoxFuture<'_, Result<Writer, OutsideError>>;

    /// Appends in the writer's transaction, which begins with it. Returns when everything is on all in-sync replicas, with the
    /// offset of each write's first batch.
    fn write(&self, writer: Writer, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Offset>, OutsideError>>;

    /// Commits what was written. Once this returns it is decided, whatever happens.
    fn commit(&self, writer: Writer) -> BoxFuture<'_, Result<Writer, OutsideError>>;

    /// Gives up what was written.
    fn abort(&self, writer: Writer) -> BoxFuture<'_, Result<Writer, OutsideError>>;

    /// Appends without a transaction. What is sent to one partition lies there in the order in which `send` returned and the
    /// returned futures were awaited.
    fn send(&self, to: PartitionName, batches: Bytes) -> BoxFuture<'_, Result<Sending, OutsideError>>;

    /// Where a partition ends, once all that is in it now is committed or aborted.
    fn end(&self, of: PartitionName) -> BoxFuture<'_, Result<Offset, OutsideError>>;

    /// Reads committed records from an offset on, or from the log's start if that is behind it. Gives nothing where there are
    /// no more.
    fn read(&self, of: PartitionName, from: Offset) -> BoxFuture<'_, Result<Read, OutsideError>>;

    /// Returns when a partition may have committed records from an offset on, or after some seconds: whoever waits asks again.
    fn newer(&self, of: PartitionName, from: Offset) -> BoxFuture<'_, Result<(), OutsideError>>;

    /// Deletes what lies before an offset, for whoever wrote all of it.
    fn forget(&self, of: PartitionName, before: Offset) -> BoxFuture<'_, Result<(), OutsideError>>;
}
