//! Opening a partition: its log is recovered, what it knew of its producers is put together again, and its task is
//! started. Waits for the disk, so it runs on a blocking thread; the task is started by the caller.

use super::Partition;
use super::actor::{Actor, Grounds};
use super::command::Command;
use super::producers::{Producers, end_of};
use super::request::{PartitionName, Watermarks};
use super::shared::{Live, Means, Meters, Shared};
use super::state::{Found, Progress, Rules, State};
use super::waiters::Waiters;
use crate::config::TopicConfig;
use crate::log::{self, Damaged, Log, Opened, Synced};
use crate::metadata::PartitionState;
use crate::sys::budget::Budget;
use crate::sys::mailbox::{Mailbox, mailbox};
use arc_swap::ArcSwap;
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};
use headwater_protocol::record::{BatchHeader, TimestampType};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Appends that wait in one partition's mailbox, in number and in bytes.
const MAILBOX_COMMANDS: usize = 256;
const MAILBOX_BYTES: usize = 16 << 20;

/// What is to be opened.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) me: NodeId,
    pub(super) name: PartitionName,
    pub(super) internal: bool,
    pub(super) mirror: Option<String>,
    pub(super) leadership: PartitionState,
    pub(super) config: Arc<TopicConfig>,
}

/// A partition whose task is still to be started.
pub(super) struct Ready {
    pub(super) partition: Partition,
    /// None: its log could not be opened; the handle says why.
    pub(super) actor: Option<(Actor, Mailbox<Command>)>,
}

/// Opens the log in `folder` and makes the handle. Never fails: a log that cannot be opened is a partition offline.
pub(super) fn open(wanted: Wanted, folder: &Path, means: Arc<Means>) -> Ready {
    match recover(&wanted, folder, &means) {
        Ok(recovered) => ready(wanted, means, recovered),
        Err(reason) => {
            tracing::error!(partition = %wanted.name, reason, "partition cannot be opened");
            offline(wanted, means, reason)
        }
    }
}

/// A partition's log, and what it says.
struct Recovered {
    log: Log,
    synced: watch::Receiver<Synced>,
    rebuilt: Rebuilt,
    state: State,
    /// What was durable once and is not there any more.
    lost: Vec<Damaged>,
}

/// What a log says of its producers.
pub(super) struct Rebuilt {
    pub(super) producers: Producers,
    /// The snapshot it began with.
    pub(super) snapshot_at: Offset,
    /// What could not be read, and lacks therefore.
    pub(super) unread: Vec<Damaged>,
    /// The last stable offset by that snapshot.
    pub(super) stable: Offset,
    /// Something was read of transactions behind the snapshot, or they were open there.
    pub(super) has_transactions: bool,
}

fn recover(wanted: &Wanted, folder: &Path, means: &Means) -> Result<Recovered, String> {
    let config = log::Config::of_topic(&wanted.config);
    let Opened { mut log, recovery } = means
        .logs
        .open(folder, config)
        .map_err(|error| error.to_string())?;
    if let Some(cut) = &recovery.cut {
        means.recovery_cut_bytes.add(cut.bytes);
        tracing::warn!(
            partition = %wanted.name,
            at = cut.at.value(),
            bytes = cut.bytes,
            segments = cut.segments,
            reason = cut.reason,
            "torn tail cut off"
        );
    }
    // Followed from the moment it is read: what recovery found may be synced at any time from now on, and only once.
    let mut synced = log.synced();
    let synced_to = synced.borrow_and_update().offset.min(log.end());
    let found = Found {
        log_start: log.start(),
        own: Progress {
            log_end: log.end(),
            synced: synced_to,
        },
        committed: log.high_watermark().map_err(|error| error.to_string())?,
        epoch: log.reader().epochs().latest(),
    };
    let rules = Rules::of(&wanted.config, means.replica_lag_max);
    let now = means.clock.now();
    let state = State::new(wanted.me, wanted.leadership.clone(), found, rules, now);
    if state.is_leader() {
        let PartitionState {
            leader_epoch,
            replicas,
            ..
        } = &wanted.leadership;
        let begun = begin_reign(&mut log, *leader_epoch, replicas.len() > 1);
        begun.map_err(|error| error.to_string())?;
    }
    let rebuilt = rebuild(&mut log, Offset::ZERO, means.clock.unix_ms())?;
    Ok(Recovered {
        log,
        synced,
        rebuilt,
        state,
        lost: recovery.lost,
    })
}

/// Notes the epoch. Where others hold replicas, which compare their history with it, it is on disk before anybody is served
/// in it; that waits for the device.
pub(super) fn begin_reign(
    log: &mut Log,
    epoch: LeaderEpoch,
    is_replicated: bool,
) -> Result<(), log::AppendError> {
    log.begin_epoch(epoch)?;
    if is_replicated { log.flush_now() } else { Ok(()) }
}

/// Puts together what the partition knew of its producers: the newest good snapshot, and what came after it. Damage on the
/// way is passed over. Headers are believed without a check from `checked_until` on.
pub(super) fn rebuild(log: &mut Log, checked_until: Offset, now_ms: i64) -> Result<Rebuilt, String> {
    let snapshot = log.latest_snapshot().map_err(|error| error.to_string())?;
    let (mut producers, from) = match snapshot {
        Some((offset, content)) => match Producers::decode(&content) {
            Ok(producers) => (producers, offset),
            Err(error) => {
                tracing::warn!(%error, "producers are rebuilt from the whole log");
                (Producers::default(), log.start())
            }
        },
        None => (Producers::default(), log.start()),
    };
    let unstable = producers.transactions_mut().first_unstable();
    let mut has_transactions = unstable.is_some();
    let (mut at, mut unread) = (from, Vec::new());
    while at < log.end() {
        let replayed = log.reader().replay(at, checked_until, |header, control| {
            if header.base_offset >= at {
                has_transactions |= header.is_transactional();
                // When it was really heard of is not stored; its own time is the next best, and never later than now.
                let seen_ms = header.max_timestamp.min(now_ms);
                let end = control.as_ref().and_then(end_of);
                producers.note(header, end, append_time_of(header), seen_ms);
            }
        });
        match replayed {
            Ok(()) => break,
            Err(log::ReadError::Corrupt(damaged)) if damaged.until > at => {
                at = damaged.until;
                unread.push(damaged);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    let reader = log.reader();
    // A snapshot may tell of markers that compaction has let go of since.
    producers.transactions_mut().retain_aborted(|aborted| {
        let is_told = aborted.marker >= from || !reader.may_be_compacted(aborted.marker);
        // Where it cannot be read, it will be repaired.
        is_told || reader.has_marker_at(aborted.marker).unwrap_or(true)
    });
    Ok(Rebuilt {
        producers,
        snapshot_at: from,
        unread,
        stable: unstable.map_or(from, |first| first.min(from)),
        has_transactions,
    })
}

/// The time its records got, where the broker stamped it; -1 elsewhere.
pub(super) fn append_time_of(header: &BatchHeader) -> i64 {
    match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => -1,
    }
}

fn ready(wanted: Wanted, means: Arc<Means>, recovered: Recovered) -> Ready {
    let Recovered {
        log,
        synced,
        rebuilt,
        state,
        lost,
    } = recovered;
    let grounds = Grounds::of(&rebuilt, log.end());
    let Rebuilt {
        producers,
        snapshot_at,
        unread,
        ..
    } = rebuilt;
    let (sender, mailbox) = mailbox(MAILBOX_COMMANDS);
    let (watermarks, receiver) = watch::channel(state.watermarks());
    let reader = log.reader();
    let shared = shared(&wanted, means, sender, receiver, Some((reader, &state)), None);
    for damaged in lost.into_iter().chain(unread) {
        shared.note_damaged(damaged);
    }
    let mut actor = Actor {
        shared: Arc::clone(&shared),
        log: Some(log),
        synced,
        state,
        producers,
        watermarks,
        waiters: Waiters::default(),
        following: Waiters::default(),
        reports: shared.reports.subscribe(),
        proposal: None,
        quiet_until: None,
        stored: None,
        unsaved_bytes: 0,
        unsynced_bytes: 0,
        snapshot_at,
        sync_asked_at: None,
        reign_due: None,
        grounds,
        check: None,
        has_shown_open: false,
    };
    // Before anybody reads: what is open is not stable.
    actor.publish();
    Ready {
        partition: Partition { shared },
        actor: Some((actor, mailbox)),
    }
}

fn offline(wanted: Wanted, means: Arc<Means>, reason: String) -> Ready {
    let zero = Offset::ZERO;
    let nothing = Watermarks {
        log_start: zero,
        high_watermark: zero,
        last_stable: zero,
        log_end: zero,
        synced: zero,
    };
    let (sender, _) = mailbox(1);
    let (_, receiver) = watch::channel(nothing);
    let shared = shared(&wanted, means, sender, receiver, None, Some(Arc::from(reason)));
    shared.note_failed();
    Ready {
        partition: Partition { shared },
        actor: None,
    }
}

fn shared(
    wanted: &Wanted,
    means: Arc<Means>,
    mailbox: crate::sys::mailbox::Sender<Command>,
    watermarks: watch::Receiver<Watermarks>,
    opened: Option<(log::LogReader, &State)>,
    offline: Option<Arc<str>>,
) -> Arc<Shared> {
    let live = Live {
        config: Arc::clone(&wanted.config),
        leader_epoch: wanted.leadership.leader_epoch,
        is_leader: opened.as_ref().is_some_and(|(_, state)| state.is_leader()),
        leadership: Arc::new(wanted.leadership.clone()),
        epoch_start: opened
            .as_ref()
            .map_or(Offset::ZERO, |(_, state)| state.epoch_start()),
        mirror: wanted.mirror.as_deref().map(Arc::from),
        offline,
    };
    Arc::new(Shared {
        name: wanted.name.clone(),
        internal: wanted.internal,
        meters: Meters::of(&wanted.name.topic, &means),
        means,
        mailbox,
        room: Budget::new(MAILBOX_BYTES),
        watermarks,
        reader: opened.map(|(reader, _)| reader),
        live: ArcSwap::from_pointee(live),
        reports: watch::Sender::default(),
        leader_high_watermark: AtomicI64::new(0),
        disk_full: AtomicBool::new(false),
        hold_from: AtomicI64::new(i64::MAX),
        hold_bytes_max: AtomicU64::new(u64::MAX),
        transactions: Mutex::default(),
    })
}
