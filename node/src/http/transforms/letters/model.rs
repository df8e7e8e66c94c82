//! Dead letters and redrives as the API writes them.

use bytes::Bytes;
use headwater_protocol::ids::{Offset, PartitionIndex};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::data::{Data, Header};
use crate::http::error::ApiError;
use crate::http::records::ProduceHeader;
use crate::http::transforms::model::ModuleName;
use crate::transform::{
    self, Again, Edit, Filter, LetterHeader, Many, Mark, Mode, Page, Place, RedriveState, Shelved, Stretch,
    Summary,
};

/// Records per second, unless somebody says more or less.
const RATE_DEFAULT: u32 = 100;
const RATE_MAX: u32 = 100_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct DeadLetterQuery {
    /// Of the dead-letter topic; all if absent.
    #[param(nullable = false)]
    pub partition: Option<i32>,
    /// Begin at this offset and go up; from the newest letter down if absent.
    #[param(nullable = false, minimum = 0)]
    pub offset: Option<i64>,
    /// `next` of the page before; everything else as it was.
    #[param(nullable = false)]
    pub cursor: Option<String>,
    /// How many at most; 50 if absent, never more than 500.
    #[param(nullable = false)]
    pub limit: Option<usize>,
    /// Only those of this reason, such as `rejected` or `trap`.
    #[param(nullable = false)]
    pub reason: Option<String>,
    /// Only those of this version of the module.
    #[param(nullable = false)]
    pub version: Option<String>,
    /// Only those from this partition of the source.
    #[param(nullable = false)]
    pub source_partition: Option<i32>,
    /// Only those that failed then or later.
    #[param(nullable = false)]
    pub since_ms: Option<i64>,
    /// Only those that failed before.
    #[param(nullable = false)]
    pub until_ms: Option<i64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SummaryQuery {
    /// How many of the newest records of the dead-letter topic to look through; 20000 if absent, never more than 200000.
    #[param(nullable = false)]
    pub scan: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterPage {
    letters: Vec<DeadLetter>,
    /// What was looked through for this page.
    scanned: Vec<DeadLetterRange>,
    /// The cursor of the next page; null: there is none. A page may be empty and have one behind it.
    #[schema(required)]
    next: Option<String>,
}

/// Part of a partition of the dead-letter topic.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterRange {
    partition: i32,
    from_offset: i64,
    until_offset: i64,
    /// Where its records begin and end.
    log_start_offset: i64,
    end_offset: i64,
}

/// A record that the module failed on.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetter {
    /// In the dead-letter topic.
    partition: i32,
    offset: i64,
    failed_ms: i64,
    /// One word, such as `rejected` or `trap`.
    reason: String,
    message: String,
    module: ModuleName,
    origin: DeadLetterOrigin,
    #[schema(required)]
    key: Option<Data>,
    #[schema(required)]
    value: Option<Data>,
    /// The record's own: without what the letter says of its failure, and of former redrives.
    headers: Vec<Header>,
    /// What of the record did not fit the dead-letter topic.
    #[schema(required)]
    omitted: Option<String>,
    /// For a window of an aggregate: where it ends. Key and value are the window's key and state.
    #[schema(required)]
    window_end_ms: Option<i64>,
    /// Former redrives of the same record, the first one first.
    history: Vec<DeadLetterRound>,
    /// The redrive that wrote this letter back, as far as this node remembers.
    #[schema(required)]
    redriven: Option<DeadLetterMark>,
    /// Why it cannot be redriven as it is.
    #[schema(required)]
    refusal: Option<String>,
}

/// Where the record was.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterOrigin {
    topic: String,
    partition: i32,
    /// For a window: the last record that was read before it closed.
    offset: i64,
    /// Milliseconds since 1970; -1 where the record carries none.
    timestamp_ms: i64,
}

/// One time that the record was written back before it failed again.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterRound {
    count: u32,
    /// The letter it was then, as TOPIC-PARTITION@OFFSET.
    from: String,
    reason: String,
    at_ms: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterMark {
    redrive: String,
    at_ms: i64,
    /// Where in the source it was written; null: nobody acknowledged that, it may be there or not.
    #[schema(required)]
    to: Option<RecordPlace>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RecordPlace {
    partition: i32,
    offset: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterSummary {
    /// The most frequent one first.
    groups: Vec<DeadLetterGroup>,
    /// Letters beyond as many groups as are told apart.
    ungrouped: u64,
    /// Records of the topic that are no letters of this transform.
    others: u64,
    /// What was looked through.
    scanned: Vec<DeadLetterRange>,
    /// Whether that is all there is.
    complete: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeadLetterGroup {
    reason: String,
    module: ModuleName,
    count: u64,
    /// How many of them this node remembers to have written back.
    redriven: u64,
    first_failed_ms: i64,
    last_failed_ms: i64,
    /// Of the last one.
    message: String,
    last: RecordPlace,
}

/// One letter, with what to change in it; or those that fit a filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RedriveRequest {
    /// The one letter; many if absent.
    letter: Option<LetterPlace>,
    /// What to change in the one letter before it is written.
    edit: Option<LetterEdit>,
    /// Which of many; all if absent.
    filter: Option<LetterFilter>,
    /// Of many: in this partition of the dead-letter topic; in all if absent.
    partition: Option<i32>,
    /// Of many: from this offset on; from the first one if absent.
    from_offset: Option<i64>,
    /// Of many: before this offset; all that are there now if absent.
    until_offset: Option<i64>,
    /// Of many: no more than so many.
    limit: Option<u64>,
    /// Of many: records per second, no more; 100 if absent.
    #[schema(minimum = 1, maximum = 100_000)]
    rate: Option<u32>,
    /// Also those that were written back already.
    #[serde(default)]
    again: bool,
    /// Write nothing; say how many would be.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LetterPlace {
    partition: i32,
    offset: i64,
}

/// What is absent stays as it was; null takes a key or a value away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LetterEdit {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Data>)]
    key: Option<Option<Data>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Data>)]
    value: Option<Option<Data>>,
    /// All of them.
    headers: Option<Vec<ProduceHeader>>,
    timestamp_ms: Option<i64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LetterFilter {
    reason: Option<String>,
    version: Option<String>,
    source_partition: Option<i32>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

/// A redrive and how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Redrive {
    id: String,
    state: RedriveStateName,
    dry_run: bool,
    filter: LetterFilter,
    rate: u32,
    started_ms: i64,
    #[schema(required)]
    ended_ms: Option<i64>,
    /// The letters it deals with, and how far it is.
    ranges: Vec<RedriveRange>,
    /// Written to the source; in a dry run: would have been.
    redriven: u64,
    /// Left where they are, by why.
    passed: Vec<RedrivePassed>,
    /// Where in the source the last one was written.
    #[schema(required)]
    last: Option<RecordPlace>,
    /// Why it has failed.
    #[schema(required)]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum RedriveStateName {
    Running,
    Done,
    Cancelled,
    Failed,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RedriveRange {
    partition: i32,
    from_offset: i64,
    until_offset: i64,
    /// Everything before it is dealt with.
    position: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RedrivePassed {
    /// `already-redriven`, `window`, `omitted`, `other-source`, `too-large` or `refused`.
    reason: String,
    message: String,
    count: u64,
    /// The first of them.
    first: RecordPlace,
}

/// Tells a null apart from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Data>>, D::Error> {
    Option::<Data>::deserialize(deserializer).map(Some)
}

impl RedriveRequest {
    pub(super) fn again(&self) -> Again {
        if self.again { Again::Allow } else { Again::Refuse }
    }

    pub(super) fn mode(&self) -> Mode {
        if self.dry_run { Mode::DryRun } else { Mode::Write }
    }

    /// The one letter, if it is about one.
    pub(super) fn one(&self) -> Result<Option<(Place, Edit)>, ApiError> {
        let Some(letter) = self.letter else {
            return match self.edit {
                Some(_) => Err(ApiError::bad_request(
                    "INVALID_REDRIVE",
                    "an edit is of one letter, and none is named",
                )),
                None => Ok(None),
            };
        };
        let is_of_many = self.filter.is_some()
            || self.partition.is_some()
            || self.from_offset.is_some()
            || self.until_offset.is_some()
            || self.limit.is_some()
            || self.rate.is_some();
        if is_of_many {
            let message = "one letter is named, and what holds for many as well";
            return Err(ApiError::bad_request("INVALID_REDRIVE", message));
        }
        let place = Place {
            partition: PartitionIndex(letter.partition),
            offset: Offset(letter.offset),
        };
        let edit = self.edit.as_ref().map_or_else(|| Ok(Edit::default()), edit)?;
        Ok(Some((place, edit)))
    }

    pub(super) fn many(&self) -> Result<Many, ApiError> {
        let rate = self.rate.unwrap_or(RATE_DEFAULT);
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(ApiError::bad_request(
                "INVALID_RATE",
                format!("a rate is between 1 and {RATE_MAX} records per second, not {rate}"),
            ));
        }
        let filter = self.filter.clone().unwrap_or_default();
        Ok(Many {
            filter: Filter {
                reason: filter.reason,
                version: filter.version,
                source_partition: filter.source_partition.map(PartitionIndex),
                since_ms: filter.since_ms,
                until_ms: filter.until_ms,
            },
            partition: self.partition.map(PartitionIndex),
            from: self.from_offset.map(Offset),
            until: self.until_offset.map(Offset),
            limit: self.limit,
            rate,
            again: self.again(),
            mode: self.mode(),
        })
    }
}

fn edit(asked: &LetterEdit) -> Result<Edit, ApiError> {
    let plain = |data: &Data| {
        data.bytes()
            .map_err(|error| ApiError::bad_request("INVALID_BASE64", error.to_string()))
    };
    let part = |part: &Option<Option<Data>>| {
        let part = part.as_ref();
        part.map(|data| data.as_ref().map(plain).transpose()).transpose()
    };
    let header = |header: &ProduceHeader| {
        Ok(LetterHeader {
            name: Bytes::copy_from_slice(header.name.as_bytes()),
            value: header.value.as_ref().map(plain).transpose()?,
        })
    };
    let headers = asked.headers.as_ref();
    Ok(Edit {
        key: part(&asked.key)?,
        value: part(&asked.value)?,
        headers: headers
            .map(|headers| headers.iter().map(header).collect::<Result<_, ApiError>>())
            .transpose()?,
        timestamp_ms: asked.timestamp_ms,
    })
}

impl DeadLetterPage {
    pub(super) fn of(page: Page) -> Self {
        Self {
            letters: page.letters.into_iter().map(letter).collect(),
            scanned: page.scanned.into_iter().map(range).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
        }
    }
}

fn range(stretch: Stretch) -> DeadLetterRange {
    DeadLetterRange {
        partition: stretch.partition.0,
        from_offset: stretch.from.0,
        until_offset: stretch.until.0,
        log_start_offset: stretch.log_start.0,
        end_offset: stretch.end.0,
    }
}

fn letter(shelved: Shelved) -> DeadLetter {
    let Shelved {
        letter,
        mark,
        refusal,
    } = shelved;
    let data = |bytes: Option<Bytes>| bytes.as_deref().map(Data::of);
    let headers = letter.headers.into_iter().map(|header| Header {
        name: String::from_utf8_lossy(&header.name).into_owned(),
        value: data(header.value),
    });
    let history = letter.rounds.into_iter().map(|round| DeadLetterRound {
        count: round.count,
        from: round.from,
        reason: round.reason,
        at_ms: round.at_ms,
    });
    DeadLetter {
        partition: letter.place.partition.0,
        offset: letter.place.offset.0,
        failed_ms: letter.failed_at_ms,
        reason: letter.reason,
        message: letter.message,
        module: ModuleName {
            name: letter.module,
            version: letter.version,
        },
        origin: DeadLetterOrigin {
            topic: letter.source,
            partition: letter.origin.partition.0,
            offset: letter.origin.offset.0,
            timestamp_ms: letter.timestamp_ms,
        },
        key: data(letter.key),
        value: data(letter.value),
        headers: headers.collect(),
        omitted: letter.omitted,
        window_end_ms: letter.window_end_ms,
        history: history.collect(),
        redriven: mark.map(shown_mark),
        refusal: refusal.map(|why| why.to_string()),
    }
}

fn shown_mark(mark: Mark) -> DeadLetterMark {
    DeadLetterMark {
        redrive: mark.redrive,
        at_ms: mark.at_ms,
        to: mark.to.map(place),
    }
}

fn place(place: Place) -> RecordPlace {
    RecordPlace {
        partition: place.partition.0,
        offset: place.offset.0,
    }
}

impl DeadLetterSummary {
    pub(super) fn of(summary: Summary) -> Self {
        let groups = summary.groups.into_iter().map(|group| DeadLetterGroup {
            reason: group.reason,
            module: ModuleName {
                name: group.module,
                version: group.version,
            },
            count: group.count,
            redriven: group.redriven,
            first_failed_ms: group.first_failed_ms,
            last_failed_ms: group.last_failed_ms,
            message: group.message,
            last: place(group.last),
        });
        Self {
            groups: groups.collect(),
            ungrouped: summary.ungrouped,
            others: summary.others,
            complete: summary.scanned.iter().all(Stretch::is_whole),
            scanned: summary.scanned.into_iter().map(range).collect(),
        }
    }
}

impl Redrive {
    pub(super) fn of(redrive: transform::Redrive) -> Self {
        let filter = redrive.filter;
        Self {
            id: redrive.id,
            state: match redrive.state {
                RedriveState::Running => RedriveStateName::Running,
                RedriveState::Done => RedriveStateName::Done,
                RedriveState::Cancelled => RedriveStateName::Cancelled,
                RedriveState::Failed => RedriveStateName::Failed,
            },
            dry_run: redrive.mode == Mode::DryRun,
            filter: LetterFilter {
                reason: filter.reason,
                version: filter.version,
                source_partition: filter.source_partition.map(|index| index.0),
                since_ms: filter.since_ms,
                until_ms: filter.until_ms,
            },
            rate: redrive.rate,
            started_ms: redrive.started_ms,
            ended_ms: redrive.ended_ms,
            ranges: redrive
                .spans
                .iter()
                .map(|span| RedriveRange {
                    partition: span.partition.0,
                    from_offset: span.from.0,
                    until_offset: span.until.0,
                    position: span.position.0,
                })
                .collect(),
            redriven: redrive.redriven,
            passed: redrive
                .passed
                .into_iter()
                .map(|passed| RedrivePassed {
                    reason: passed.why.code().to_owned(),
                    message: passed.why.to_string(),
                    count: passed.count,
                    first: place(passed.first),
                })
                .collect(),
            last: redrive.last.map(place),
            error: redrive.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(body: Value) -> RedriveRequest {
        serde_json::from_value(body).expect("the shape of a request")
    }

    #[test]
    fn a_null_takes_away_and_nothing_leaves_as_it_was() {
        let body = json!({
            "letter": { "partition": 0, "offset": 3 },
            "edit": { "key": null, "headers": [{ "name": "h", "value": { "base64": "/w==" } }] },
        });
        let (place, edit) = request(body).one().expect("it is sound").expect("one letter");
        assert_eq!((place.partition.0, place.offset.0), (0, 3));
        assert_eq!((edit.key, edit.value), (Some(None), None));
        let header = LetterHeader {
            name: Bytes::from_static(b"h"),
            value: Some(Bytes::from_static(b"\xff")),
        };
        assert_eq!(edit.headers, Some(vec![header]));
        let value =
            json!({ "letter": { "partition": 0, "offset": 3 }, "edit": { "value": { "utf8": "v" } } });
        let (_, edit) = request(value).one().expect("it is sound").expect("one letter");
        assert_eq!(edit.value, Some(Some(Bytes::from_static(b"v"))));
    }

    #[test]
    fn one_letter_and_many_are_not_mixed() {
        let refused = |body: Value| request(body).one().is_err();
        assert!(refused(json!({ "edit": { "key": null } })));
        let letter = json!({ "partition": 0, "offset": 3 });
        assert!(refused(json!({ "letter": letter, "rate": 5 })));
        assert!(refused(json!({ "letter": letter, "filter": {} })));
        assert!(refused(
            json!({ "letter": letter, "edit": { "value": { "base64": "?" } } })
        ));
        let rate = |rate: u32| request(json!({ "rate": rate })).many().map(|many| many.rate).ok();
        assert_eq!(
            (rate(0), rate(1), rate(RATE_MAX), rate(RATE_MAX + 1)),
            (None, Some(1), Some(RATE_MAX), None)
        );
        assert_eq!(
            request(json!({})).many().ok().map(|many| many.rate),
            Some(RATE_DEFAULT)
        );
    }
}
