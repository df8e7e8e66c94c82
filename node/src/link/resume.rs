//! Whether a copy can go on where it ends: the one judgement that keeps a mirror a prefix of its source.
//!
//! Pure. It compares what both ends say of the same offset; it never decides what to do about a gap, which is the
//! flow's policy.

use headwater_protocol::ids::{Offset, TopicId};
use serde::{Deserialize, Serialize};

/// The batch in which a log ends: enough to tell two histories apart, since the checksum covers all of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchMark {
    pub base: Offset,
    pub last: Offset,
    /// CRC-32C as in the batch's header: everything from the attributes to the last record.
    pub crc: u32,
}

/// What the source says of itself, asked with the copy's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceState {
    pub topic_id: TopicId,
    pub start: Offset,
    /// Its high watermark: what a mirror may have.
    pub end: Offset,
    /// The batch that holds the offset before the copy's end, if the source still has it.
    pub at_copy_end: Option<BatchMark>,
}

/// What this end knows of its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopyState {
    /// The source's topic as it was when the copy was begun.
    pub topic_id: TopicId,
    pub start: Offset,
    pub end: Offset,
    /// Its last batch; none while it is empty.
    pub last: Option<BatchMark>,
}

/// Whether the copy goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Fetch from the copy's end.
    Resume,
    /// The copy is empty and the source begins later: nothing that anybody was promised is missing.
    Begin { at: Offset },
    /// The source deleted what the copy does not have yet.
    Gap { from: Offset, to: Offset },
    /// The source is not the log this is a copy of.
    Diverged(Divergence),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Divergence {
    /// Another topic has the name now: the source was made anew.
    Replaced,
    /// The source ends before its copy does: it lost records.
    Shorter { source_end: Offset, copy_end: Offset },
    /// Both have the offset, with different records.
    Differs { at: Offset },
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replaced => f.write_str("the source lost its log: another topic has its name now"),
            Self::Shorter { source_end, copy_end } => {
                write!(
                    f,
                    "the source lost records: it ends at {source_end}, its copy at {copy_end}"
                )
            }
            Self::Differs { at } => write!(f, "source and copy differ at offset {at}"),
        }
    }
}

/// Judges a copy against its source.
pub(super) fn judge(copy: &CopyState, source: &SourceState) -> Verdict {
    if copy.topic_id != source.topic_id {
        return Verdict::Diverged(Divergence::Replaced);
    }
    let empty = copy.end == copy.start && copy.last.is_none();
    if empty && source.start > copy.end {
        return Verdict::Begin { at: source.start };
    }
    if source.end < copy.end {
        return Verdict::Diverged(Divergence::Shorter {
            source_end: source.end,
            copy_end: copy.end,
        });
    }
    if source.start > copy.end {
        return Verdict::Gap {
            from: copy.end,
            to: source.start,
        };
    }
    match (copy.last, source.at_copy_end) {
        (Some(ours), Some(theirs)) if ours != theirs => Verdict::Diverged(Divergence::Differs {
            at: ours.base.min(theirs.base),
        }),
        // Where either has no batch there, it was deleted or compacted away: nothing contradicts.
        (Some(_) | None, Some(_) | None) => Verdict::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TopicId = TopicId([1; 16]);
    const B: TopicId = TopicId([2; 16]);

    fn mark(base: i64, last: i64, crc: u32) -> Option<BatchMark> {
        Some(BatchMark {
            base: Offset(base),
            last: Offset(last),
            crc,
        })
    }

    fn check(
        copy: (i64, i64, Option<BatchMark>),
        source: (TopicId, i64, i64, Option<BatchMark>),
        expected: Verdict,
    ) {
        let copy = CopyState {
            topic_id: A,
            start: Offset(copy.0),
            end: Offset(copy.1),
            last: copy.2,
        };
        let source = SourceState {
            topic_id: source.0,
            start: Offset(source.1),
            end: Offset(source.2),
            at_copy_end: source.3,
        };
        assert_eq!(judge(&copy, &source), expected, "{copy:?} against {source:?}");
    }

    #[test]
    fn goes_on_where_histories_agree() {
        check((0, 0, None), (A, 0, 0, None), Verdict::Resume);
        check((0, 0, None), (A, 0, 9, None), Verdict::Resume);
        check((0, 5, mark(3, 4, 7)), (A, 0, 9, mark(3, 4, 7)), Verdict::Resume);
        check((0, 5, mark(3, 4, 7)), (A, 5, 9, None), Verdict::Resume);
    }

    #[test]
    fn an_empty_copy_begins_where_its_source_does() {
        check((0, 0, None), (A, 4, 9, None), Verdict::Begin { at: Offset(4) });
    }

    #[test]
    fn sees_every_way_to_part() {
        use Divergence::{Differs, Replaced, Shorter};
        check(
            (0, 5, mark(3, 4, 7)),
            (B, 0, 9, mark(3, 4, 7)),
            Verdict::Diverged(Replaced),
        );
        check(
            (0, 5, mark(3, 4, 7)),
            (A, 0, 4, None),
            Verdict::Diverged(Shorter {
                source_end: Offset(4),
                copy_end: Offset(5),
            }),
        );
        check(
            (0, 5, mark(3, 4, 7)),
            (A, 0, 9, mark(3, 4, 8)),
            Verdict::Diverged(Differs { at: Offset(3) }),
        );
        check(
            (0, 5, mark(3, 4, 7)),
            (A, 0, 9, mark(2, 4, 7)),
            Verdict::Diverged(Differs { at: Offset(2) }),
        );
        check(
            (0, 5, mark(3, 4, 7)),
            (A, 7, 9, None),
            Verdict::Gap {
                from: Offset(5),
                to: Offset(7),
            },
        );
    }
}
