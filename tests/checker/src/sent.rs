//! What producers sent and what became of it, as far as they were told.
//!
//! Owns a few bytes for each record. It must never assume that a record without an outcome was not written.

use std::collections::BTreeMap;

use crate::verdict::{Findings, Property, Volume};

const INVOKED: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const UNKNOWN: u8 = 4;
const FAILED: u8 = 8;
const OUTCOME: u8 = ACKNOWLEDGED | UNKNOWN | FAILED;
/// Some consumer was given it, or a producer was told its offset.
const SEEN: u8 = 16;
const IN_LOG: u8 = 32;

/// Times are kept in steps of ten microseconds, in 32 bits: enough for half a day.
const STEP: u64 = 10;

/// More records of one producer in one partition than any run makes; a higher number is a mistake.
const SEQUENCE_MAX: u64 = 1 << 32;

/// One producer's records in one partition, by their dense sequence numbers.
#[derive(Debug)]
struct Stream {
    producer: u32,
    partition: u32,
    states: Vec<u8>,
    invoked: Vec<u32>,
    acknowledged: Vec<u32>,
}

/// A record's name in one number: its stream and its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(u64);

impl Name {
    fn new(stream: usize, sequence: u64) -> Self {
        Self(((stream as u64) << 32) | sequence)
    }

    pub(crate) fn stream(self) -> usize {
        (self.0 >> 32) as usize
    }

    pub(crate) fn sequence(self) -> u64 {
        self.0 & (SEQUENCE_MAX - 1)
    }

    /// As it is stored, where 0 says that there is none.
    pub(crate) fn stored(self) -> u64 {
        self.0 + 1
    }

    pub(crate) fn from_stored(stored: u64) -> Option<Self> {
        stored.checked_sub(1).map(Self)
    }
}

/// How a record ended for its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    Unknown,
    Failed,
}

/// Every record of every producer.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    producers: Vec<String>,
    producer_index: BTreeMap<String, u32>,
    stream_index: BTreeMap<(u32, u32), usize>,
    streams: Vec<Stream>,
    /// The earliest time of the history is not known before it is read; the first one met stands for it.
    epoch: Option<u64>,
}

impl Sent {
    /// The record's name; none for a number that cannot be.
    pub(crate) fn name(&mut self, producer: &str, partition: u32, sequence: u64) -> Option<Name> {
        if sequence >= SEQUENCE_MAX {
            return None;
        }
        let producer = match self.producer_index.get(producer) {
            Some(index) => *index,
            None => {
                let index = self.producers.len() as u32;
                self.producers.push(producer.to_owned());
                self.producer_index.insert(producer.to_owned(), index);
                index
            }
        };
        let next = self.streams.len();
        let stream = *self.stream_index.entry((producer, partition)).or_insert(next);
        if stream == next {
            self.streams.push(Stream {
                producer,
                partition,
                states: Vec::new(),
                invoked: Vec::new(),
                acknowledged: Vec::new(),
            });
        }
        Some(Name::new(stream, sequence))
    }

    pub(crate) fn invoke(&mut self, name: Name, at: u64, findings: &mut Findings) {
        let at = self.time(at);
        let state = self.state(name);
        if *state & INVOKED != 0 {
            findings.add(Property::History, || {
                format!("{} was sent twice by its client", self.show(name))
            });
            return;
        }
        *state |= INVOKED;
        let stream = &mut self.streams[name.stream()];
        store(&mut stream.invoked, name, at);
    }

    pub(crate) fn outcome(&mut self, name: Name, outcome: Outcome, at: u64, findings: &mut Findings) {
        // Rounded up, as the time of sending is rounded down: what is found holds for the true times.
        let at = self.time(at).saturating_add(1);
        let state = self.state(name);
        if *state & OUTCOME != 0 || *state & INVOKED == 0 {
            findings.add(Property::History, || {
                format!(
                    "{} has a second outcome, or one before it was sent",
                    self.show(name)
                )
            });
            return;
        }
        *state |= match outcome {
            Outcome::Acknowledged => ACKNOWLEDGED,
            Outcome::Unknown => UNKNOWN,
            Outcome::Failed => FAILED,
        };
        if outcome == Outcome::Acknowledged {
            let stream = &mut self.streams[name.stream()];
            store(&mut stream.acknowledged, name, at);
        }
    }

    pub(crate) fn mark_seen(&mut self, name: Name) {
        *self.state(name) |= SEEN;
    }

    /// Notes that the record is in the log; whether it was noted before.
    pub(crate) fn mark_in_log(&mut self, name: Name) -> bool {
        let state = self.state(name);
        let before = *state & IN_LOG != 0;
        *state |= IN_LOG;
        before
    }

    /// When the record was sent, if that is known.
    pub(crate) fn invoked_at(&self, name: Name) -> Option<u32> {
        self.when(name, INVOKED, |stream| &stream.invoked)
    }

    pub(crate) fn acknowledged_at(&self, name: Name) -> Option<u32> {
        self.when(name, ACKNOWLEDGED, |stream| &stream.acknowledged)
    }

    fn when(&self, name: Name, flag: u8, times: impl Fn(&Stream) -> &Vec<u32>) -> Option<u32> {
        let stream = &self.streams[name.stream()];
        let place = name.sequence() as usize;
        let state = stream.states.get(place)?;
        (state & flag != 0)
            .then(|| times(stream).get(place).copied())
            .flatten()
    }

    /// Judges what can be said only when everything is known.
    pub(crate) fn close(
        &self,
        is_closed: impl Fn(u32) -> bool,
        findings: &mut Findings,
        volume: &mut Volume,
    ) {
        for (index, stream) in self.streams.iter().enumerate() {
            for (sequence, state) in stream.states.iter().enumerate() {
                let has = |flag: u8| state & flag != 0;
                volume.invoked += u64::from(has(INVOKED));
                volume.acknowledged += u64::from(has(ACKNOWLEDGED));
                volume.unknown += u64::from(has(UNKNOWN));
                volume.failed += u64::from(has(FAILED));
                volume.unfinished += u64::from(has(INVOKED) && !has(OUTCOME));
                let violated = if has(ACKNOWLEDGED) && !has(IN_LOG) && is_closed(stream.partition) {
                    Property::Lost
                } else if has(SEEN | IN_LOG) && !has(INVOKED) {
                    Property::Phantom
                } else if has(SEEN | IN_LOG) && has(FAILED) {
                    Property::FailedYetWritten
                } else {
                    continue;
                };
                findings.add(violated, || self.show(Name::new(index, sequence as u64)));
            }
        }
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = u32> + '_ {
        self.streams.iter().map(|stream| stream.partition)
    }

    pub(crate) fn show(&self, name: Name) -> String {
        let stream = &self.streams[name.stream()];
        let producer = &self.producers[stream.producer as usize];
        format!(
            "record {} of {producer} in partition {}",
            name.sequence(),
            stream.partition
        )
    }

    fn state(&mut self, name: Name) -> &mut u8 {
        let states = &mut self.streams[name.stream()].states;
        let place = name.sequence() as usize;
        if states.len() <= place {
            states.resize(place + 1, 0);
        }
        &mut states[place]
    }

    fn time(&mut self, at: u64) -> u32 {
        // Clients that began a little earlier than the first one met still have room below it.
        const ROOM: u64 = 60_000_000;
        let epoch = *self.epoch.get_or_insert_with(|| at.saturating_sub(ROOM));
        u32::try_from(at.saturating_sub(epoch) / STEP).unwrap_or(u32::MAX)
    }
}

fn store(times: &mut Vec<u32>, name: Name, at: u32) {
    let place = name.sequence() as usize;
    if times.len() <= place {
        times.resize(place + 1, 0);
    }
    times[place] = at;
}
