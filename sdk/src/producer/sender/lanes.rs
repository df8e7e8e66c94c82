//! The lanes of a sender: one stream or connection to one node, and the request drafted for it.
//!
//! Owns no state of its own; it is the part of the sender that touches connections. It must never put a
//! partition on a lane while the partition has something under way on another.

use std::time::Duration;

use super::draft::Entry;
use super::{Done, LaneKey, Sender};
use crate::client::Lane;
use crate::config::Transport;
use crate::connection::Connection;
use crate::door::{self, Instant};
use crate::error::Error;
use crate::producer::Acks;
use crate::producer::batcher::PartitionKey;

impl Sender {
    /// Over QUIC a partition keeps to one of several streams; over TCP there is one.
    pub(super) fn stream_of(&self, key: PartitionKey) -> u8 {
        match self.cluster.transport {
            Transport::Quic => {
                let streams = u32::from(self.client.config().quic.produce_streams.max(1));
                (key.0.wrapping_add(key.1) % streams) as u8
            }
            Transport::Tls | Transport::Tcp => 0,
        }
    }

    /// Whether a lane is connected. If not, it is being seen to, and the partition is looked at afterwards.
    pub(super) fn lane_takes(&mut self, key: LaneKey, partition: PartitionKey) -> bool {
        let lane = self.lanes.entry(key).or_default();
        if !lane.busy && lane.connection.as_ref().is_some_and(Connection::is_open) {
            return true;
        }
        lane.waiting.insert(partition);
        if !lane.busy {
            lane.busy = true;
            let client = self.client.clone();
            self.work.push(Box::pin(async move {
                let connecting = async {
                    let connection = client.connection(key.0, Lane::Produce(key.1)).await?;
                    connection.confirmed().await?;
                    Ok(connection)
                };
                Done::Connected {
                    lane: key,
                    result: connecting.await,
                }
            }));
        }
        false
    }

    /// Puts the next batch of a partition into the request for its lane.
    pub(super) fn draft(&mut self, key: LaneKey, partition: PartitionKey, now: Instant) -> bool {
        let most = self.shared.config.request_bytes_max;
        let next = self
            .parts
            .get(&partition)
            .and_then(|part| part.sequencer.next_bytes());
        let (Some(bytes), Some(lane)) = (next, self.lanes.get(&key)) else {
            return false;
        };
        if lane.draft.has(partition) || !lane.draft.is_empty() && lane.draft.bytes() + bytes > most {
            self.submit(key, now);
        }
        let Some(lane) = self.lanes.get_mut(&key) else {
            return false;
        };
        let room = lane.connection.as_ref().map_or(0, Connection::room);
        // A request larger than the whole connection may hold goes alone.
        let limit = self.client.config().limits.in_flight_bytes;
        if lane.busy || lane.draft.bytes() + bytes > room && room < limit {
            lane.waiting.insert(partition);
            self.await_room(key, bytes);
            return false;
        }
        let Some(part) = self.parts.get_mut(&partition) else {
            return false;
        };
        let deadline = part.sequencer.next_deadline().unwrap_or(now);
        let Some((number, bytes)) = part.sequencer.send() else {
            return false;
        };
        part.lane = Some(key);
        lane.draft.add(
            Entry {
                key: partition,
                number,
            },
            &part.topic,
            &self.cluster,
            bytes,
            deadline,
        );
        true
    }

    pub(super) fn await_room(&mut self, key: LaneKey, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(&key).filter(|lane| !lane.busy) else {
            return;
        };
        let Some(connection) = lane.connection.clone() else {
            return;
        };
        lane.busy = true;
        self.work.push(Box::pin(async move {
            connection.wait_for_room(bytes).await;
            Done::LaneAwake(key)
        }));
    }

    /// Sends what was drafted for a lane. What cannot leave goes back to its partition.
    pub(super) fn submit(&mut self, key: LaneKey, now: Instant) {
        let config = &self.shared.config;
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let draft = std::mem::take(&mut lane.draft);
        let Some(connection) = lane.connection.clone() else {
            return;
        };
        let left = draft
            .deadline()
            .map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(now));
        let timeout = self
            .client
            .config()
            .request_timeout
            .min(left)
            .max(Duration::from_millis(1));
        let bytes = draft.bytes();
        let (request, entries) = draft.finish(config.acks, timeout, config.transactional_id.as_deref());
        let newest = self.newest_produce();
        if config.acks == Acks::None {
            match connection.try_send(&request) {
                Ok(true) => self.assume_written(&entries, now),
                Ok(false) => self.unsend(key, entries, bytes),
                Err(cause) => self.finish(Done::Answered {
                    lane: key,
                    entries,
                    answer: Err(cause),
                }),
            }
            return;
        }
        match connection.try_submit(newest, &request, timeout) {
            Ok(Some(answer)) => self.work.push(Box::pin(async move {
                Done::Answered {
                    lane: key,
                    entries,
                    answer: answer.wait().await,
                }
            })),
            Ok(None) => self.unsend(key, entries, bytes),
            Err(cause) => self.finish(Done::Answered {
                lane: key,
                entries,
                answer: Err(cause),
            }),
        }
    }

    pub(super) fn unsend(&mut self, key: LaneKey, entries: Vec<Entry>, bytes: usize) {
        for entry in entries.iter().rev() {
            if let Some(part) = self.parts.get_mut(&entry.key) {
                part.sequencer.unsend(entry.number);
            }
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.waiting.insert(entry.key);
            }
        }
        self.await_room(key, bytes);
    }

    pub(super) fn connected(&mut self, key: LaneKey, result: Result<Connection, Error>, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        match result {
            Ok(connection) => {
                lane.connection = Some(connection);
                lane.failures = 0;
                self.awake(key);
            }
            Err(error) => {
                lane.failures = lane.failures.saturating_add(1);
                let until = now
                    + self
                        .client
                        .config()
                        .backoff
                        .pause(lane.failures, door::random_u64());
                for partition in &lane.waiting {
                    if let Some(part) = self.parts.get_mut(partition) {
                        part.sequencer.note_failure(error.to_string());
                    }
                }
                self.work.push(Box::pin(async move {
                    door::sleep_until(until).await;
                    Done::LaneAwake(key)
                }));
                self.refresh(now);
            }
        }
    }

    pub(super) fn awake(&mut self, key: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.busy = false;
            self.dirty.extend(std::mem::take(&mut lane.waiting));
        }
    }
}
