//! Dead letters: the record that could not be processed, with headers that say why, where it came from and which
//! module refused it.
//! It writes them; `dead_letters` reads them again. It must never lose the original key, value or headers while they fit.

use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{Compression, Headers};

use super::bytes::put_bytes;
pub(super) use super::dead_letters::names::{
    JOINED, MESSAGE, MODULE, MODULE_VERSION, OFFSET, OMITTED, PARTITION, REASON, TIMESTAMP, TOPIC, TRANSFORM,
    WINDOW_END,
};
use super::outbox::{Outbox, Outgoing, UnsendableRecord};
use crate::metadata::ModuleRef;

/// Where dead letters of one pipeline come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) transform: String,
    pub(crate) module: ModuleRef,
    pub(crate) topic: String,
    pub(crate) partition: PartitionIndex,
}

/// Why one record became a dead letter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause<'a> {
    /// One word: `rejected`, `trap`, `timeout`, `memory`, `late`, ...
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
    pub(crate) offset: Offset,
    pub(crate) failed_at_ms: i64,
}

/// What a letter is, where it is not a record of the source as it was.
#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    /// A record of this topic.
    Record(&'a str),
    /// What came of joining a record of this topic.
    Joined(&'a str),
    Window {
        end_ms: &'a str,
    },
}

/// Writes dead letters into an outbox. Keeps its memory.
#[derive(Debug)]
pub(crate) struct Letters {
    origin: Origin,
    /// Which sink of the outbox is the dead-letter topic.
    sink: usize,
    headers: Vec<u8>,
}

impl Letters {
    pub(crate) fn new(origin: Origin, sink: usize) -> Self {
        Self {
            origin,
            sink,
            headers: Vec::new(),
        }
    }

    /// Adds the dead letter of `record`. A record too large for the topic goes without its value, then without its
    /// key and headers as well.
    pub(crate) fn write(
        &mut self,
        outbox: &mut Outbox,
        record: &Outgoing<'_>,
        cause: Cause<'_>,
    ) -> Result<(), UnsendableRecord> {
        let topic = self.origin.topic.clone();
        self.write_kind(outbox, record, cause, Kind::Record(&topic))
    }

    /// The same for a record of another topic than the source.
    pub(crate) fn write_of(
        &mut self,
        outbox: &mut Outbox,
        record: &Outgoing<'_>,
        cause: Cause<'_>,
        topic: &str,
    ) -> Result<(), UnsendableRecord> {
        self.write_kind(outbox, record, cause, Kind::Record(topic))
    }

    /// The same for what came of joining a record of `topic`. It says so, because it is no record of the source.
    pub(crate) fn write_joined(
        &mut self,
        outbox: &mut Outbox,
        joined: &Outgoing<'_>,
        cause: Cause<'_>,
        topic: &str,
    ) -> Result<(), UnsendableRecord> {
        self.write_kind(outbox, joined, cause, Kind::Joined(topic))
    }

    /// The same for a window whose result could not be had: its key and state, in its last millisecond. It says so, because
    /// no record of the source stands behind it.
    pub(crate) fn write_window(
        &mut self,
        outbox: &mut Outbox,
        window: &Outgoing<'_>,
        cause: Cause<'_>,
    ) -> Result<(), UnsendableRecord> {
        let end_ms = window.timestamp_ms.saturating_add(1).to_string();
        self.write_kind(outbox, window, cause, Kind::Window { end_ms: &end_ms })
    }

    fn write_kind(
        &mut self,
        outbox: &mut Outbox,
        record: &Outgoing<'_>,
        cause: Cause<'_>,
        kind: Kind<'_>,
    ) -> Result<(), UnsendableRecord> {
        let value_bytes = record.value.map_or(0, <[u8]>::len);
        let no_value = Outgoing {
            value: None,
            ..*record
        };
        let bare = Outgoing {
            key: None,
            headers: Headers::NONE,
            ..no_value
        };
        let value_omitted = format!("value of {value_bytes} bytes");
        let all_omitted = format!("key, headers and {value_omitted}");
        let attempts = [
            (*record, None),
            (no_value, Some(value_omitted)),
            (bare, Some(all_omitted)),
        ];
        let mut refused = None;
        for (record, omitted) in attempts {
            let count = self.gather(&record, cause, kind, omitted.as_deref());
            let headers = Headers::new(&self.headers, count);
            match outbox.push(self.sink, &Outgoing { headers, ..record }, Compression::None) {
                Ok(()) => return Ok(()),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("the loop ran"))
    }

    /// Fills `headers`; gives their count.
    fn gather(
        &mut self,
        record: &Outgoing<'_>,
        cause: Cause<'_>,
        kind: Kind<'_>,
        omitted: Option<&str>,
    ) -> i32 {
        let origin = &self.origin;
        let (topic, window_end_ms, joined) = match kind {
            Kind::Record(topic) => (topic, None, None),
            Kind::Joined(topic) => (topic, None, Some("true")),
            Kind::Window { end_ms } => (&*origin.topic, Some(end_ms), None),
        };
        let number = |value: i64| value.to_string();
        self.headers.clear();
        self.headers.extend_from_slice(record.headers.encoded());
        let all = [
            (REASON, Some(cause.reason)),
            (MESSAGE, Some(cause.message)),
            (TRANSFORM, Some(&*origin.transform)),
            (MODULE, Some(&*origin.module.name)),
            (MODULE_VERSION, Some(&*origin.module.version)),
            (TOPIC, Some(topic)),
            (PARTITION, Some(&*number(i64::from(origin.partition.value())))),
            (OFFSET, Some(&*number(cause.offset.value()))),
            (TIMESTAMP, Some(&*number(cause.failed_at_ms))),
            (WINDOW_END, window_end_ms),
            (JOINED, joined),
            (OMITTED, omitted),
        ];
        let mut count = record.headers.header_count();
        for (name, value) in all {
            let Some(value) = value else { continue };
            put_bytes(&mut self.headers, Some(name.as_bytes()));
            put_bytes(&mut self.headers, Some(value.as_bytes()));
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use headwater_protocol::record::{BatchView, Header};

    use super::super::outbox::Sink;
    use super::*;

    fn written(value: &[u8], limit: usize) -> BatchView {
        written_by(value, limit, Letters::write)
    }

    type Write = fn(&mut Letters, &mut Outbox, &Outgoing<'_>, Cause<'_>) -> Result<(), UnsendableRecord>;

    fn written_by(value: &[u8], limit: usize, write: Write) -> BatchView {
        let sinks: Arc<[Sink]> = Arc::new([Sink {
            name: "dead".into(),
            partitions: 1,
            message_bytes_max: limit,
        }]);
        let mut outbox = Outbox::new(sinks, PartitionIndex(2));
        let module = ModuleRef {
            name: "filter".to_owned(),
            version: "1.2.3".to_owned(),
        };
        let (transform, topic) = ("clean".to_owned(), "raw".to_owned());
        let mut letters = Letters::new(
            Origin {
                transform,
                module,
                topic,
                partition: PartitionIndex(2),
            },
            0,
        );
        let mut encoded = Vec::new();
        put_bytes(&mut encoded, Some(b"own"));
        put_bytes(&mut encoded, None);
        let headers = Headers::new(&encoded, 1);
        let record = Outgoing {
            timestamp_ms: 5,
            key: Some(b"key"),
            value: Some(value),
            headers,
        };
        let cause = Cause {
            reason: "rejected",
            message: "no JSON",
            offset: Offset(41),
            failed_at_ms: 99,
        };
        write(&mut letters, &mut outbox, &record, cause).unwrap();
        BatchView::parse(outbox.finish().unwrap().remove(0).batches).unwrap()
    }

    /// Key, value and headers of the one record of a batch, as text.
    fn read(batch: &BatchView) -> (Option<String>, Option<String>, Vec<String>) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let records = batch.records(1 << 20).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        let headers = record.headers.map(|header| {
            let Header { key, value } = header.unwrap();
            format!("{}={}", text(key), value.map_or_else(|| "-".to_owned(), text))
        });
        (record.key.map(text), record.value.map(text), headers.collect())
    }

    #[test]
    fn a_letter_has_the_record_and_the_whole_story() {
        let (key, value, headers) = read(&written(b"value", 1_000));
        assert_eq!((key.as_deref(), value.as_deref()), (Some("key"), Some("value")));
        assert_eq!(
            headers,
            [
                "own=-",
                "headwater-error-reason=rejected",
                "headwater-error-message=no JSON",
                "headwater-error-transform=clean",
                "headwater-error-module=filter",
                "headwater-error-module-version=1.2.3",
                "headwater-error-topic=raw",
                "headwater-error-partition=2",
                "headwater-error-offset=41",
                "headwater-error-timestamp=99",
            ]
        );
    }

    #[test]
    fn a_record_too_large_goes_without_its_value() {
        let (key, value, headers) = read(&written(&[b'v'; 2_000], 1_000));
        assert_eq!((key.as_deref(), value), (Some("key"), None));
        assert_eq!(
            headers.last().map(String::as_str),
            Some("headwater-error-omitted=value of 2000 bytes")
        );
    }

    #[test]
    fn what_was_joined_says_so_and_whose_record_it_was() {
        let write: Write =
            |letters, outbox, record, cause| letters.write_joined(outbox, record, cause, "right");
        let (_, _, headers) = read(&written_by(b"{}", 1_000, write));
        assert_eq!(headers[6], "headwater-error-topic=right");
        assert_eq!(
            headers.last().map(String::as_str),
            Some("headwater-error-joined=true")
        );
    }

    #[test]
    fn a_window_says_that_it_is_one() {
        let (_, _, headers) = read(&written_by(b"state", 1_000, Letters::write_window));
        assert_eq!(
            headers.last().map(String::as_str),
            Some("headwater-error-window-end=6")
        );
    }
}
