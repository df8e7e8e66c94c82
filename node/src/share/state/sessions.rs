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
    /// What there was no room for.
    pub(in crate::share) refused: Vec<Place>,
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
/// - `named` counts, of each partition, the sessions that name it.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_member: BTreeMap<(Name, Name), Session>,
    by_id: BTreeMap<SessionId, (Name, Name)>,
    named: BTreeMap<Key, usize>,
    next_id: u64,
}

impl Sessions {
    pub(super) fn count(&self) -> usize {
        self.by_member.len()
    }

    /// Whether any session names a partition.
    pub(super) fn names(&self, key: &Key) -> bool {
        self.named.contains_key(key)
    }

    fn name(&mut self, key: Key) {
        *self.named.entry(key).or_default() += 1;
    }

    /// Whether no session names the partition any more.
    fn unname(&mut self, key: &Key) -> bool {
        let Some(count) = self.named.get_mut(key) else {
            return true;
        };
        *count -= 1;
        if *count == 0 {
            self.named.remove(key);
            return true;
        }
        false
    }

    /// Whether a session is that of a member still.
    pub(super) fn is_current(&self, id: SessionId, group: &Name, member: &Name) -> bool {
        let found = self.by_id.get(&id);
        found.is_some_and(|(in_group, it)| in_group == group && it == member)
    }

    /// Its id, and what no session names any more.
    fn remove(&mut self, member: &(Name, Name)) -> Option<(SessionId, Vec<Key>)> {
        let session = self.by_member.remove(member)?;
        self.by_id.remove(&session.id);
        let keys = session.places.into_iter().map(|place| Key {
            group: Name::clone(&member.0),
            place,
        });
        let unnamed = keys.filter(|key| self.unname(key)).collect();
        Some((session.id, unnamed))
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
            self.end(&member);
            if self.sessions.count() >= self.settings.sessions_max {
                self.sweep(&open.group);
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
                refused: Vec::new(),
                session: id,
                begun,
            });
        }
        if open.epoch != session.epoch {
            return Err(ShareError::InvalidSessionEpoch);
        }
        let forgets = open.forgets.iter().copied();
        let forgotten: Vec<Place> = forgets
            .filter(|place| session.places.shift_remove(place))
            .collect();
        let adds = open.adds.iter().copied();
        let mut added: Vec<Place> = adds.filter(|place| session.places.insert(*place)).collect();
        let excess = session.places.len().saturating_sub(PLACES_MAX);
        let refused = added.split_off(added.len().saturating_sub(excess));
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
        let opened = Opened {
            places: places.copied().collect(),
            refused,
            session: id,
            begun,
        };
        self.rename(&open.group, &forgotten, &added);
        Ok(opened)
    }

    /// A session names others from now on.
    fn rename(&mut self, group: &Name, forgotten: &[Place], added: &[Place]) {
        let key = |place: &Place| Key {
            group: Name::clone(group),
            place: *place,
        };
        for key in added.iter().map(key) {
            self.loose.remove(&key);
            self.sessions.name(key);
        }
        for key in forgotten.iter().map(key) {
            if self.sessions.unname(&key) {
                self.loosen(key);
            }
        }
        self.sweep(group);
    }

    /// A session is over.
    fn end(&mut self, member: &(Name, Name)) {
        let Some((id, unnamed)) = self.sessions.remove(member) else {
            return;
        };
        self.effects.push(Effect::Ended(id));
        for key in unnamed {
            self.loosen(key);
        }
    }

    fn loosen(&mut self, key: Key) {
        if self.held.contains_key(&key) {
            self.loose.insert(key);
        }
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
        self.end(&(Name::clone(group), Name::clone(member)));
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
