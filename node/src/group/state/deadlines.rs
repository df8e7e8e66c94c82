//! What is due when. It owns the order of the deadlines; whether one still holds is for the state to say when it comes.

use super::super::request::Name;
use std::collections::BTreeSet;
use std::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A group has waited for its members to join.
    Rebalance(Name),
    /// A group has waited for its members to ask for their assignment.
    Sync(Name),
    /// A member may have been silent for too long.
    Session(Name, Name),
    /// A member id was told, and nobody may have come back with it.
    Promise(Name, Name),
    /// A member of the consumer protocol may have been silent for too long.
    ConsumerSession(Name, Name),
    /// A member of the consumer protocol may not have given up what it had to.
    Revocation(Name, Name),
    /// A member of a share group may have been silent for too long.
    ShareSession(Name, Name),
    /// Old offsets are looked for.
    Retention,
}

#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Instant, Due)>);

impl Deadlines {
    pub(super) fn put(&mut self, at: Instant, due: Due) {
        self.0.insert((at, due));
    }

    pub(super) fn remove(&mut self, at: Instant, due: Due) {
        self.0.remove(&(at, due));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// The first that is due by `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, due)| due)
    }
}
