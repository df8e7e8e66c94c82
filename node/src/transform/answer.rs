//! What a guest answers, checked completely before anything of it is used: verdicts, outputs, keys, items and
//! failures, laid out as `wasm-modules/wit/README.md` says.
//! It owns those checks. It must never trust a length, an index or a count, and never panic on any answer.

use headwater_protocol::record::Headers;

use super::bytes::{ReadError, Reader};
use super::logs::cut;

/// The longest key of an aggregate.
pub(crate) const KEY_BYTES_MAX: usize = 64 << 10;
/// In `groups`: pass over the record.
pub(crate) const NO_GROUP: u32 = u32::MAX;

const CARRIES_TOPIC: u8 = 1;
const CARRIES_TIMESTAMP: u8 = 1 << 1;
const CARRIES_KEY: u8 = 1 << 2;
const CARRIES_VALUE: u8 = 1 << 3;
const CARRIES_HEADERS: u8 = 1 << 4;
const CARRIES_ALL: u8 = 0b1_1111;
const TOPIC_BYTES_MAX: usize = 249;

/// How an answer breaks the contract. All are the module's fault; the whole answer is thrown away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the failures name record {index} of {count}")]
    FailureIndex { index: u32, count: u32 },
    #[error("the failures are not in ascending order, once each, at record {index}")]
    FailureOrder { index: u32 },
    #[error("{found} verdicts for {expected} records")]
    VerdictCount { found: usize, expected: u32 },
    #[error("the verdict on record {index} is {value}: it must be 0 (drop), 1 (keep) or 2 (failed)")]
    VerdictValue { index: u32, value: u8 },
    #[error("record {index} has the verdict failed or a failure, but not both")]
    VerdictFailure { index: u32 },
    #[error("the {part} buffer is malformed: {error}")]
    Malformed { part: &'static str, error: String },
    #[error("{bytes} bytes follow the last part of the {part} buffer")]
    LeftOver { part: &'static str, bytes: usize },
    #[error("an output names input {index} of {count}")]
    OutputIndex { index: u32, count: u32 },
    #[error("the outputs are not in the order of their inputs: {index} comes after {last}")]
    OutputOrder { index: u32, last: u32 },
    #[error("input {index} has failed and has an output as well")]
    OutputOfFailed { index: u32 },
    #[error("an output of input {index} carries unknown parts: {carries:#010b}")]
    OutputCarries { index: u32, carries: u8 },
    #[error("an output of input {index} has topic number {number}, but only {named} topics are named")]
    TopicNumber { index: u32, number: u16, named: usize },
    #[error("an output of input {index} has a topic name that is no valid topic name")]
    TopicName { index: u32 },
    #[error("an output of input {index} goes to topic {name:?}, which is not among the transform's sinks")]
    NoSuchSink { index: u32, name: String },
    #[error("an output of input {index} has a header whose name is missing or not UTF-8")]
    HeaderName { index: u32 },
    #[error("record {index} has failed and has a key as well")]
    KeyOfFailed { index: u32 },
    #[error("the key of record {index} has {bytes} bytes, more than {KEY_BYTES_MAX}")]
    KeyTooLarge { index: u32, bytes: usize },
    #[error("{found} items for {expected}")]
    ItemCount { found: u32, expected: u32 },
    #[error("the accumulator of group {group} is missing")]
    ItemMissing { group: u32 },
}

fn malformed(part: &'static str) -> impl Fn(ReadError) -> AnswerError {
    move |error| AnswerError::Malformed {
        part,
        error: error.to_string(),
    }
}

fn ended(part: &'static str, reader: &Reader<'_>) -> Result<(), AnswerError> {
    match reader.left() {
        0 => Ok(()),
        bytes => Err(AnswerError::LeftOver { part, bytes }),
    }
}

/// One input that the module could not process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) index: u32,
    pub(crate) message: String,
}

/// The failures of one answer.
///
/// - Indexes ascend, each once, each below the count of inputs.
/// - No message is longer than `MESSAGE_BYTES_MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failures(Vec<Failure>);

impl Failures {
    pub(crate) fn check(mut failures: Vec<Failure>, inputs: u32) -> Result<Self, AnswerError> {
        let mut next = 0u32;
        for Failure { index, message } in &mut failures {
            if *index >= inputs {
                return Err(AnswerError::FailureIndex {
                    index: *index,
                    count: inputs,
                });
            }
            if *index < next {
                return Err(AnswerError::FailureOrder { index: *index });
            }
            next = *index + 1;
            cut(message);
        }
        Ok(Self(failures))
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Failure> {
        self.0.iter()
    }

    pub(crate) fn first(&self) -> Option<&Failure> {
        self.0.first()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Checks the answer of `filter`: one verdict per record, the 2s exactly the failures. Counts what is kept.
pub(crate) fn check_verdicts(verdicts: &[u8], failures: &Failures, records: u32) -> Result<u32, AnswerError> {
    if verdicts.len() != records as usize {
        return Err(AnswerError::VerdictCount {
            found: verdicts.len(),
            expected: records,
        });
    }
    let [mut kept, mut failed] = [0u32; 2];
    for (index, &value) in verdicts.iter().enumerate() {
        kept += u32::from(value == 1);
        failed += u32::from(value == 2);
        if value > 2 {
            return Err(AnswerError::VerdictValue {
                index: index as u32,
                value,
            });
        }
    }
    for failure in failures.iter() {
        if verdicts[failure.index as usize] != 2 {
            return Err(AnswerError::VerdictFailure { index: failure.index });
        }
    }
    if failed as usize != failures.len() {
        let mut named = failures.iter().map(|failure| failure.index).peekable();
        let unnamed = (0..records).find(|index| {
            let is_named = named.next_if_eq(index).is_some();
            verdicts[*index as usize] == 2 && !is_named
        });
        return Err(AnswerError::VerdictFailure {
            index: unnamed.unwrap_or_default(),
        });
    }
    Ok(kept)
}

/// One output, as a difference from its input.
#[derive(Debug, Clone)]
pub(crate) struct Output<'a> {
    pub(crate) input: u32,
    /// Which of the transform's sinks.
    pub(crate) sink: usize,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<Option<&'a [u8]>>,
    pub(crate) value: Option<Option<&'a [u8]>>,
    pub(crate) headers: Option<Headers<'a>>,
}

/// Reads the answer of `transform` and `emit`, one output after another, checking each.
///
/// What was read is only to be used once the end was reached without an error.
#[derive(Debug)]
pub(crate) struct Outputs<'a, S> {
    reader: Reader<'a>,
    left: u32,
    inputs: u32,
    last: u32,
    failed: std::iter::Peekable<std::slice::Iter<'a, Failure>>,
    sinks: &'a [S],
    /// The sinks that the buffer has named so far.
    named: Vec<usize>,
}

impl<'a, S: AsRef<str>> Outputs<'a, S> {
    pub(crate) fn new(
        buffer: &'a [u8],
        inputs: u32,
        failures: &'a Failures,
        sinks: &'a [S],
    ) -> Result<Self, AnswerError> {
        let mut reader = Reader::new(buffer);
        let left = reader.u32().map_err(malformed("outputs"))?;
        Ok(Self {
            reader,
            left,
            inputs,
            last: 0,
            failed: failures.0.iter().peekable(),
            sinks,
            named: Vec::new(),
        })
    }

    /// The next output, or none at the end of a sound buffer.
    pub(crate) fn next(&mut self) -> Result<Option<Output<'a>>, AnswerError> {
        if self.left == 0 {
            ended("outputs", &self.reader)?;
            return Ok(None);
        }
        self.left -= 1;
        let index = self.reader.u32().map_err(malformed("outputs"))?;
        self.check_index(index)?;
        let carries = self.reader.u8().map_err(malformed("outputs"))?;
        if carries & !CARRIES_ALL != 0 {
            return Err(AnswerError::OutputCarries { index, carries });
        }
        let sink = if carries & CARRIES_TOPIC == 0 {
            0
        } else {
            self.topic(index)?
        };
        self.parts(index, carries, sink).map(Some)
    }

    #[inline]
    fn check_index(&mut self, index: u32) -> Result<(), AnswerError> {
        if index >= self.inputs {
            return Err(AnswerError::OutputIndex {
                index,
                count: self.inputs,
            });
        }
        if index < self.last {
            return Err(AnswerError::OutputOrder {
                index,
                last: self.last,
            });
        }
        self.last = index;
        while self.failed.next_if(|failure| failure.index < index).is_some() {}
        if self.failed.peek().is_some_and(|failure| failure.index == index) {
            return Err(AnswerError::OutputOfFailed { index });
        }
        Ok(())
    }

    fn topic(&mut self, index: u32) -> Result<usize, AnswerError> {
        let number = self.reader.u16().map_err(malformed("outputs"))?;
        if number == 0 {
            return Ok(0);
        }
        let place = usize::from(number) - 1;
        if let Some(&sink) = self.named.get(place) {
            return Ok(sink);
        }
        if place > self.named.len() {
            return Err(AnswerError::TopicNumber {
                index,
                number,
                named: self.named.len(),
            });
        }
        let name = self
            .reader
            .bytes()
            .map_err(malformed("outputs"))?
            .unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| AnswerError::TopicName { index })?;
        if name.is_empty() || name.len() > TOPIC_BYTES_MAX {
            return Err(AnswerError::TopicName { index });
        }
        let sink = self.sinks.iter().position(|sink| sink.as_ref() == name);
        let sink = sink.ok_or_else(|| AnswerError::NoSuchSink {
            index,
            name: name.to_owned(),
        })?;
        self.named.push(sink);
        Ok(sink)
    }

    #[inline]
    fn parts(&mut self, input: u32, carries: u8, sink: usize) -> Result<Output<'a>, AnswerError> {
        let error = malformed("outputs");
        let mut output = Output {
            input,
            sink,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: None,
        };
        if carries & CARRIES_TIMESTAMP != 0 {
            output.timestamp_ms = Some(self.reader.i64().map_err(&error)?);
        }
        if carries & CARRIES_KEY != 0 {
            output.key = Some(self.reader.bytes().map_err(&error)?);
        }
        if carries & CARRIES_VALUE != 0 {
            output.value = Some(self.reader.bytes().map_err(&error)?);
        }
        if carries & CARRIES_HEADERS != 0 {
            output.headers = Some(self.headers(input)?);
        }
        Ok(output)
    }

    fn headers(&mut self, index: u32) -> Result<Headers<'a>, AnswerError> {
        let error = malformed("outputs");
        let at = self.reader.at();
        let count = self.reader.varint().map_err(&error)?;
        if count < 0 {
            return Err(error(ReadError::NegativeLength {
                at,
                length: i64::from(count),
            }));
        }
        let mut ahead = self.reader.clone();
        for _ in 0..count {
            let name = ahead.bytes().map_err(&error)?;
            if name.is_none_or(|name| std::str::from_utf8(name).is_err()) {
                return Err(AnswerError::HeaderName { index });
            }
            ahead.bytes().map_err(&error)?;
        }
        let encoded = self.reader.take(ahead.at() - self.reader.at()).map_err(&error)?;
        Ok(Headers::new(encoded, count))
    }
}

/// What `keys` says about one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyed<'a> {
    pub(crate) event_time_ms: i64,
    pub(crate) key: &'a [u8],
}

/// Reads the answer of `keys` into `out`: one entry per record, none for a record that is passed over.
pub(crate) fn read_keys<'a>(
    buffer: &'a [u8],
    failures: &Failures,
    records: u32,
    out: &mut Vec<Option<Keyed<'a>>>,
) -> Result<(), AnswerError> {
    let error = malformed("keys");
    let mut reader = Reader::new(buffer);
    let mut failed = failures.iter().peekable();
    for index in 0..records {
        let event_time_ms = reader.i64().map_err(&error)?;
        let key = reader.bytes().map_err(&error)?;
        if failed.next_if(|failure| failure.index == index).is_some() && key.is_some() {
            return Err(AnswerError::KeyOfFailed { index });
        }
        if let Some(bytes) = key.map(<[u8]>::len).filter(|bytes| *bytes > KEY_BYTES_MAX) {
            return Err(AnswerError::KeyTooLarge { index, bytes });
        }
        out.push(key.map(|key| Keyed { event_time_ms, key }));
    }
    ended("keys", &reader)
}

/// Reads a list of optional byte strings.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Items<'a> {
    pub(crate) fn new(buffer: &'a [u8]) -> Result<Self, AnswerError> {
        let mut reader = Reader::new(buffer);
        let left = reader.u32().map_err(malformed("items"))?;
        Ok(Self { reader, left })
    }

    /// How many are still to come, as the buffer claims.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    pub(crate) fn next(&mut self) -> Result<Option<Option<&'a [u8]>>, AnswerError> {
        if self.left == 0 {
            ended("items", &self.reader)?;
            return Ok(None);
        }
        self.left -= 1;
        self.reader.bytes().map(Some).map_err(malformed("items"))
    }
}

/// Reads the answer of `fold`: one accumulator per group. A group may stay without one only if it had none and every
/// record of it failed.
pub(crate) fn read_states<'a>(
    buffer: &'a [u8],
    groups: u32,
    may_stay_empty: impl Fn(u32) -> bool,
    out: &mut Vec<Option<&'a [u8]>>,
) -> Result<(), AnswerError> {
    let mut items = Items::new(buffer)?;
    if items.left() != groups {
        return Err(AnswerError::ItemCount {
            found: items.left(),
            expected: groups,
        });
    }
    for group in 0..groups {
        let item = items.next()?.flatten();
        if item.is_none() && !may_stay_empty(group) {
            return Err(AnswerError::ItemMissing { group });
        }
        out.push(item);
    }
    items.next().map(drop)
}

#[cfg(test)]
mod tests;
