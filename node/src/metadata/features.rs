//! Feature levels: what the nodes of a cluster may write and say to one another while it is upgraded (KIP-584, KIP-778).
//!
//! Owns the table of levels and of what each brings. Every node registers the range of levels that it reads; the level in
//! force, finalized by an operator, is a record of the metadata. Whoever writes a record or sends a call that is newer
//! than the lowest level asks here whether it may. It must never raise a level: that is the operator's to decide, and the
//! controller's to allow.

use super::{Image, Node, Record};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The feature that stands for this broker's own records and calls, as `metadata.version` does in Kafka. It has a name of
/// its own: Kafka's levels promise records that are not written here.
pub const VERSION: &str = "headwater.version";

/// A level of a feature. Each one includes those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(pub i16);

impl Level {
    /// Everything from before there were levels. A data directory that names no level has this one, and a node that
    /// registers no range reads nothing else.
    pub const FIRST: Self = Self(1);
    /// Levels themselves: the record `feature-level`, and the change that writes it. What a node supports stands in its
    /// registration at every level: nodes of the first level pass that field over.
    pub const FEATURES: Self = Self(2);
    /// Transforms that deliver exactly once. Nodes from before would take their state without regard to transactions.
    pub const EXACTLY_ONCE: Self = Self(3);
    /// Transforms with windows other than tumbling ones, a topic for late records, or keyed state that expires. Nodes of
    /// the levels below would pass over those fields and run them as something else.
    pub const WINDOWS: Self = Self(4);
    /// Transforms with a second source. Nodes of the levels below would run them on the first one alone, and could not read
    /// their state.
    pub const JOINS: Self = Self(5);
    /// What this binary reads and writes.
    pub const NEWEST: Self = Self::JOINS;
}

impl Default for Level {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a cluster may go back to a level from the one above it.
///
/// The first level cannot be gone back to: its nodes stop at the record of the level itself, which stays in the log. Nor can the
/// second, the third and the fourth: their nodes would misread transforms that may be there.
const fn is_safe_to_return_to(level: Level) -> bool {
    level.0 >= Level::JOINS.0
}

/// The levels of one feature that a node reads, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelRange {
    pub min: Level,
    pub max: Level,
}

impl LevelRange {
    const FIRST: Self = Self {
        min: Level::FIRST,
        max: Level::FIRST,
    };

    pub fn contains(self, level: Level) -> bool {
        self.min <= level && level <= self.max
    }
}

impl fmt::Display for LevelRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Every feature of this binary, with the levels that it reads.
const FEATURES: &[(&str, LevelRange)] = &[(
    VERSION,
    LevelRange {
        min: Level::FIRST,
        max: Level::NEWEST,
    },
)];

/// What a node supports: features by name, each with the levels it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Supported(BTreeMap<String, LevelRange>);

impl Default for Supported {
    /// What this binary supports.
    fn default() -> Self {
        Self::up_to(&BTreeMap::new())
    }
}

/// Why a node cannot be part of a cluster, or a level cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{feature} is at level {level} in this cluster, this node supports {}", supports(.range))]
pub struct Unsupported {
    pub feature: String,
    pub level: Level,
    /// None: it does not know the feature.
    pub range: Option<LevelRange>,
}

fn supports(range: &Option<LevelRange>) -> String {
    range.map_or_else(|| "no such feature".to_owned(), |range| format!("levels {range}"))
}

impl Supported {
    /// What an older binary would support: this one's features, none above the level that is named for it.
    pub fn up_to(max: &BTreeMap<String, i16>) -> Self {
        let lowered = |(name, range): &(&str, LevelRange)| {
            let max = max.get(*name).map_or(range.max, |max| range.max.min(Level(*max)));
            ((*name).to_owned(), LevelRange { max, ..*range })
        };
        Self(FEATURES.iter().map(lowered).collect())
    }

    /// What a registered node supports, as the cluster knows.
    pub fn of(node: &Node) -> Self {
        if node.features.is_empty() {
            return Self(BTreeMap::from([(VERSION.to_owned(), LevelRange::FIRST)]));
        }
        Self(node.features.clone())
    }

    /// As it stands in a registration. Nodes of the first level say nothing.
    pub fn registered(&self) -> BTreeMap<String, LevelRange> {
        if self.level() < Level::FEATURES {
            return BTreeMap::new();
        }
        self.0.clone()
    }

    pub fn range(&self, feature: &str) -> Option<LevelRange> {
        self.0.get(feature).copied()
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LevelRange)> {
        self.0.iter().map(|(name, range)| (name.as_str(), *range))
    }

    /// The highest level of records and calls.
    pub fn level(&self) -> Level {
        self.range(VERSION).map_or(Level::FIRST, |range| range.max)
    }

    pub fn check(&self, feature: &str, level: Level) -> Result<(), Unsupported> {
        match self.range(feature) {
            Some(range) if range.contains(level) => Ok(()),
            range => Err(Unsupported {
                feature: feature.to_owned(),
                level,
                range,
            }),
        }
    }

    /// Whether a node that supports this can be part of a cluster whose metadata is `image`.
    pub fn check_image(&self, image: &Image) -> Result<(), Unsupported> {
        self.check(VERSION, image.level())?;
        let mut others = image.features.iter().filter(|(name, _)| *name != VERSION);
        others.try_for_each(|(name, level)| self.check(name, *level))
    }

    /// Records as a node that supports this reads them, or why it must not go on: it would miss what the others know.
    pub fn reads<'a>(&self, records: &'a [Record]) -> Result<Cow<'a, [Record]>, Unsupported> {
        for record in records {
            if let Record::FeatureLevel { feature, level } = record {
                self.check(feature, *level)?;
            }
            self.check(VERSION, record.level())?;
        }
        if self.level() >= Level::FEATURES {
            return Ok(Cow::Borrowed(records));
        }
        let mut records = records.to_vec();
        for record in &mut records {
            if let Record::Node(node) = record {
                node.features.clear();
            }
        }
        Ok(Cow::Owned(records))
    }
}

/// The levels of a new cluster, as records: the newest that the node which begins it supports.
pub fn first_records(supported: &Supported) -> Vec<Record> {
    if supported.level() < Level::FEATURES {
        return Vec::new();
    }
    let record = |(feature, range): (&str, LevelRange)| Record::FeatureLevel {
        feature: feature.to_owned(),
        level: range.max,
    };
    supported.iter().map(record).collect()
}

/// How a level is to be changed (KIP-584).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    Up,
    /// Down, where nothing is lost by it. Elsewhere nobody gets down.
    Down,
}

/// Whether a feature may go from one level to another. Who can read the new one is another question.
pub fn check_way(from: Level, to: Level, way: Way) -> Result<(), String> {
    match (to.cmp(&from), way) {
        (std::cmp::Ordering::Equal, _) | (std::cmp::Ordering::Greater, Way::Up) => Ok(()),
        (std::cmp::Ordering::Greater, Way::Down) => Err(format!("it is at level {from}, which is below")),
        (std::cmp::Ordering::Less, Way::Up) => {
            Err(format!("it is at level {from}: ask for a downgrade to lower it"))
        }
        (std::cmp::Ordering::Less, Way::Down) if is_safe_to_return_to(to) => Ok(()),
        (std::cmp::Ordering::Less, Way::Down) => Err(format!(
            "nodes of level {to} could not read what was written since it is at level {from}"
        )),
    }
}

/// The highest level of a feature that every registered node reads; None: there is none.
pub fn possible(image: &Image, feature: &str) -> Option<Level> {
    let ranges = image
        .nodes
        .values()
        .map(|node| Supported::of(node).range(feature));
    let (mut min, mut max) = (Level::FIRST, Level(i16::MAX));
    for range in ranges {
        let range = range?;
        (min, max) = (min.max(range.min), max.min(range.max));
    }
    (min <= max && !image.nodes.is_empty()).then_some(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::image::Addresses;
    use headwater_protocol::ids::{NodeId, Offset};

    fn node(id: i32, max: i16) -> Node {
        let mut node = Node::new(NodeId(id), Addresses::default(), None);
        let supported = Supported::up_to(&BTreeMap::from([(VERSION.to_owned(), max)]));
        node.features = supported.registered();
        node
    }

    #[test]
    fn what_is_possible_is_what_every_node_reads() {
        let mut image = Image::default();
        assert_eq!(possible(&image, VERSION), None, "nobody is there");
        image.apply(Offset(0), &Record::Node(node(1, 2)));
        assert_eq!(possible(&image, VERSION), Some(Level(2)));
        image.apply(Offset(1), &Record::Node(node(2, 1)));
        assert_eq!(possible(&image, VERSION), Some(Level::FIRST), "it says nothing");
        assert_eq!(possible(&image, "another"), None);
    }

    #[test]
    fn a_node_of_the_first_level_reads_no_levels_and_passes_the_field_over() {
        let old = Supported::up_to(&BTreeMap::from([(VERSION.to_owned(), 1)]));
        let level = Record::FeatureLevel {
            feature: VERSION.to_owned(),
            level: Level::FEATURES,
        };
        assert_eq!(
            old.reads(std::slice::from_ref(&level)).unwrap_err().to_string(),
            "headwater.version is at level 2 in this cluster, this node supports levels 1 to 1"
        );
        let (new, known) = (Record::Node(node(1, 2)), Record::Node(node(1, 1)));
        let both = [level, new.clone()];
        assert_eq!(old.reads(&[new]).unwrap()[..], [known]);
        assert_eq!(Supported::default().reads(&both).unwrap()[..], both);
    }

    #[test]
    fn levels_that_this_binary_does_not_know_are_refused() {
        let this = Supported::default();
        for (feature, level, said) in [
            (
                VERSION,
                Level::NEWEST.0 + 1,
                "headwater.version is at level 6 in this cluster, this node supports levels 1 to 5",
            ),
            (
                "share.version",
                1,
                "share.version is at level 1 in this cluster, this node supports no such feature",
            ),
        ] {
            let record = Record::FeatureLevel {
                feature: feature.to_owned(),
                level: Level(level),
            };
            assert_eq!(
                this.reads(std::slice::from_ref(&record)).unwrap_err().to_string(),
                said
            );
            let mut image = Image::default();
            image.apply(Offset(0), &record);
            assert_eq!(this.check_image(&image).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn levels_go_down_only_when_asked_and_never_to_where_the_log_cannot_be_read() {
        let may = |from, to, way| check_way(Level(from), Level(to), way).is_ok();
        assert!(may(1, 2, Way::Up) && may(2, 2, Way::Up) && may(2, 2, Way::Down));
        assert!(!may(1, 2, Way::Down) && !may(6, 5, Way::Up));
        assert!(may(6, 5, Way::Down), "both can read the log");
        assert!(
            !may(5, 4, Way::Down) && !may(4, 3, Way::Down) && !may(3, 2, Way::Down),
            "transforms would not be what they are"
        );
        assert!(!may(2, 1, Way::Down), "the record of the level stays in the log");
    }
}
