//! The task that scrubs the logs of this node: one after the other, at the pace it is given, each once in an interval or when
//! somebody asks.
//!
//! Owns the order and the pace. It sleeps until the next log is due, and has no other timer. It never touches a partition's
//! task: what it finds goes into the book of damage, where those who repair look.

use super::{Options, Partition, Registry};
use crate::config::BrokerConfig;
use crate::log::LogReader;
use crate::metadata::View;
use crate::sys::clock::Clock;
use crate::sys::task::Tasks;
use crate::telemetry::{Counter, names};
use headwater_protocol::ids::{NodeId, PartitionIndex, TopicId};
use headwater_protocol::record::crc32c;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A log of which nothing is known is due within as much, so that those of a node come one by one.
const FIRST_WITHIN_MS: i64 = 24 * 3_600_000;

type Key = (TopicId, PartitionIndex);

pub(super) struct Scrubber {
    registry: Registry,
    tasks: Tasks,
    clock: Clock,
    me: NodeId,
    broker: BrokerConfig,
    view: View,
    bytes: Counter,
    rounds: Counter,
    indexes: Counter,
    /// When each log was scrubbed last.
    last_ms: BTreeMap<Key, i64>,
}

/// Whether the task goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

impl Scrubber {
    pub(super) fn new(registry: Registry, options: &Options, tasks: Tasks) -> Self {
        Self {
            registry,
            tasks,
            clock: options.sys.clock.clone(),
            me: options.me,
            broker: options.broker.clone(),
            view: options.view.clone(),
            bytes: options.metrics.counter(&names::SCRUB_BYTES, &[]),
            rounds: options.metrics.counter(&names::SCRUB_ROUNDS, &[]),
            indexes: options.metrics.counter(&names::SCRUB_INDEXES, &[]),
            last_ms: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let cancel = self.tasks.cancelled();
        let mut reconciled = self.registry.watch();
        let mut asked = self.registry.shared.to_scrub.subscribe();
        reconciled.mark_changed();
        loop {
            asked.mark_unchanged();
            if reconciled.has_changed().unwrap_or(false) {
                reconciled.mark_unchanged();
                self.look().await;
            }
            if let Some(key) = self.asked_for() {
                if self.scrub(key).await == Next::End {
                    return;
                }
                // Only now: whoever asked waits for it.
                self.registry
                    .shared
                    .to_scrub
                    .send_if_modified(|wanted| wanted.remove(&key));
                continue;
            }
            let due = self.due();
            if let Some((at_ms, key)) = due
                && at_ms <= self.clock.unix_ms()
            {
                if self.scrub(key).await == Next::End {
                    return;
                }
                continue;
            }
            let wait = async {
                match due {
                    Some((at_ms, _)) => self.clock.sleep(until(at_ms, self.clock.unix_ms())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = asked.changed() => if changed.is_err() { return },
                changed = reconciled.changed() => if changed.is_err() { return },
                () = wait => {}
            }
        }
    }

    /// Finds out when the logs that came were scrubbed last, and forgets those that went.
    async fn look(&mut self) {
        let partitions = self.registry.list();
        let mut news: Vec<(Key, LogReader)> = Vec::new();
        let mut known = BTreeMap::new();
        for partition in &partitions {
            let key = key_of(partition);
            match (self.last_ms.get(&key), &partition.shared.reader) {
                (Some(last_ms), Some(_)) => drop(known.insert(key, *last_ms)),
                (None, Some(reader)) => news.push((key, reader.clone())),
                (_, None) => {}
            }
        }
        self.last_ms = known;
        if news.is_empty() {
            return;
        }
        let noted = self.tasks.blocking("scrub", move || {
            let noted = news
                .into_iter()
                .map(|(key, reader)| (key, reader.scrubbed_at_ms()));
            noted.collect::<Vec<_>>()
        });
        let (now_ms, interval_ms) = (self.clock.unix_ms(), self.broker().scrub_interval_ms());
        for (key, last_ms) in noted.await.unwrap_or_default() {
            let within = interval_ms.unwrap_or(0).clamp(1, FIRST_WITHIN_MS);
            let place = crc32c(format!("{} {} {}", self.me, key.0, key.1).as_bytes());
            let first = i64::from(place) * 1000 % within;
            let unknown = now_ms
                .saturating_sub(interval_ms.unwrap_or(0))
                .saturating_add(first);
            // A clock that was ahead must not put it off.
            self.last_ms.insert(key, last_ms.unwrap_or(unknown).min(now_ms));
        }
    }

    fn asked_for(&self) -> Option<Key> {
        self.registry.shared.to_scrub.borrow().first().copied()
    }

    /// The log that is due first, and when.
    fn due(&self) -> Option<(i64, Key)> {
        let interval_ms = self.broker().scrub_interval_ms()?;
        let due = self.last_ms.iter();
        due.map(|(key, last_ms)| (last_ms.saturating_add(interval_ms), *key))
            .min()
    }

    fn broker(&self) -> BrokerConfig {
        self.broker
            .with_cluster(Arc::clone(&self.view.image().broker_configs))
    }

    /// Scrubs one log from front to end.
    async fn scrub(&mut self, key: Key) -> Next {
        let found = self.registry.get_by_id(key.0, key.1);
        let Some((partition, reader)) = found.and_then(|it| Some((it.clone(), it.shared.reader.clone()?)))
        else {
            self.last_ms.remove(&key);
            return Next::Go;
        };
        self.last_ms.insert(key, self.clock.unix_ms());
        let mut at = Some(reader.begin_scrub());
        while let Some(from) = at {
            let Some(scrubbed) = partition.shared.scrub(&self.tasks, &reader, from).await else {
                return Next::Go;
            };
            self.bytes.add(scrubbed.bytes);
            self.indexes.add(scrubbed.indexes_rebuilt);
            at = scrubbed.next;
            if self.rest(scrubbed.bytes).await == Next::End {
                return Next::End;
            }
        }
        self.rounds.increment();
        let (now_ms, name) = (self.clock.unix_ms(), partition.name().to_string());
        let noted = self
            .tasks
            .blocking("scrub", move || reader.note_scrubbed(now_ms))
            .await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(partition = name, %error, "the end of a scrub was not noted");
        }
        Next::Go
    }

    /// Waits for as long as so many bytes may take.
    async fn rest(&self, bytes: u64) -> Next {
        let rate = self.broker().scrub_bytes_per_second();
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let cancel = self.tasks.cancelled();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Next::End,
            () = self.clock.sleep(pause) => Next::Go,
        }
    }
}

fn key_of(partition: &Partition) -> Key {
    (partition.name().topic_id, partition.name().index)
}

fn until(at_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0))
}
