//! A cluster in which a pipeline can be made to die where it hurts: after everything of a transaction was appended, before it ends.

use std::sync::atomic::{AtomicBool, Ordering};

use ::bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::TopicConfig;
use crate::metadata::Topic;
use crate::partition::PartitionName;

pub(super) struct Interrupted {
    cluster: Cluster,
    never_ends: AtomicBool,
    /// How many transactions wait for their end for ever.
    stuck: watch::Sender<usize>,
    gone: CancellationToken,
}

impl Interrupted {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            never_ends: AtomicBool::new(false),
            stuck: watch::Sender::new(0),
            gone: CancellationToken::new(),
        }
    }

    /// No transaction ends from now on: whoever wants to end one is as good as dead.
    pub(super) fn end_none(&self) {
        self.never_ends.store(true, Ordering::SeqCst);
    }

    /// Returns when a transaction would have been ended.
    pub(super) async fn stuck(&self) {
        let mut stuck = self.stuck.subscribe();
        let stuck = stuck.wait_for(|count| *count > 0);
        let stuck = tokio::time::timeout(PATIENCE, stuck).await;
        stuck.expect("nobody ends a transaction").expect("it is here");
    }

    /// Whoever is stuck is let go, and has not done what it was about to do.
    pub(super) fn let_go(&self) {
        self.gone.cancel();
    }

    async fn pass(&self) -> Result<(), OutsideError> {
        if !self.never_ends.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.stuck.send_modify(|count| *count += 1);
        self.gone.cancelled().await;
        Err(OutsideError::Failed("the power is gone".to_owned()))
    }
}

impl Outside for Interrupted {
    fn config(&self, topic: &Topic) -> TopicConfig {
        self.cluster.config(topic)
    }

    fn check(&self, to: &PartitionName, batches: &Bytes) -> Result<(), OutsideError> {
        self.cluster.check(to, batches)
    }

    fn begin(&self, id: Arc<str>) -> BoxFuture<'_, Result<Writer, OutsideError>> {
        self.cluster.begin(id)
    }

    fn write(&self, writer: Writer, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Offset>, OutsideError>> {
        self.cluster.write(writer, writes)
    }

    fn commit(&self, writer: Writer) -> BoxFuture<'_, Result<Writer, OutsideError>> {
        Box::pin(async move {
            self.pass().await?;
            self.cluster.commit(writer).await
        })
    }

    fn abort(&self, writer: Writer) -> BoxFuture<'_, Result<Writer, OutsideError>> {
        Box::pin(async move {
            self.pass().await?;
            self.cluster.abort(writer).await
        })
    }

    fn send(&self, to: PartitionName, batches: Bytes) -> BoxFuture<'_, Result<Sending, OutsideError>> {
        self.cluster.send(to, batches)
    }

    fn end(&self, of: PartitionName) -> BoxFuture<'_, Result<Offset, OutsideError>> {
        self.cluster.end(of)
    }

    fn read(&self, of: PartitionName, from: Offset) -> BoxFuture<'_, Result<Read, OutsideError>> {
        self.cluster.read(of, from)
    }

    fn newer(&self, of: PartitionName, from: Offset) -> BoxFuture<'_, Result<(), OutsideError>> {
        self.cluster.newer(of, from)
    }

    fn forget(&self, of: PartitionName, before: Offset) -> BoxFuture<'_, Result<(), OutsideError>> {
        self.cluster.forget(of, before)
    }
}
