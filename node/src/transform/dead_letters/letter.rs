//! A dead letter as it is read again: the record, why it failed, where it came from, and how often it was written back.
//! Pure. It must never take for a letter what does not say who wrote it, nor lose a header of the record's own.

use bytes::Bytes;
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{Header, Record};

use super::names::{
    JOINED, MESSAGE, MODULE, MODULE_VERSION, OFFSET, OMITTED, PARTITION, REASON, REDRIVE_COUNT, REDRIVE_FROM,
    REDRIVE_REASON, REDRIVE_TIMESTAMP, TIMESTAMP, TOPIC, TRANSFORM, WINDOW_END,
};

const STORY: [&str; 12] = [
    REASON,
    MESSAGE,
    TRANSFORM,
    MODULE,
    MODULE_VERSION,
    TOPIC,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    WINDOW_END,
    JOINED,
    OMITTED,
];

/// Where a record lies in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub partition: PartitionIndex,
    pub offset: Offset,
}

/// A header of a record, which shares its batch's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterHeader {
    pub name: Bytes,
    pub value: Option<Bytes>,
}

/// A record that a transform failed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// In the dead-letter topic.
    pub place: Place,
    /// The record's own, as in the source.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// The record's own: without what the letter says of its failure and of former redrives.
    pub headers: Vec<LetterHeader>,
    pub reason: String,
    pub message: String,
    pub transform: String,
    pub module: String,
    pub version: String,
    pub failed_at_ms: i64,
    pub source: String,
    /// In the source.
    pub origin: Place,
    /// Set for a window of an aggregate; `origin` is then the last record that was read before it closed.
    pub window_end_ms: Option<i64>,
    /// It is what came of joining a record with others, not the record itself.
    pub is_joined: bool,
    /// What of the record did not fit the dead-letter topic.
    pub omitted: Option<String>,
    /// How often the record was written back before, the oldest time first.
    pub rounds: Vec<Round>,
}

/// One time that a letter was written back to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    pub count: u32,
    /// The letter, as TOPIC-PARTITION@OFFSET.
    pub from: String,
    pub reason: String,
    pub at_ms: i64,
}

impl DeadLetter {
    /// Reads a record of a dead-letter topic. None: it is no letter.
    ///
    /// A record may have been a letter of another topic before, whose headers are its own now: what this letter says begins
    /// at the last reason.
    pub(crate) fn parse(partition: PartitionIndex, record: &Record) -> Option<Self> {
        let all = record.headers().collect::<Result<Vec<Header<'_>>, _>>().ok()?;
        let begin = all.iter().rposition(|header| header.key == REASON.as_bytes())?;
        let (before, story) = all.split_at(begin);
        let text = |name: &str| {
            let found = story.iter().find(|header| header.key == name.as_bytes());
            found
                .and_then(|header| header.value)
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let number = |name: &str| text(name)?.parse::<i64>().ok();
        let origin = Place {
            partition: PartitionIndex(i32::try_from(number(PARTITION)?).ok()?),
            offset: Offset(number(OFFSET)?),
        };
        let is_of_record = |header: &&Header<'_>| STORY.iter().all(|name| header.key != name.as_bytes());
        let behind = story.iter().filter(is_of_record);
        let own = before.iter().chain(behind).map(|header| LetterHeader {
            name: record.share_header(header.key),
            value: header.value.map(|value| record.share_header(value)),
        });
        let (headers, rounds) = apart(own);
        Some(Self {
            place: Place {
                partition,
                offset: record.offset,
            },
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers,
            reason: text(REASON)?,
            message: text(MESSAGE).unwrap_or_default(),
            transform: text(TRANSFORM)?,
            module: text(MODULE).unwrap_or_default(),
            version: text(MODULE_VERSION).unwrap_or_default(),
            failed_at_ms: number(TIMESTAMP).unwrap_or(record.timestamp_ms),
            source: text(TOPIC)?,
            origin,
            window_end_ms: number(WINDOW_END),
            is_joined: text(JOINED).is_some(),
            omitted: text(OMITTED),
            rounds,
        })
    }

    /// How much it holds, about.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|header| header.name.len() + length(&header.value))
            .sum();
        length(&self.key) + length(&self.value) + headers + self.message.len()
    }
}

/// The record's own headers, and what the others say of former redrives.
fn apart(all: impl Iterator<Item = LetterHeader>) -> (Vec<LetterHeader>, Vec<Round>) {
    let (mut headers, mut rounds) = (Vec::new(), Vec::<Round>::new());
    for header in all {
        let name = std::str::from_utf8(&header.name).unwrap_or_default();
        let value = String::from_utf8_lossy(header.value.as_deref().unwrap_or_default()).into_owned();
        match (name, rounds.last_mut()) {
            (REDRIVE_COUNT, last) => {
                let next = last.map_or(0, |round| round.count).saturating_add(1);
                rounds.push(Round {
                    count: value.parse().unwrap_or(next),
                    from: String::new(),
                    reason: String::new(),
                    at_ms: -1,
                });
            }
            (REDRIVE_FROM, Some(round)) => round.from = value,
            (REDRIVE_REASON, Some(round)) => round.reason = value,
            (REDRIVE_TIMESTAMP, Some(round)) => round.at_ms = value.parse().unwrap_or(-1),
            _ => headers.push(header),
        }
    }
    (headers, rounds)
}

/// Which letters are meant. What is none says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub reason: Option<String>,
    pub version: Option<String>,
    pub source_partition: Option<PartitionIndex>,
    /// Those that failed then or later.
    pub since_ms: Option<i64>,
    /// Those that failed before.
    pub until_ms: Option<i64>,
}

impl Filter {
    pub(crate) fn takes(&self, letter: &DeadLetter) -> bool {
        let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|it| it == found);
        fits(&self.reason, &letter.reason)
            && fits(&self.version, &letter.version)
            && self
                .source_partition
                .is_none_or(|it| it == letter.origin.partition)
            && self.since_ms.is_none_or(|since| letter.failed_at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.failed_at_ms < until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{letter, record, story};
    use super::*;

    fn parsed(headers: &[(&str, Option<&str>)]) -> Option<DeadLetter> {
        DeadLetter::parse(PartitionIndex(2), &record(Some("k"), Some("v"), headers))
    }

    fn own(letter: &DeadLetter) -> Vec<&[u8]> {
        letter.headers.iter().map(|header| &*header.name).collect()
    }

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let mut headers = vec![("trace", Some("7")), ("empty", None)];
        headers.extend(story("trap"));
        let letter = parsed(&headers).expect("a letter");
        assert_eq!(own(&letter), [&b"trace"[..], b"empty"]);
        let place = |partition, offset| Place {
            partition: PartitionIndex(partition),
            offset: Offset(offset),
        };
        assert_eq!((letter.place, letter.origin), (place(2, 40), place(3, 7)));
        assert_eq!((&*letter.reason, &*letter.message), ("trap", "it broke"));
        assert_eq!(
            (&*letter.transform, &*letter.module, &*letter.version),
            ("clean", "filter", "1.0.0")
        );
        assert_eq!((letter.failed_at_ms, letter.timestamp_ms), (99, 5));
        assert_eq!((letter.window_end_ms, letter.rounds.len()), (None, 0));
    }

    #[test]
    fn what_says_too_little_is_no_letter() {
        assert_eq!(parsed(&[]), None);
        for missing in [REASON, TRANSFORM, TOPIC, PARTITION, OFFSET] {
            let headers: Vec<_> = story("trap").into_iter().filter(|it| it.0 != missing).collect();
            assert_eq!(parsed(&headers), None, "without {missing}");
        }
        let odd: Vec<_> = story("trap")
            .into_iter()
            .map(|(name, value)| (name, if name == OFFSET { Some("x") } else { value }))
            .collect();
        assert_eq!(parsed(&odd), None);
    }

    #[test]
    fn a_letter_of_a_letter_keeps_the_first_story_as_the_records_own() {
        let mut headers = story("late");
        headers.extend(story("trap"));
        let letter = parsed(&headers).expect("a letter");
        assert_eq!(letter.reason, "trap");
        assert_eq!(letter.headers.len(), story("late").len());
    }

    #[test]
    fn former_rounds_are_told_apart_from_the_records_headers() {
        let mut headers = vec![
            (REDRIVE_FROM, Some("of nobody")),
            (REDRIVE_COUNT, Some("1")),
            (REDRIVE_FROM, Some("d-0@3")),
            (REDRIVE_REASON, Some("late")),
            (REDRIVE_TIMESTAMP, Some("50")),
            (REDRIVE_COUNT, Some("odd")),
            (REDRIVE_FROM, Some("d-0@9")),
        ];
        headers.extend(story("trap"));
        let letter = parsed(&headers).expect("a letter");
        let told: Vec<_> = letter
            .rounds
            .iter()
            .map(|round| (round.count, &*round.from, &*round.reason, round.at_ms))
            .collect();
        assert_eq!(told, [(1, "d-0@3", "late", 50), (2, "d-0@9", "", -1)]);
        assert_eq!(own(&letter), [REDRIVE_FROM.as_bytes()]);
    }

    #[test]
    fn a_filter_takes_what_fits_in_all() {
        let letter = letter("trap");
        let check = |filter: Filter, expected| assert_eq!(filter.takes(&letter), expected, "{filter:?}");
        check(Filter::default(), true);
        let reason = |text: &str| Filter {
            reason: Some(text.to_owned()),
            ..Filter::default()
        };
        check(reason("trap"), true);
        check(reason("late"), false);
        let version = |text: &str| Filter {
            version: Some(text.to_owned()),
            ..reason("trap")
        };
        check(version("1.0.0"), true);
        check(version("2.0.0"), false);
        let between = |since_ms, until_ms| Filter {
            since_ms: Some(since_ms),
            until_ms: Some(until_ms),
            ..Filter::default()
        };
        check(between(99, 100), true);
        check(between(100, 200), false);
        check(between(0, 99), false);
        let from = |index| Filter {
            source_partition: Some(PartitionIndex(index)),
            ..Filter::default()
        };
        check(from(3), true);
        check(from(2), false);
    }
}
