//! Lookup tables kept up to date: one reader per partition of a compacted topic, as long as somebody holds the table.
//! It owns which tables there are and shares them between transforms. A transform waits once, until its tables have
//! caught up with what their topics held when it started.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use headwater_protocol::ids::{Offset, TopicId};
use headwater_protocol::record::Batches;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::table::Table;
use crate::metadata::Topic;
use crate::partition::{Isolation, Partition, ReadError, ReadRequest, Registry};
use crate::sys::clock::Clock;
use crate::sys::task::{Kind, Tasks};
use crate::telemetry::{Metrics, names};

/// What one table may hold.
const TABLE_BYTES_MAX: usize = 256 << 20;
const READ_BYTES: usize = 1 << 20;
/// Between attempts to read a topic whose partition is not there or not readable for the moment.
const PAUSE: Duration = Duration::from_millis(500);

/// The tables of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tables {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    tasks: Tasks,
    clock: Clock,
    metrics: Metrics,
    /// By topic and its partition count: more partitions need more readers.
    leases: Mutex<BTreeMap<(TopicId, usize), Weak<Lease>>>,
}

/// A table in use. The last holder's end is the readers' end.
pub(crate) struct Lease {
    table: Arc<Table>,
    progress: watch::Receiver<Progress>,
    _readers: DropGuard,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    /// Partitions that have not caught up yet.
    behind: usize,
    failed: Option<String>,
}

impl Tables {
    pub(crate) fn new(registry: Registry, tasks: Tasks, clock: Clock, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                tasks,
                clock,
                metrics,
                leases: Mutex::default(),
            }),
        }
    }

    /// The table of a topic, made and filled if nobody has it yet.
    pub(crate) fn lease(&self, topic: &Topic) -> Arc<Lease> {
        let key = (topic.id, topic.partitions.len());
        let mut leases = self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, lease| lease.strong_count() > 0);
        if let Some(lease) = leases
            .get(&key)
            .and_then(Weak::upgrade)
            .filter(|lease| !lease.has_failed())
        {
            return lease;
        }
        let lease = self.start(topic);
        leases.insert(key, Arc::downgrade(&lease));
        lease
    }

    fn start(&self, topic: &Topic) -> Arc<Lease> {
        let Shared {
            registry,
            tasks,
            clock,
            metrics,
            ..
        } = &*self.shared;
        let table = Arc::new(Table::new(&topic.name, TABLE_BYTES_MAX));
        let behind = topic.partitions.len();
        let (progress, watched) = watch::channel(Progress { behind, failed: None });
        let progress = Arc::new(progress);
        let cancel = tasks.cancelled().child_token();
        let bytes = metrics.gauge(&names::TRANSFORM_TABLE_BYTES, &[&topic.name]);
        let registry = registry.clone();
        for index in topic.indexes() {
            let id = topic.id;
            let registry = registry.clone();
            let reader = Reader {
                find: Box::new(move || registry.get_by_id(id, index)),
                table: Arc::clone(&table),
                progress: Arc::clone(&progress),
                cancel: cancel.clone(),
                clock: clock.clone(),
                bytes: bytes.clone(),
                next: None,
                catch_up_to: None,
                is_behind: true,
            };
            // It ends with the lease, or with the scope.
            drop(tasks.spawn("table", Kind::BestEffort, reader.run()));
        }
        Arc::new(Lease {
            table,
            progress: watched,
            _readers: cancel.drop_guard(),
        })
    }
}

impl Lease {
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Returns when every partition has been read to where it ended when the table was made, or with the reason why
    /// that will not happen.
    pub(crate) async fn caught_up(&self) -> Result<(), String> {
        let mut progress = self.progress.clone();
        let reached = progress
            .wait_for(|progress| progress.behind == 0 || progress.failed.is_some())
            .await;
        match reached {
            Ok(progress) => progress.failed.clone().map_or(Ok(()), Err),
            Err(_) => Err("the table's readers have stopped".to_owned()),
        }
    }

    /// Returns when the table can no longer be kept up to date, with the reason.
    pub(crate) async fn failed(&self) -> String {
        let mut progress = self.progress.clone();
        let failed = progress.wait_for(|progress| progress.failed.is_some()).await;
        let reason = failed.ok().and_then(|progress| progress.failed.clone());
        match reason {
            Some(reason) => reason,
            // The readers have ended with the node.
            None => std::future::pending().await,
        }
    }

    fn has_failed(&self) -> bool {
        self.progress.borrow().failed.is_some()
    }
}

struct Reader {
    find: Box<dyn Fn() -> Option<Partition> + Send + Sync>,
    table: Arc<Table>,
    progress: Arc<watch::Sender<Progress>>,
    cancel: CancellationToken,
    clock: Clock,
    bytes: crate::telemetry::Gauge,
    next: Option<Offset>,
    catch_up_to: Option<Offset>,
    is_behind: bool,
}

impl Reader {
    async fn run(mut self) {
        let cancel = self.cancel.clone();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                failed = self.follow() => {
                    if let Some(reason) = failed {
                        self.progress.send_modify(|progress| progress.failed = Some(reason));
                        return;
                    }
                }
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.clock.sleep(PAUSE) => {}
            }
        }
    }

    /// Reads on and on. Ends with a reason when the table cannot be kept, with none when the partition went away.
    async fn follow(&mut self) -> Option<String> {
        let partition = (self.find)()?;
        let mut watermarks = partition.watermarks();
        loop {
            let now = *watermarks.borrow_and_update();
            let catch_up_to = *self.catch_up_to.get_or_insert(now.high_watermark);
            let from = self.next.unwrap_or(now.log_start).max(now.log_start);
            self.next = Some(from);
            if self.is_behind && from >= catch_up_to {
                self.is_behind = false;
                self.progress.send_modify(|progress| progress.behind -= 1);
            }
            let request = ReadRequest {
                from,
                max_bytes: READ_BYTES,
                isolation: Isolation::Committed,
                min_one: true,
                current_epoch: None,
                up_to_log_end: false,
            };
            match partition.read(request).await {
                Ok(outcome) if outcome.bytes > 0 => {
                    for batch in Batches::new(outcome.visible()) {
                        match batch.map_err(|error| error.to_string()) {
                            Ok(batch) => {
                                if let Err(error) = self.table.apply(&batch) {
                                    return Some(error.to_string());
                                }
                            }
                            Err(reason) => return Some(reason),
                        }
                    }
                    self.bytes.set(self.table.read().bytes() as i64);
                    self.next = Some(outcome.next);
                }
                Ok(_) => watermarks.changed().await.ok()?,
                Err(ReadError::OutOfRange { end, .. }) => self.next = Some(from.min(end)),
                Err(error) => {
                    tracing::debug!(topic = %partition.name().topic, %error, "lookup table cannot be read for now");
                    return None;
                }
            }
        }
    }
}
