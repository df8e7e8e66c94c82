//! Where the records of one batch belong, in the order in which a guest can be asked to fold them.
//! It owns the turns: in each a record goes into one group at most, and all of a group's records go into it in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::answer::NO_GROUP;

/// One group of a batch: a key within a window, and the accumulator it had.
#[derive(Debug, Clone)]
pub(crate) struct Group<'a> {
    pub(crate) start_ms: i64,
    pub(crate) key: &'a [u8],
    pub(crate) state: Option<Arc<[u8]>>,
    /// What it will be kept under.
    pub(super) at: i64,
    /// Something is kept of it already.
    pub(super) is_known: bool,
    /// The turn in which its records are folded.
    pub(super) turn: u32,
    /// Of sliding windows: it is told about when it closes.
    pub(super) is_due: bool,
    /// Of sessions: what it was kept under before.
    pub(super) was_at: Option<i64>,
    /// Of sessions: it has become part of another.
    pub(super) is_gone: bool,
}

impl<'a> Group<'a> {
    pub(super) fn new(at: i64, key: &'a [u8]) -> Self {
        Self {
            start_ms: at,
            key,
            state: None,
            at,
            is_known: false,
            turn: 0,
            is_due: true,
            was_at: None,
            is_gone: false,
        }
    }
}

/// Two sessions that a record has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) record: u32,
    /// Groups: the earlier and the later one.
    pub(crate) from: [usize; 2],
    /// The group of both. It had no accumulator.
    pub(crate) into: usize,
}

/// The groups of one record: so many, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// Where the records of one batch belong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assignment<'a> {
    pub(crate) groups: Vec<Group<'a>>,
    /// Indexes of the records that came too late for all of their windows.
    pub(crate) late: Vec<u32>,
    /// One per record.
    pub(super) places: Vec<Place>,
    /// In the order in which they are to be made.
    pub(super) merges: Vec<Merge>,
    pub(super) watermark_ms: Option<i64>,
}

impl Assignment<'_> {
    /// How often the records have to be gone through.
    pub(crate) fn turns(&self) -> u32 {
        let last = self.groups.iter().map(|group| group.turn).max();
        last.map_or(0, |last| last + 1)
    }

    /// Whether a record belongs to any group.
    pub(crate) fn places(&self, record: usize) -> bool {
        self.places[record].count > 0
    }

    /// The merges that come before the records of a turn.
    pub(crate) fn merges(&self, turn: u32) -> impl Iterator<Item = Merge> {
        let merges = self.merges.iter();
        merges
            .filter(move |merge| self.groups[merge.into].turn == turn)
            .copied()
    }

    /// One number per record: the group that it goes into in a turn, or `NO_GROUP`.
    pub(crate) fn numbers(&self, turn: u32, turns: u32) -> Vec<u32> {
        let number = |place: &Place| {
            if place.count == 0 {
                return NO_GROUP;
            }
            // Neighbours have turns that follow one another, and after the last comes the first.
            let away = (turn + turns - self.groups[place.first as usize].turn) % turns;
            if away < place.count {
                place.first + away
            } else {
                NO_GROUP
            }
        };
        self.places.iter().map(number).collect()
    }

    /// Gives turns to groups that stand in order of key and start, of which each record has neighbours.
    pub(super) fn take_turns(&mut self) {
        let turns = self.places.iter().map(|place| place.count).max();
        let turns = turns.unwrap_or_default().max(1);
        let mut last: Option<(&[u8], u32)> = None;
        for group in &mut self.groups {
            group.turn = match last {
                Some((key, turn)) if key == group.key => (turn + 1) % turns,
                Some(_) | None => 0,
            };
            last = Some((group.key, group.turn));
        }
    }
}

/// Groups of a batch by key and start, while it is not known yet which there will be.
pub(super) type Drafts<'a, T> = BTreeMap<&'a [u8], BTreeMap<i64, T>>;
