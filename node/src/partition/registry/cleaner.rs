//! The task that compacts the logs of this node: one at a time, the dirtiest first, at the pace it is given.
//!
//! Owns the choice and the pace, and what is set aside since it cannot be compacted. It never touches a log itself: what it
//! has made goes through the partition's task. Where no topic is compacted, it has no timer.

use super::{Options, Partition, Registry};
use crate::config::{BrokerConfig, LogCleaner};
use crate::log::{CleanError, Cleaning, Dirt, LogReader, Progress, ReadError, Summary};
use crate::metadata::View;
use crate::sys::clock::Clock;
use crate::sys::task::Tasks;
use crate::telemetry::{Counter, Gauge, Histogram, names};
use headwater_protocol::ids::{PartitionIndex, TopicId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a log that could not be compacted is tried again: for want of room, and for any other reason.
const RETRY_FULL: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(600);

/// What is read at once, and how long a rest is at least.
const WORK_BYTES: u64 = 1 << 20;
const REST_MIN: Duration = Duration::from_millis(1);

type Key = (TopicId, PartitionIndex);

pub(super) struct Cleaner {
    registry: Registry,
    tasks: Tasks,
    clock: Clock,
    broker: BrokerConfig,
    view: View,
    meters: Meters,
    /// Until when a log is left alone.
    aside: BTreeMap<Key, Instant>,
}

struct Meters {
    runs: Counter,
    seconds: Histogram,
    read_bytes: Counter,
    cleaned_bytes: Counter,
    failures: Counter,
    last_failure: Gauge,
    max_dirty: Gauge,
    uncleanable: Gauge,
}

/// What a look at all logs has found.
enum Found {
    /// Of no topic here is anything compacted.
    Nothing,
    /// No log is dirty enough.
    Clean,
    Dirty(Key, Partition, LogReader, Dirt),
}

/// Whether the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

/// How a pass has ended.
enum Ended {
    Done(Summary),
    /// The log was changed under it, or the partition has gone.
    Overtaken,
    Failed(CleanError),
    Stopped,
}

impl Cleaner {
    pub(super) fn new(registry: Registry, options: &Options, tasks: Tasks) -> Self {
        let metrics = &options.metrics;
        let meters = Meters {
            runs: metrics.counter(&names::CLEANER_RUNS, &[]),
            seconds: metrics.histogram(&names::CLEANER_SECONDS, &[]),
            read_bytes: metrics.counter(&names::CLEANER_READ_BYTES, &[]),
            cleaned_bytes: metrics.counter(&names::CLEANER_CLEANED_BYTES, &[]),
            failures: metrics.counter(&names::CLEANER_FAILURES, &[]),
            last_failure: metrics.gauge(&names::CLEANER_LAST_FAILURE, &[]),
            max_dirty: metrics.gauge(&names::CLEANER_MAX_DIRTY, &[]),
            uncleanable: metrics.gauge(&names::CLEANER_UNCLEANABLE, &[]),
        };
        Self {
            registry,
            tasks,
            clock: options.sys.clock.clone(),
            broker: options.broker.clone(),
            view: options.view.clone(),
            meters,
            aside: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.tasks.cancelled();
        let mut reconciled = self.registry.watch();
        loop {
            reconciled.mark_unchanged();
            let config = self.config();
            let found = if config.is_on {
                self.look().await
            } else {
                Found::Nothing
            };
            let rest = match found {
                Found::Dirty(key, partition, reader, dirt) => {
                    if self.clean(key, &partition, reader, dirt).await == Next::End {
                        return;
                    }
                    continue;
                }
                Found::Clean => Some(config.backoff),
                Found::Nothing => None,
            };
            let wait = async {
                match rest {
                    Some(rest) => self.clock.sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = reconciled.changed(), if rest.is_none() => if changed.is_err() { return },
                () = wait => {}
            }
        }
    }

    fn config(&self) -> LogCleaner {
        let cluster = Arc::clone(&self.view.image().broker_configs);
        LogCleaner::of(&self.broker.with_cluster(cluster))
    }

    /// Finds the log that is to be compacted next.
    async fn look(&mut self) -> Found {
        let now = self.clock.now();
        self.aside.retain(|_, until| *until > now);
        let compacted = self.registry.list().into_iter().filter_map(|partition| {
            let (reader, rules) = partition.to_compact()?;
            Some((partition, reader, rules))
        });
        let compacted: Vec<_> = compacted.collect();
        if compacted.is_empty() {
            self.meters.uncleanable.set(0);
            self.meters.max_dirty.set(0);
            return Found::Nothing;
        }
        // What is damaged is repaired first.
        let is_aside = |partition: &Partition| {
            self.aside.contains_key(&key_of(partition)) || !partition.damaged().is_empty()
        };
        let (aside, ready): (Vec<_>, Vec<_>) = compacted
            .into_iter()
            .partition(|(partition, ..)| is_aside(partition));
        self.meters
            .uncleanable
            .set(i64::try_from(aside.len()).unwrap_or(i64::MAX));
        let looked = self.tasks.blocking("look at dirt", move || {
            let looked = ready.into_iter().map(|(partition, reader, rules)| {
                let dirt = reader.dirt(&rules);
                (partition, reader, dirt)
            });
            looked.collect::<Vec<_>>()
        });
        let mut best: Option<(u32, Found)> = None;
        let mut dirtiest = 0;
        for (partition, reader, dirt) in looked.await.unwrap_or_default() {
            let key = key_of(&partition);
            let dirt = match dirt {
                Ok(dirt) => dirt,
                Err(error) => {
                    self.set_aside(key, &partition, &error.into());
                    continue;
                }
            };
            let ratio = dirt.ratio_millionths();
            dirtiest = dirtiest.max(ratio);
            let is_enough = ratio > partition.config().dirty_millionths_min || dirt.is_overdue;
            if dirt.dirty_bytes > 0 && is_enough && best.as_ref().is_none_or(|(most, _)| ratio > *most) {
                best = Some((ratio, Found::Dirty(key, partition, reader, dirt)));
            }
        }
        self.meters.max_dirty.set(i64::from(dirtiest / 10_000));
        best.map_or(Found::Clean, |(_, found)| found)
    }

    /// Compacts one log as far as memory reaches.
    async fn clean(&mut self, key: Key, partition: &Partition, reader: LogReader, dirt: Dirt) -> Next {
        let begun = self.clock.now();
        match self.pass(partition, reader, dirt).await {
            Ended::Done(summary) => {
                let took = self.clock.now().duration_since(begun);
                self.meters.runs.increment();
                self.meters.seconds.record(took);
                let freed = summary.bytes_before.saturating_sub(summary.bytes_after);
                self.meters.cleaned_bytes.add(freed);
                tracing::info!(
                    partition = %partition.name(),
                    from = dirt.from.value(),
                    until = summary.until.value(),
                    bytes_before = summary.bytes_before,
                    bytes_after = summary.bytes_after,
                    records_before = summary.records_before,
                    records_after = summary.records_after,
                    milliseconds = took.as_millis(),
                    "log is compacted"
                );
                Next::Go
            }
            Ended::Overtaken => {
                // Whatever overtook it may do so again: not at once.
                let rest = self.config().backoff;
                self.aside.insert(key, self.clock.now() + rest);
                Next::Go
            }
            Ended::Failed(error) => {
                self.set_aside(key, partition, &error);
                Next::Go
            }
            Ended::Stopped => Next::End,
        }
    }

    async fn pass(&self, partition: &Partition, reader: LogReader, dirt: Dirt) -> Ended {
        let Ok(options) = partition.clean_options(self.config().map_bytes).await else {
            return Ended::Overtaken;
        };
        let begun = self.tasks.blocking("compact", move || {
            reader.begin_cleaning(&dirt, options).map(Box::new)
        });
        let mut cleaning: Box<Cleaning> = match begun.await {
            Ok(Ok(cleaning)) => cleaning,
            Ok(Err(error)) => return Ended::Failed(error.into()),
            // The panic was logged where it happened.
            Err(_) => return Ended::Overtaken,
        };
        let mut owed = Duration::ZERO;
        loop {
            let worked = self.tasks.blocking("compact", move || {
                let (bytes, done) = work(&mut cleaning);
                (cleaning, bytes, done)
            });
            let Ok((goes_on, bytes, done)) = worked.await else {
                return Ended::Overtaken;
            };
            cleaning = goes_on;
            self.meters.read_bytes.add(bytes);
            match done {
                Ok(Progress::Working(_)) => {}
                Ok(Progress::Ready(replacement)) => match partition.replace(*replacement).await {
                    Ok(true) => {}
                    // A partition that went offline has said why.
                    Ok(false) | Err(_) => return Ended::Overtaken,
                },
                Ok(Progress::Over(summary)) => {
                    partition.note_clean(summary.until).await;
                    // Only then the next look finds it clean.
                    return match partition.settled().await {
                        Ok(()) => Ended::Done(summary),
                        Err(_) => Ended::Overtaken,
                    };
                }
                Err(CleanError::Changed) => return Ended::Overtaken,
                Err(error) => return Ended::Failed(error),
            }
            owed += self.time_for(bytes);
            if owed >= REST_MIN {
                let rest = std::mem::take(&mut owed);
                if self.rest(rest).await == Next::End {
                    return Ended::Stopped;
                }
            } else if self.tasks.cancelled().is_cancelled() {
                return Ended::Stopped;
            }
        }
    }

    /// Leaves a log alone for a while. Others go on.
    fn set_aside(&mut self, key: Key, partition: &Partition, error: &CleanError) {
        if self.registry.get_by_id(key.0, key.1).is_none() {
            return;
        }
        self.meters.failures.increment();
        self.meters.last_failure.set(self.clock.unix_ms() / 1000);
        let wait = match error {
            CleanError::Full { .. } => RETRY_FULL,
            CleanError::Read(_)
            | CleanError::Changed
            | CleanError::Write { .. }
            | CleanError::Batch { .. } => RETRY,
        };
        if let CleanError::Read(error @ (ReadError::Corrupt(_) | ReadError::Io { .. })) = error {
            partition.shared.note_read_error(error);
        }
        tracing::error!(
            partition = %partition.name(),
            %error,
            retry_after_seconds = wait.as_secs(),
            "log cannot be compacted and is set aside"
        );
        self.aside.insert(key, self.clock.now() + wait);
        self.meters.uncleanable.add(1);
    }

    /// How long so many bytes may take.
    fn time_for(&self, bytes: u64) -> Duration {
        let rate = self.config().bytes_per_second;
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    async fn rest(&self, pause: Duration) -> Next {
        let cancel = self.tasks.cancelled();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Next::End,
            () = self.clock.sleep(pause) => Next::Go,
        }
    }
}

/// Goes on until about a MiB was read, or something is to be done. Returns how much was read.
fn work(cleaning: &mut Cleaning) -> (u64, Result<Progress, CleanError>) {
    let mut bytes = 0;
    loop {
        match cleaning.step() {
            Ok(Progress::Working(more)) => {
                bytes += more;
                if bytes >= WORK_BYTES {
                    return (bytes, Ok(Progress::Working(more)));
                }
            }
            done => return (bytes, done),
        }
    }
}

fn key_of(partition: &Partition) -> Key {
    (partition.name().topic_id, partition.name().index)
}
