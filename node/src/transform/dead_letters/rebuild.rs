//! From a letter back to a record of the source: edited by a person or not, without the story of its failure, with one line
//! more in its history.
//! Pure. It must never make a record of what is none, or of what is there in part only.

use bytes::Bytes;
use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::partitioner::partition_for_key;
use headwater_protocol::record::{self, BatchBuilder, BatchOptions, Headers};

use super::letter::{DeadLetter, LetterHeader, Round};
use super::names::{REDRIVE_COUNT, REDRIVE_FROM, REDRIVE_REASON, REDRIVE_TIMESTAMP};
use crate::transform::bytes::put_bytes;

/// How many rounds a record tells of; older ones go, the count goes on.
const ROUNDS_MAX: usize = 32;

/// What a person changed. What is none stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    pub key: Option<Option<Bytes>>,
    pub value: Option<Option<Bytes>>,
    pub headers: Option<Vec<LetterHeader>>,
    pub timestamp_ms: Option<i64>,
}

/// Why a letter is not written back. It is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is a window of an aggregate: no record of the source stands behind it")]
    Window,
    #[error("it is what came of a join: no single record of the source stands behind it")]
    Joined,
    #[error("it is not whole: the dead-letter topic had no room for its {omitted}")]
    Omitted { omitted: String },
    #[error("it came from topic {found:?}, and the transform reads {source_topic:?} now")]
    OtherSource { found: String, source_topic: String },
    #[error("redrive {redrive} has written it back already")]
    Already { redrive: String },
    #[error("the record takes {bytes} bytes, the source's max.message.bytes is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the source refuses it: {0}")]
    BySource(String),
}

impl Refusal {
    /// One word for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Joined => "joined",
            Self::Omitted { .. } => "omitted",
            Self::OtherSource { .. } => "other-source",
            Self::Already { .. } => "already-redriven",
            Self::TooLarge { .. } => "too-large",
            Self::BySource(_) => "refused",
        }
    }
}

/// A record to be written to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebuilt {
    timestamp_ms: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<LetterHeader>,
    /// The origin's, and whether the record belongs there still.
    origin: PartitionIndex,
    is_moved: bool,
}

/// Whether the letter, edited so, can be a record of `source` again.
pub(crate) fn check(letter: &DeadLetter, edit: &Edit, source: &str) -> Result<(), Refusal> {
    if letter.window_end_ms.is_some() {
        return Err(Refusal::Window);
    }
    if letter.is_joined {
        return Err(Refusal::Joined);
    }
    if letter.source != source {
        return Err(Refusal::OtherSource {
            found: letter.source.clone(),
            source_topic: source.to_owned(),
        });
    }
    match &letter.omitted {
        Some(omitted) if !makes_whole(edit, omitted) => Err(Refusal::Omitted {
            omitted: omitted.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// A letter went without its value, or without all that it had.
fn makes_whole(edit: &Edit, omitted: &str) -> bool {
    edit.value.is_some() && (!omitted.starts_with("key") || (edit.key.is_some() && edit.headers.is_some()))
}

impl Rebuilt {
    /// What comes of a letter of `topic`. It was checked.
    pub(crate) fn of(letter: &DeadLetter, edit: &Edit, topic: &str, now_ms: i64) -> Self {
        let key = edit.key.clone().unwrap_or_else(|| letter.key.clone());
        let mut headers = edit.headers.clone().unwrap_or_else(|| letter.headers.clone());
        let kept = letter.rounds.len().saturating_sub(ROUNDS_MAX - 1);
        let done = letter.rounds.last().map_or(0, |round| round.count);
        let this = Round {
            count: done.saturating_add(1),
            from: format!(
                "{topic}-{}@{}",
                letter.place.partition.value(),
                letter.place.offset.value()
            ),
            reason: letter.reason.clone(),
            at_ms: now_ms,
        };
        let rounds = letter.rounds[kept..].iter().chain([&this]);
        rounds.for_each(|round| headers.extend(told(round)));
        Self {
            timestamp_ms: edit.timestamp_ms.unwrap_or(letter.timestamp_ms),
            value: edit.value.clone().unwrap_or_else(|| letter.value.clone()),
            headers,
            origin: letter.origin.partition,
            is_moved: key != letter.key,
            key,
        }
    }

    /// Where it goes, in a source of so many partitions: where it came from; or, with another key or where that partition is
    /// gone, where a producer would put it.
    pub(crate) fn target(&self, partitions: usize) -> PartitionIndex {
        let count = u32::try_from(partitions).unwrap_or(u32::MAX).max(1);
        let origin = u32::try_from(self.origin.value()).ok().filter(|it| *it < count);
        let by_key = self.key.as_ref().map(|key| partition_for_key(key, count));
        let target = match (origin, by_key) {
            (Some(origin), None) => origin,
            (Some(origin), Some(_)) if !self.is_moved => origin,
            (_, Some(by_key)) => by_key,
            (None, None) => self.origin.value().unsigned_abs() % count,
        };
        PartitionIndex(i32::try_from(target).unwrap_or(0))
    }

    /// A batch of it alone.
    pub(crate) fn batch(&self) -> Result<Bytes, record::Error> {
        let mut encoded = Vec::new();
        for header in &self.headers {
            put_bytes(&mut encoded, Some(&header.name));
            put_bytes(&mut encoded, header.value.as_deref());
        }
        let count = i32::try_from(self.headers.len()).unwrap_or(i32::MAX);
        let headers = Headers::new(&encoded, count);
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        builder.append_forwarded(self.timestamp_ms, key, value, headers)?;
        Ok(builder.build()?.unwrap_or_default())
    }
}

fn told(round: &Round) -> [LetterHeader; 4] {
    let all = [
        (REDRIVE_COUNT, round.count.to_string()),
        (REDRIVE_FROM, round.from.clone()),
        (REDRIVE_REASON, round.reason.clone()),
        (REDRIVE_TIMESTAMP, round.at_ms.to_string()),
    ];
    all.map(|(name, value)| LetterHeader {
        name: Bytes::from_static(name.as_bytes()),
        value: Some(Bytes::from(value)),
    })
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::Offset;
    use headwater_protocol::record::{BatchView, Record};

    use super::super::testing::{letter, record, story};
    use super::*;

    fn read(rebuilt: &Rebuilt) -> Record {
        let batch = BatchView::parse(rebuilt.batch().unwrap()).unwrap();
        let mut records = batch.records(1 << 20).unwrap().into_iter();
        records.next().unwrap().unwrap()
    }

    fn headers(record: &Record) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = record.headers().map(Result::unwrap);
        headers
            .map(|it| format!("{}={}", text(it.key), text(it.value.unwrap_or(b"-"))))
            .collect()
    }

    /// The record as its letter is written again for `reason`.
    fn failed_again(record: &Record, reason: &str, offset: i64) -> DeadLetter {
        let mut all = headers(record);
        all.extend(
            story(reason)
                .iter()
                .map(|(name, value)| format!("{name}={}", value.unwrap_or("-"))),
        );
        let all: Vec<_> = all.iter().map(|it| it.split_once('=').unwrap()).collect();
        let all: Vec<_> = all.iter().map(|(name, value)| (*name, Some(*value))).collect();
        let mut again = super::super::testing::record(Some("k"), Some("v"), &all);
        again.offset = Offset(offset);
        DeadLetter::parse(PartitionIndex(2), &again).unwrap()
    }

    #[test]
    fn the_story_of_the_failure_goes_and_the_history_grows() {
        let mut all = vec![("trace", Some("7"))];
        all.extend(story("late"));
        let first = record(Some("k"), Some("v"), &all);
        let first = DeadLetter::parse(PartitionIndex(2), &first).unwrap();
        let once = read(&Rebuilt::of(&first, &Edit::default(), "raw.dead", 1_000));
        assert_eq!(
            (once.key.as_deref(), once.value.as_deref(), once.timestamp_ms),
            (Some(&b"k"[..]), Some(&b"v"[..]), 5)
        );
        let round = [
            "trace=7",
            "headwater-redrive-count=1",
            "headwater-redrive-from=raw.dead-2@40",
            "headwater-redrive-reason=late",
            "headwater-redrive-timestamp=1000",
        ];
        assert_eq!(headers(&once), round);
        let again = failed_again(&once, "trap", 41);
        let twice = headers(&read(&Rebuilt::of(&again, &Edit::default(), "raw.dead", 2_000)));
        assert_eq!(twice[..5], round);
        assert_eq!(
            twice[5..],
            [
                "headwater-redrive-count=2",
                "headwater-redrive-from=raw.dead-2@41",
                "headwater-redrive-reason=trap",
                "headwater-redrive-timestamp=2000",
            ]
        );
    }

    #[test]
    fn a_long_history_forgets_its_beginning_and_keeps_its_count() {
        let mut letter = letter("trap");
        for turn in 1..=40_u32 {
            let record = read(&Rebuilt::of(&letter, &Edit::default(), "d", i64::from(turn)));
            letter = failed_again(&record, "trap", 0);
            assert_eq!(letter.rounds.last().map(|round| round.count), Some(turn));
        }
        assert_eq!((letter.rounds.len(), letter.rounds[0].count), (ROUNDS_MAX, 9));
    }

    #[test]
    fn an_edit_takes_the_place_of_what_was() {
        let edit = Edit {
            key: Some(None),
            value: Some(Some(Bytes::from_static(b"mended"))),
            headers: Some(Vec::new()),
            timestamp_ms: Some(77),
        };
        let mut all = vec![("trace", Some("7"))];
        all.extend(story("late"));
        let letter = DeadLetter::parse(PartitionIndex(0), &record(Some("k"), None, &all)).unwrap();
        let record = read(&Rebuilt::of(&letter, &edit, "d", 0));
        assert_eq!((record.key.as_deref(), record.timestamp_ms), (None, 77));
        assert_eq!(record.value.as_deref(), Some(&b"mended"[..]));
        assert_eq!(headers(&record).len(), 4, "{:?}", headers(&record));
    }

    #[test]
    fn it_goes_where_it_came_from_while_that_is_there() {
        let letter = letter("trap");
        let stays = Rebuilt::of(&letter, &Edit::default(), "d", 0);
        let check = |rebuilt: &Rebuilt, partitions, expected, why: &str| {
            assert_eq!(
                rebuilt.target(partitions),
                PartitionIndex(expected as i32),
                "{why}"
            );
        };
        check(&stays, 4, 3, "the origin");
        check(&stays, 2, partition_for_key(b"k", 2), "the origin is gone");
        let key = |key: Option<&'static [u8]>| Edit {
            key: Some(key.map(Bytes::from_static)),
            ..Edit::default()
        };
        let moved = Rebuilt::of(&letter, &key(Some(b"other")), "d", 0);
        check(&moved, 4, partition_for_key(b"other", 4), "another key");
        let same = Rebuilt::of(&letter, &key(Some(b"k")), "d", 0);
        check(&same, 4, 3, "the same key, said again");
        let none = Rebuilt::of(&letter, &key(None), "d", 0);
        check(&none, 4, 3, "no key any more");
        check(&none, 3, 0, "no key, and the origin is gone");
    }

    #[test]
    fn what_is_no_record_or_not_whole_is_refused() {
        let plain = Edit::default();
        let value = Edit {
            value: Some(None),
            ..Edit::default()
        };
        let all = Edit {
            key: Some(None),
            headers: Some(Vec::new()),
            ..value.clone()
        };
        let letter = letter("trap");
        let code = |letter: &DeadLetter, edit: &Edit| check(letter, edit, "raw").map_err(|why| why.code());
        assert_eq!(code(&letter, &plain), Ok(()));
        let window = DeadLetter {
            window_end_ms: Some(60_000),
            ..letter.clone()
        };
        assert_eq!(code(&window, &all), Err("window"));
        let joined = DeadLetter {
            is_joined: true,
            ..letter.clone()
        };
        assert_eq!(code(&joined, &all), Err("joined"));
        let other = DeadLetter {
            source: "older".to_owned(),
            ..letter.clone()
        };
        assert_eq!(code(&other, &plain), Err("other-source"));
        let cut = |omitted: &str| DeadLetter {
            omitted: Some(omitted.to_owned()),
            ..letter.clone()
        };
        let (some, bare) = (cut("value of 9 bytes"), cut("key, headers and value of 9 bytes"));
        assert_eq!(code(&some, &plain), Err("omitted"));
        assert_eq!(code(&some, &value), Ok(()));
        assert_eq!(code(&bare, &value), Err("omitted"));
        assert_eq!(code(&bare, &all), Ok(()));
    }
}
