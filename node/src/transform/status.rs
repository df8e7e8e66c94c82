//! What can be seen of a transform from outside: state, position, counts, the last thing that went wrong.
//! It owns those cells; a pipeline writes them as it goes, anybody reads them. They decide nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_protocol::ids::{Offset, PartitionIndex};
use tokio::sync::{oneshot, watch};

use super::query::{Asked, StateQuery, StateView};
use crate::partition::Watermarks;
use crate::sys::mailbox::Sender;
use crate::telemetry::{Counter, Gauge, Metrics, names};

/// What a transform, or its part on one partition, is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Being set up: topics, state, tables, the module.
    Starting,
    Running,
    /// The same record, or the whole pipeline, is tried again after a pause.
    Retrying {
        reason: String,
    },
    Paused,
    /// Needs a person: another module version, other parameters, or `resume`.
    Stopped {
        reason: String,
    },
}

impl RunState {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying { .. } => "retrying",
            Self::Paused => "paused",
            Self::Stopped { .. } => "stopped",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Retrying { reason } | Self::Stopped { reason } => Some(reason),
            Self::Starting | Self::Running | Self::Paused => None,
        }
    }
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    pub message: String,
    pub at_ms: i64,
    pub partition: PartitionIndex,
    /// The record it is about, where it is about one.
    pub offset: Option<Offset>,
}

/// How many records became what, since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub records_in: u64,
    pub records_out: u64,
    pub failed: u64,
    pub dropped: u64,
    pub late: u64,
    pub cpu_ms: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.records_in += other.records_in;
        self.records_out += other.records_out;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.late += other.late;
        self.cpu_ms += other.cpu_ms;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    pub partition: PartitionIndex,
    pub state: RunState,
    /// The first offset that is not dealt with, of the source; of a join that of the left side.
    pub position: Option<Offset>,
    pub high_watermark: Option<Offset>,
    /// Records not dealt with, of both sides where two are joined.
    pub lag: u64,
    pub totals: Totals,
    pub watermark_ms: Option<i64>,
    pub state_bytes: u64,
    pub last_error: Option<LastError>,
}

/// A transform as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformStatus {
    pub state: RunState,
    pub totals: Totals,
    pub lag: u64,
    pub last_error: Option<LastError>,
    pub partitions: Vec<PartitionStatus>,
}

impl TransformStatus {
    /// Puts the partitions together. While the whole runs, its state is the worst of theirs; else theirs is its.
    pub(crate) fn of(whole: RunState, mut partitions: Vec<PartitionStatus>) -> Self {
        let mut totals = Totals::default();
        partitions
            .iter()
            .for_each(|partition| totals.add(partition.totals));
        let lag = partitions.iter().map(|partition| partition.lag).sum();
        let errors = partitions
            .iter()
            .filter_map(|partition| partition.last_error.clone());
        let last_error = errors.max_by_key(|error| error.at_ms);
        let rank = |state: &RunState| match state {
            RunState::Stopped { .. } => 4,
            RunState::Retrying { .. } => 3,
            RunState::Starting => 2,
            RunState::Running => 1,
            RunState::Paused => 0,
        };
        let state = if whole == RunState::Running {
            let states = partitions.iter().map(|partition| &partition.state);
            states.max_by_key(|state| rank(state)).cloned().unwrap_or(whole)
        } else {
            partitions
                .iter_mut()
                .for_each(|partition| partition.state = whole.clone());
            whole
        };
        Self {
            state,
            totals,
            lag,
            last_error,
            partitions,
        }
    }
}

/// The cells of one transform on one partition. They outlive its pipelines.
pub(crate) struct Cells {
    partition: PartitionIndex,
    records_in: Counter,
    records_out: Counter,
    failed: Counter,
    dropped: Counter,
    late: Counter,
    cpu: Counter,
    lag: Gauge,
    state_bytes: Gauge,
    /// The counters above are shared by all partitions of a transform.
    own: OwnCounts,
    live: watch::Sender<Live>,
}

#[derive(Default)]
struct OwnCounts {
    records_in: AtomicU64,
    records_out: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    late: AtomicU64,
    cpu_ns: AtomicU64,
    high_watermark: Mutex<Option<watch::Receiver<Watermarks>>>,
    /// Of a second source, where a replica of it is here.
    right: Mutex<Option<watch::Receiver<Watermarks>>>,
    /// To the pipeline that runs, or ran last.
    asking: Mutex<Option<Sender<Asked>>>,
}

#[derive(Debug, Clone)]
struct Live {
    state: RunState,
    position: Option<Offset>,
    /// In the second source, where there is one.
    right: Option<Offset>,
    watermark_ms: Option<i64>,
    last_error: Option<LastError>,
}

impl Cells {
    pub(crate) fn new(metrics: &Metrics, transform: &str, partition: PartitionIndex) -> Arc<Self> {
        let counter = |family| metrics.counter(family, &[transform]);
        let number = partition.to_string();
        let gauge = |family| metrics.gauge(family, &[transform, &number]);
        Arc::new(Self {
            partition,
            records_in: counter(&names::TRANSFORM_RECORDS_IN),
            records_out: counter(&names::TRANSFORM_RECORDS_OUT),
            failed: counter(&names::TRANSFORM_FAILED),
            dropped: counter(&names::TRANSFORM_DROPPED),
            late: counter(&names::TRANSFORM_LATE),
            cpu: counter(&names::TRANSFORM_CPU),
            lag: gauge(&names::TRANSFORM_LAG),
            state_bytes: gauge(&names::TRANSFORM_STATE_BYTES),
            own: OwnCounts::default(),
            live: watch::Sender::new(Live {
                state: RunState::Starting,
                position: None,
                right: None,
                watermark_ms: None,
                last_error: None,
            }),
        })
    }

    pub(crate) fn count(&self, add: Totals) {
        let each = [
            (&self.records_in, &self.own.records_in, add.records_in),
            (&self.records_out, &self.own.records_out, add.records_out),
            (&self.failed, &self.own.failed, add.failed),
            (&self.dropped, &self.own.dropped, add.dropped),
            (&self.late, &self.own.late, add.late),
        ];
        for (shared, own, count) in each {
            if count > 0 {
                shared.add(count);
                own.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn count_cpu(&self, used: Duration) {
        let ns = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let before = self.own.cpu_ns.fetch_add(ns, Ordering::Relaxed);
        self.cpu.add((before + ns) / 1_000_000 - before / 1_000_000);
    }

    pub(crate) fn set_state(&self, state: RunState) {
        self.live.send_if_modified(|live| {
            let is_new = live.state != state;
            live.state = state;
            is_new
        });
    }

    pub(crate) fn state(&self) -> RunState {
        self.live.borrow().state.clone()
    }

    /// Returns when `is_met` holds for the state.
    pub(crate) async fn reached(&self, is_met: impl Fn(&RunState) -> bool) -> RunState {
        let mut live = self.live.subscribe();
        match live.wait_for(|live| is_met(&live.state)).await {
            Ok(live) => live.state.clone(),
            // The sender is in `self`.
            Err(_) => self.state(),
        }
    }

    pub(crate) fn set_error(&self, message: String, at_ms: i64, offset: Option<Offset>) {
        let error = LastError {
            message,
            at_ms,
            partition: self.partition,
            offset,
        };
        self.live.send_modify(|live| live.last_error = Some(error));
    }

    pub(crate) fn follow(&self, source: watch::Receiver<Watermarks>) {
        *self
            .own
            .high_watermark
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// The second source, if there is one, and if a replica of it is here.
    pub(crate) fn follow_right(&self, source: Option<watch::Receiver<Watermarks>>) {
        *self.own.right.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    pub(crate) fn set_position(&self, position: Offset, right: Option<Offset>, watermark_ms: Option<i64>) {
        self.live.send_modify(|live| {
            live.position = Some(position);
            live.right = right;
            live.watermark_ms = watermark_ms;
        });
        self.lag.set(self.lag_behind(Some(position), right) as i64);
    }

    /// Questions about the state go there from now on.
    pub(crate) fn ask_there(&self, asking: Sender<Asked>) {
        *self.own.asking.lock().unwrap_or_else(PoisonError::into_inner) = Some(asking);
    }

    /// What a pipeline shows of its state, once that is committed. None: no pipeline runs, or it has ended meanwhile.
    pub(crate) async fn ask(&self, query: StateQuery) -> Option<StateView> {
        let asking = self
            .own
            .asking
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let asking = asking?;
        let (answer, answered) = oneshot::channel();
        asking.send(Asked { query, answer }).await.ok()?;
        let view = answered.await.ok()?;
        let mut live = self.live.subscribe();
        let committed =
            live.wait_for(|live| live.position >= Some(view.position) && live.right >= view.right);
        tokio::select! {
            biased;
            // What it had not committed then is not known any more.
            () = asking.closed() => None,
            committed = committed => committed.is_ok().then_some(view),
        }
    }

    pub(crate) fn set_state_bytes(&self, bytes: usize) {
        self.state_bytes.set(bytes as i64);
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        let Live {
            state,
            position,
            right,
            watermark_ms,
            last_error,
        } = self.live.borrow().clone();
        let own = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PartitionStatus {
            partition: self.partition,
            state,
            position,
            high_watermark: self.high_watermark(),
            lag: self.lag_behind(position, right),
            totals: Totals {
                records_in: own(&self.own.records_in),
                records_out: own(&self.own.records_out),
                failed: own(&self.own.failed),
                dropped: own(&self.own.dropped),
                late: own(&self.own.late),
                cpu_ms: own(&self.own.cpu_ns) / 1_000_000,
            },
            watermark_ms,
            state_bytes: u64::try_from(self.state_bytes.value()).unwrap_or_default(),
            last_error,
        }
    }

    fn high_watermark(&self) -> Option<Offset> {
        let source = self
            .own
            .high_watermark
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        source.as_ref().map(|source| source.borrow().high_watermark)
    }

    /// In both sources, as far as their ends are known here.
    fn lag_behind(&self, position: Option<Offset>, right: Option<Offset>) -> u64 {
        let source = self.own.right.lock().unwrap_or_else(PoisonError::into_inner);
        let right_end = source.as_ref().map(|source| source.borrow().high_watermark);
        let behind = |(end, position): (Option<Offset>, Option<Offset>)| match (end, position) {
            (Some(end), Some(position)) => u64::try_from(end.since(position)).unwrap_or_default(),
            _ => 0,
        };
        behind((self.high_watermark(), position)) + behind((right_end, right))
    }
}
