//! What a map, router or aggregate sends on, written into one buffer per call.
//! It owns the layout "outputs" of `wit/README.md` and keeps its rules: outputs in the order of their inputs, none for
//! an input that failed.

use crate::bindings::services::headwater::module::types::Failure;
use crate::bytes::{put, same};
use crate::error::Error;
use crate::wire::{put_bytes, put_varint, set_count};

const CARRIES_TOPIC: u8 = 1;
const CARRIES_TIMESTAMP: u8 = 1 << 1;
const CARRIES_KEY: u8 = 1 << 2;
const CARRIES_VALUE: u8 = 1 << 3;
const CARRIES_HEADERS: u8 = 1 << 4;

/// A header to send: name and value.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// One record to send, as a difference from its input: what is not set is taken from there. `Output::default()`
/// forwards the input as it is. (Sent for a closed window, an output takes the window's key and end, and has no value
/// or headers of its own unless set.)
#[derive(Clone, Copy, Debug, Default)]
pub struct Output<'a> {
    topic: Option<&'a str>,
    timestamp_ms: Option<i64>,
    key: Option<Option<&'a [u8]>>,
    value: Option<Option<&'a [u8]>>,
    parts: Option<&'a [&'a [u8]]>,
    headers: Option<&'a [Header<'a>]>,
}

impl<'a> Output<'a> {
    /// Names one of the transform's sinks. Without it the output goes to the first.
    #[must_use]
    pub fn topic(mut self, topic: &'a str) -> Self {
        self.topic = Some(topic);
        self
    }

    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    #[must_use]
    pub fn key(mut self, key: Option<&'a [u8]>) -> Self {
        self.key = Some(key);
        self
    }

    #[must_use]
    pub fn value(mut self, value: Option<&'a [u8]>) -> Self {
        (self.value, self.parts) = (Some(value), None);
        self
    }

    /// A value that is put together from parts, which saves making it first.
    #[must_use]
    pub fn value_of(mut self, parts: &'a [&'a [u8]]) -> Self {
        (self.value, self.parts) = (None, Some(parts));
        self
    }

    /// Replaces all headers of the input.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = Some(headers);
        self
    }
}

/// Where the outputs and the failures of the last input begin, so that a failure can take its outputs back.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    index: u32,
    bytes: usize,
    count: u32,
    topics: usize,
}

/// Collects the outputs and failures of one call.
///
/// - Inputs must be given in order: an index below the one before panics.
/// - An input that fails loses the outputs it had.
#[derive(Clone, Debug)]
pub struct Outputs {
    buffer: Vec<u8>,
    count: u32,
    topics: Vec<String>,
    last: Mark,
    failures: Vec<Failure>,
}

impl Outputs {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 4);
        buffer.extend_from_slice(&[0; 4]);
        let last = Mark {
            bytes: buffer.len(),
            ..Mark::default()
        };
        Self {
            buffer,
            count: 0,
            topics: Vec::new(),
            last,
            failures: Vec::new(),
        }
    }

    /// Sends a record for the input with this index (of a [`crate::Record`] or a [`crate::Window`]).
    ///
    /// # Panics
    /// When an input with a higher index came before, this input has failed, or the topic's name is empty.
    #[inline(always)]
    pub fn push(&mut self, input: impl Input, output: Output<'_>) {
        let index = self.enter(input.index());
        self.count += 1;
        self.buffer.extend_from_slice(&index.to_le_bytes());
        let carries = self.buffer.len();
        self.buffer.push(0);
        let mut flags = 0;
        if let Some(topic) = output.topic {
            flags |= CARRIES_TOPIC;
            self.put_topic(topic);
        }
        if let Some(timestamp_ms) = output.timestamp_ms {
            flags |= CARRIES_TIMESTAMP;
            self.buffer.extend_from_slice(&timestamp_ms.to_le_bytes());
        }
        if let Some(key) = output.key {
            flags |= CARRIES_KEY;
            put_bytes(&mut self.buffer, key);
        }
        if let Some(value) = output.value {
            flags |= CARRIES_VALUE;
            put_bytes(&mut self.buffer, value);
        }
        if let Some(parts) = output.parts {
            flags |= CARRIES_VALUE;
            let bytes: usize = parts.iter().map(|part| part.len()).sum();
            put_varint(
                &mut self.buffer,
                i64::try_from(bytes).expect("memory is smaller than i64::MAX"),
            );
            parts.iter().for_each(|part| put(&mut self.buffer, part));
        }
        if let Some(headers) = output.headers {
            flags |= CARRIES_HEADERS;
            put_varint(
                &mut self.buffer,
                i64::try_from(headers.len()).expect("memory is smaller than i64::MAX"),
            );
            for (name, value) in headers {
                put_bytes(&mut self.buffer, Some(name.as_bytes()));
                put_bytes(&mut self.buffer, *value);
            }
        }
        self.buffer[carries] = flags;
    }

    /// Says that an input could not be processed, and takes its outputs back.
    ///
    /// # Panics
    /// When an input with a higher index came before, or this one has failed already.
    pub fn fail(&mut self, input: impl Input, reason: impl Into<Error>) {
        let index = self.enter(input.index());
        self.buffer.truncate(self.last.bytes);
        self.topics.truncate(self.last.topics);
        self.count = self.last.count;
        self.failures.push(Failure {
            index,
            message: reason.into().into_message(),
        });
    }

    #[inline(always)]
    fn enter(&mut self, index: u32) -> u32 {
        if index != self.last.index {
            assert!(
                index > self.last.index,
                "outputs must stand in the order of their inputs"
            );
            self.last = Mark {
                index,
                bytes: self.buffer.len(),
                count: self.count,
                topics: self.topics.len(),
            };
        }
        assert!(
            self.failures.last().is_none_or(|failure| failure.index != index),
            "input {index} has failed and can send or fail no more"
        );
        index
    }

    #[inline]
    fn put_topic(&mut self, topic: &str) {
        assert!(!topic.is_empty(), "a topic's name cannot be empty");
        let is_known = |known: &String| same(known.as_bytes(), topic.as_bytes());
        let known = self.topics.iter().position(is_known);
        let number = known.unwrap_or(self.topics.len()) + 1;
        let number = u16::try_from(number).expect("a transform has fewer than 65536 sinks");
        self.buffer.extend_from_slice(&number.to_le_bytes());
        if known.is_none() {
            put_bytes(&mut self.buffer, Some(topic.as_bytes()));
            self.topics.push(topic.into());
        }
    }

    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<Failure>) {
        set_count(&mut self.buffer, self.count);
        (self.buffer, self.failures)
    }
}

/// What an output or a failure can belong to.
pub trait Input {
    #[doc(hidden)]
    fn index(&self) -> u32;
}

impl Input for &crate::Record<'_> {
    fn index(&self) -> u32 {
        crate::Record::index(self)
    }
}

impl Input for &crate::Window<'_> {
    fn index(&self) -> u32 {
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::testing::{TestRecord, encode_batch};

    fn written(
        count: usize,
        write: impl FnOnce(&[crate::Record<'_>], &mut Outputs),
    ) -> (Vec<u8>, Vec<Failure>) {
        let buffer = encode_batch(&vec![TestRecord::value("v"); count]);
        let records: Vec<_> = Batch::new(&buffer).records().collect();
        let mut outputs = Outputs::with_capacity(0);
        write(&records, &mut outputs);
        outputs.finish()
    }

    #[test]
    fn a_forwarded_record_takes_five_bytes() {
        let (buffer, _) = written(2, |records, outputs| outputs.push(&records[1], Output::default()));
        assert_eq!(buffer, [1, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn every_part_has_its_place() {
        let (buffer, _) = written(1, |records, outputs| {
            outputs.push(
                &records[0],
                Output::default()
                    .topic("t")
                    .timestamp_ms(-2)
                    .key(None)
                    .value(Some(b"vv"))
                    .headers(&[("h", Some(b"x")), ("n", None)]),
            );
        });
        let expected = [
            &[1, 0, 0, 0][..],
            &[0, 0, 0, 0],
            &[0b11111],
            &[1, 0, 2, b't'],
            &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[1],
            &[4, b'v', b'v'],
            &[4, 2, b'h', 2, b'x', 2, b'n', 1],
        ];
        assert_eq!(buffer, expected.concat());
    }

    #[test]
    fn a_value_of_parts_is_their_sum() {
        let (whole, _) = written(1, |records, outputs| {
            outputs.push(&records[0], Output::default().value(Some(b"one two")));
        });
        let (parts, _) = written(1, |records, outputs| {
            let parts: [&[u8]; 3] = [b"one", b"", b" two"];
            outputs.push(&records[0], Output::default().value(None).value_of(&parts));
        });
        assert_eq!(parts, whole);
    }

    #[test]
    fn a_topic_is_named_once() {
        let (buffer, _) = written(3, |records, outputs| {
            for (record, topic) in records.iter().zip(["a", "b", "a"]) {
                outputs.push(record, Output::default().topic(topic));
            }
        });
        let expected = [
            &[3, 0, 0, 0][..],
            &[0, 0, 0, 0, 1, 1, 0, 2, b'a'],
            &[1, 0, 0, 0, 1, 2, 0, 2, b'b'],
            &[2, 0, 0, 0, 1, 1, 0],
        ];
        assert_eq!(buffer, expected.concat());
    }

    #[test]
    fn a_failure_takes_its_outputs_back() {
        let (buffer, failures) = written(3, |records, outputs| {
            outputs.push(&records[0], Output::default());
            outputs.push(&records[1], Output::default().topic("never"));
            outputs.push(&records[1], Output::default().value(None));
            outputs.fail(&records[1], "half done");
            outputs.push(&records[2], Output::default().topic("t"));
        });
        let expected = [
            &[2, 0, 0, 0][..],
            &[0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 1, 0, 2, b't'],
        ];
        assert_eq!(buffer, expected.concat());
        assert_eq!(
            failures
                .iter()
                .map(|failure| (failure.index, &*failure.message))
                .collect::<Vec<_>>(),
            [(1, "half done")]
        );
    }

    #[test]
    #[should_panic(expected = "in the order of their inputs")]
    fn going_back_panics() {
        written(2, |records, outputs| {
            outputs.push(&records[1], Output::default());
            outputs.push(&records[0], Output::default());
        });
    }
}
