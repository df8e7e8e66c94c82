//! Share sessions: what a member fetches from this node, so that it need not say it each time, and whether it is there.
//!
//! Owns their epochs, by which a member and this node know that they speak of the same thing.

use super::super::error::ShareError;
use super::super::request::{Key, Name, Open, Place};
use super::{Effect, Phase, State};
use indexmap::IndexSet;
use std::collections::BTreeMap;

/// Partitions that one session may name.
const PLACES_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::share) struct SessionId(u64);

/// A session as a request finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::share) struct Opened {
    /// What is fetched, in the order in which it is this time.
    pub(in crate::share) places: Vec<Place>,
    pub(in crate::share) session: SessionId,
    /// Set for a new one.
    pub(in crate::share) begun: Option<SessionId>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// That of the member's next request.
    epoch: i32,
    places: IndexSet<Place>,
    /// Where the next fetch begins, so that everybody has his turn.
    first: usize,
}

/// - `by_id` and `by_member` have the same sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_member: BTreeMap<(Name, Name), Session>,
    by_id: BTreeMap<SessionId, (Name, Name)>,
    next_id: u64,
}

impl Sessions {
    pub(super) fn count(&self) -> usize {
        self.by_member.len()
    }

    pub(super) fn has_any_of(&self, group: &Name) -> bool {
        let first = (Name::clone(group), Name::from(""));
        let found = self.by_member.range(first..).next();
        found.is_some_and(|((it, _), _)| it == group)
    }

    /// Whether a session is that of a member still.
    pub(super) fn is_current(&self, id: SessionId, group: &Name, member: &Name) -> bool {
        let found = self.by_id.get(&id);
        found.is_some_and(|(in_group, it)| in_group == group && it == member)
    }

    fn remove(&mut self, member: &(Name, Name)) -> Option<SessionId> {
        let session = self.by_member.remove(member)?;
        self.by_id.remove(&session.id);
        Some(session.id)
    }
}

impl State {
    /// Finds the session of a request, or begins it. One that ends does so by `close`, when all else is done.
    pub(in crate::share) fn open(&mut self, open: &Open) -> Result<Opened, ShareError> {
        let member = (Name::clone(&open.group), Name::clone(&open.member));
        let mut begun = None;
        if open.epoch == Open::BEGINS {
            if !open.may_begin {
                return Err(ShareError::InvalidSessionEpoch);
            }
            // Whoever begins anew has lost count. What it has acquired it may still speak of.
            if let Some(before) = self.sessions.remove(&member) {
                self.effects.push(Effect::Ended(before));
            }
            if self.sessions.count() >= self.settings.sessions_max {
                return Err(ShareError::SessionLimit);
            }
            begun = Some(self.begin(member.clone()));
        }
        let session = self.sessions.by_member.get_mut(&member);
        let session = session.ok_or(ShareError::SessionNotFound)?;
        let id = session.id;
        if open.epoch == Open::ENDS {
            return Ok(Opened {
                places: Vec::new(),
                session: id,
                begun,
            });
        }
        if open.epoch != session.epoch {
            return Err(ShareError::InvalidSessionEpoch);
        }
        for place in &open.forgets {
            session.places.shift_remove(place);
        }
        session.places.extend(open.adds.iter().copied());
        session.places.truncate(PLACES_MAX);
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        let count = session.places.len();
        let first = session.first.min(count);
        session.first = if count == 0 { 0 } else { (first + 1) % count };
        let places = session
            .places
            .iter()
            .skip(first)
            .chain(session.places.iter().take(first));
        Ok(Opened {
            places: places.copied().collect(),
            session: id,
            begun,
        })
    }

    fn begin(&mut self, member: (Name, Name)) -> SessionId {
        let id = SessionId(self.sessions.next_id);
        self.sessions.next_id += 1;
        let session = Session {
            id,
            epoch: Open::BEGINS,
            places: IndexSet::new(),
            first: 0,
        };
        self.sessions.by_member.insert(member.clone(), session);
        self.sessions.by_id.insert(id, member);
        id
    }

    /// A member ends its session: what it has acquired is for others.
    pub(in crate::share) fn close(&mut self, group: &Name, member: &Name) {
        let session = (Name::clone(group), Name::clone(member));
        if let Some(id) = self.sessions.remove(&session) {
            self.effects.push(Effect::Ended(id));
        }
        self.release(group, member);
    }

    /// The connection of a session is gone, and the member with it.
    pub(in crate::share) fn gone(&mut self, id: SessionId) {
        if let Some((group, member)) = self.sessions.by_id.get(&id).cloned() {
            self.close(&group, &member);
        }
    }

    fn release(&mut self, group: &Name, member: &Name) {
        let rules = self.settings.rules;
        let keys: Vec<Key> = self.of_group(group).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(held) = self.held.get_mut(&key)
                && let Phase::Ready(ready) = &mut held.phase
                && ready.delivery.release(member, &rules)
            {
                self.effects.push(Effect::News(key));
            }
        }
        self.advance(group);
        self.sweep(group);
    }
}
