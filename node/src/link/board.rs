//! What is known of each link right now, for people and for metrics.
//!
//! Owns counters and the last word on each partition. The data path touches one small cell per partition; nothing here
//! is durable, and nothing decides by it: where a copy goes on is decided by the copy's own log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_protocol::ids::Offset;
use tokio::sync::Notify;

use super::control::{Copied, FlowState};
use crate::transport::Session;

/// Silence after which a peer that sends a keep-alive every few seconds is no longer called connected, in ms.
const SILENCE_MS: i64 = 12_000;

/// Which end of a flow this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// It has the source.
    Sent,
    /// It has the copy.
    Received,
}

/// A partition of a flow, by its name at the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlowKey {
    pub side: Side,
    pub topic: String,
    pub partition: i32,
}

/// The last word on one partition of a flow.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// The copy's name.
    pub copy: String,
    /// The source's high watermark when last heard of; on the source's side it is looked up instead.
    pub source_end: Offset,
    /// Everything below is safe at the copy.
    pub copied: Offset,
    pub state: FlowState,
    pub detail: Option<String>,
    pub last_progress_ms: Option<i64>,
}

/// One partition's cell. The fetcher writes it, everybody reads it.
pub(super) struct Cell {
    key: FlowKey,
    progress: Mutex<Progress>,
    board: Arc<BoardShared>,
}

impl Cell {
    pub(super) fn key(&self) -> &FlowKey {
        &self.key
    }

    pub(super) fn read(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Changes the progress and tells whoever follows the board.
    pub(super) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
        self.board.changed.notify_one();
    }
}

struct BoardShared {
    changed: Notify,
    payload_bytes: AtomicU64,
}

/// The board of one link.
pub(super) struct Board {
    shared: Arc<BoardShared>,
    cells: Mutex<BTreeMap<FlowKey, Arc<Cell>>>,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    session: Option<Session>,
    since_ms: i64,
    last_seen_ms: Option<i64>,
    /// Frames received when they were last seen to grow, and when that was.
    seen_frames: u64,
    /// What earlier connections moved.
    past_sent: u64,
    past_received: u64,
    connects: u64,
    error: Option<String>,
}

/// What a connection looks like from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionReport {
    pub connected: bool,
    pub since_ms: i64,
    pub last_seen_ms: Option<i64>,
    pub rtt_ms: Option<f64>,
    pub address: Option<String>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub reconnects: u64,
    pub error: Option<String>,
}

impl Board {
    pub(super) fn new(now_ms: i64) -> Self {
        Self {
            shared: Arc::new(BoardShared {
                changed: Notify::new(),
                payload_bytes: AtomicU64::new(0),
            }),
            cells: Mutex::new(BTreeMap::new()),
            connection: Mutex::new(Connection {
                since_ms: now_ms,
                ..Connection::default()
            }),
        }
    }

    /// The partition's cell, made when it is not there yet.
    pub(super) fn cell(&self, key: &FlowKey, copy: &str) -> Arc<Cell> {
        let mut cells = lock(&self.cells);
        let make = || {
            let progress = Progress {
                copy: copy.to_owned(),
                source_end: Offset(0),
                copied: Offset(0),
                state: FlowState::Waiting,
                detail: None,
                last_progress_ms: None,
            };
            Arc::new(Cell {
                key: key.clone(),
                progress: Mutex::new(progress),
                board: Arc::clone(&self.shared),
            })
        };
        Arc::clone(cells.entry(key.clone()).or_insert_with(make))
    }

    /// Every cell, in order.
    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        lock(&self.cells).values().map(Arc::clone).collect()
    }

    /// Forgets the partitions that `keep` does not name: their topics are gone from the flows.
    pub(super) fn retain(&self, keep: impl Fn(&FlowKey) -> bool) {
        lock(&self.cells).retain(|key, _| keep(key));
    }

    /// Returns when a cell has changed since the last return. Changes are not counted: one wake-up for many.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Record bytes that were copied by this end.
    pub(super) fn count_payload(&self, bytes: usize) {
        self.shared
            .payload_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.shared.payload_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn connected(&self, session: Session, now_ms: i64) {
        let mut connection = lock(&self.connection);
        connection.retire(None, now_ms);
        connection.session = Some(session);
        connection.since_ms = now_ms;
        connection.last_seen_ms = Some(now_ms);
        connection.seen_frames = 0;
        connection.connects += 1;
        connection.error = None;
    }

    /// The connection is gone, unless a newer one took its place.
    pub(super) fn disconnected(&self, session: &Session, reason: &str, now_ms: i64) {
        let mut connection = lock(&self.connection);
        if connection
            .session
            .as_ref()
            .is_some_and(|current| current.is_same(session))
        {
            connection.retire(Some(reason), now_ms);
        }
    }

    /// What keeps the link from being up, when there is no connection to blame.
    pub(super) fn failed(&self, reason: &str) {
        let mut connection = lock(&self.connection);
        if connection.session.is_none() {
            connection.error = Some(reason.to_owned());
        }
    }

    pub(super) fn report(&self, now_ms: i64) -> ConnectionReport {
        let mut connection = lock(&self.connection);
        connection.look(now_ms);
        let stats = connection
            .session
            .as_ref()
            .map(Session::stats)
            .unwrap_or_default();
        let silent = connection
            .last_seen_ms
            .is_none_or(|seen| now_ms - seen > SILENCE_MS);
        let session = connection.session.as_ref().filter(|_| !silent);
        ConnectionReport {
            connected: session.is_some(),
            since_ms: connection.since_ms,
            last_seen_ms: connection.last_seen_ms,
            rtt_ms: session.map(|_| stats.round_trip.as_secs_f64() * 1000.0),
            address: session.map(|session| session.remote_address().to_string()),
            bytes_sent: connection.past_sent + stats.bytes_sent,
            bytes_received: connection.past_received + stats.bytes_received,
            reconnects: connection.connects.saturating_sub(1),
            error: connection.error.clone(),
        }
    }

    /// Notes whether anything has arrived since the last look. The link's monitor calls it about once a second.
    pub(super) fn look(&self, now_ms: i64) {
        lock(&self.connection).look(now_ms);
    }

    /// The copies held here, as the other end is told of them.
    pub(super) fn copied(&self) -> Vec<Copied> {
        self.cells()
            .iter()
            .filter(|cell| cell.key.side == Side::Received)
            .map(|cell| {
                let progress = cell.read();
                Copied {
                    topic: cell.key.topic.clone(),
                    partition: cell.key.partition,
                    copied: progress.copied,
                    state: progress.state,
                    detail: progress.detail,
                }
            })
            .collect()
    }
}

impl Connection {
    fn look(&mut self, now_ms: i64) {
        let Some(session) = &self.session else { return };
        let received = session.stats().frames_received;
        if received != self.seen_frames {
            self.seen_frames = received;
            self.last_seen_ms = Some(now_ms);
        }
    }

    fn retire(&mut self, reason: Option<&str>, now_ms: i64) {
        self.look(now_ms);
        let Some(session) = self.session.take() else {
            return;
        };
        let stats = session.stats();
        self.past_sent += stats.bytes_sent;
        self.past_received += stats.bytes_received;
        self.since_ms = now_ms;
        self.error = reason.map(str::to_owned);
    }
}

/// Every guarded value here is replaced field by field with no way to fail in between, so a panic elsewhere cannot have
/// spoiled it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
