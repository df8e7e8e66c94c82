//! The names of a log's files.
//! Owns the naming alone: twenty digits of an offset and a suffix, Kafka's way. Must never touch a file.

use std::path::{Path, PathBuf};

use headwater_protocol::ids::Offset;

pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const EPOCHS: &str = "leader-epoch-checkpoint";
/// There once the history of epochs was found damaged: it may lack some.
pub(super) const EPOCH_HOLES: &str = "leader-epoch-holes";
/// Up to where the log was compacted.
pub(super) const CLEAN: &str = "cleaner-offset-checkpoint";

/// What a file named after an offset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Log,
    Index,
    TimeIndex,
    /// Producer state up to the offset in the name.
    Snapshot,
    /// A segment that is being fetched from another replica. Worth nothing until it is whole.
    Repairing,
    /// The same, whole and durable: it takes the place of the segment of this name.
    Repaired,
    /// A segment that was repaired, as it was found; kept until the new one has been read again.
    Damaged,
    /// What compaction makes of segments, and its indexes, on their way: worth nothing until `Swap` bears the name.
    Cleaned,
    CleanedIndex,
    CleanedTimeIndex,
    /// What compaction has made, whole and durable: it takes the place of all segments from this one up to its end.
    Swap,
    /// A segment whose place was taken: on its way out.
    Deleted,
}

impl Part {
    const ALL: [Self; 12] = [
        Self::Log,
        Self::Index,
        Self::TimeIndex,
        Self::Snapshot,
        Self::Repairing,
        Self::Repaired,
        Self::Damaged,
        Self::Cleaned,
        Self::CleanedIndex,
        Self::CleanedTimeIndex,
        Self::Swap,
        Self::Deleted,
    ];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
            Self::Snapshot => "snapshot",
            Self::Repairing => "repairing",
            Self::Repaired => "repaired",
            Self::Damaged => "damaged",
            Self::Cleaned => "cleaned",
            Self::CleanedIndex => "index.cleaned",
            Self::CleanedTimeIndex => "timeindex.cleaned",
            Self::Swap => "swap",
            Self::Deleted => "deleted",
        }
    }
}

/// The path of one file.
pub(super) fn path(folder: &Path, offset: Offset, part: Part) -> PathBuf {
    folder.join(format!("{:020}.{}", offset.value(), part.suffix()))
}

/// What a name says, if it is one of ours.
pub(super) fn parse(name: &str) -> Option<(Offset, Part)> {
    let (digits, suffix) = name.split_once('.')?;
    let part = Part::ALL.into_iter().find(|part| part.suffix() == suffix)?;
    if digits.len() != 20 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(|offset| (Offset(offset), part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_not_ours() {
        for part in Part::ALL {
            let path = path(Path::new("t-0"), Offset(1234), part);
            assert_eq!(
                parse(path.file_name().unwrap().to_str().unwrap()),
                Some((Offset(1234), part))
            );
        }
        let file = path(Path::new("t-0"), Offset(1234), Part::Log);
        assert_eq!(file, Path::new("t-0/00000000000000001234.log"));
        for other in [
            "checkpoint",
            "1.log",
            "0000000000000000000x.log",
            "00000000000000000001.log.new",
            "",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}
