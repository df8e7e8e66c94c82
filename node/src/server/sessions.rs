//! Fetch sessions (KIP-227): what a consumer or a replica fetches, remembered, so that it need not say it each time and is told
//! only what changed.
//!
//! Owns the sessions while nobody fetches on them; a fetch borrows its session and gives it back. It is bounded in
//! sessions and in partitions; when full, a session that rested long enough makes room, and otherwise the client
//! goes on without one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use headwater_protocol::ids::{BrokerEpoch, LeaderEpoch, Offset, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::{FetchRequest, FetchTopic, ForgottenTopic};
use headwater_protocol::primitives::Str;
use indexmap::IndexMap;
use tokio::sync::{oneshot, watch};

use crate::partition::{Partition, Watermarks};
use crate::sys::random::Random;

/// All sessions together remember this many partitions at most; each is a few hundred bytes.
const PARTITIONS_MAX: usize = 200_000;
/// A session that was not used for this long makes room for another.
const REST: Duration = Duration::from_secs(120);

/// `session_epoch` of a request that wants no session, and of one that wants a new one.
const EPOCH_NONE: i32 = -1;
const EPOCH_NEW: i32 = 0;

/// A topic as the client's version names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TopicKey {
    Name(Str),
    Id(TopicId),
}

/// What the client wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) offset: Offset,
    pub(super) bytes_max: usize,
    pub(super) current_epoch: Option<LeaderEpoch>,
    pub(super) last_epoch: Option<LeaderEpoch>,
    /// Where the log of whoever fetches starts; -1: it is no replica.
    pub(super) log_start: Offset,
}

/// What the client was told last; it is not told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) code: ErrorCode,
    pub(super) high_watermark: Offset,
    pub(super) log_start: Offset,
}

/// One partition of a session.
pub(super) struct Slot {
    pub(super) wanted: Wanted,
    /// The partition here, once it was found.
    pub(super) partition: Option<(Partition, watch::Receiver<Watermarks>)>,
    pub(super) told: Option<Told>,
    /// A replica was given something it has to deal with: nothing more is said of the partition until the replica names
    /// it again. So it may ask for the others meanwhile, and nothing is sent twice.
    pub(super) resting: bool,
    /// Dropping it ends the watch over the partition.
    watched: Option<oneshot::Sender<Infallible>>,
}

/// A partition of a session.
pub(super) type SlotKey = (TopicKey, i32);

/// Ends with the slot when its partition moves; with None when nobody wants to know any more.
type Watching = Pin<Box<dyn Future<Output = Option<SlotKey>> + Send>>;

/// What one consumer or replica fetches. A fetch costs as much as there is to look at: what it names, and what moved.
///
/// - `id` is 0 for a fetch without a session.
/// - Between two fetches, every slot is due, watched, or rests until it is named.
pub(super) struct FetchSession {
    pub(super) id: i32,
    epoch: i32,
    by_id: bool,
    pub(super) slots: IndexMap<SlotKey, Slot>,
    /// What the next fetch looks at, whether it moves or not.
    due: BTreeSet<SlotKey>,
    moving: FuturesUnordered<Watching>,
    /// The incarnation of the replica that fetched last.
    incarnation: Option<BrokerEpoch>,
    /// The slot that is served first: behind the last that gave records, so that a busy partition starves nobody.
    pub(super) first: usize,
}

impl FetchSession {
    fn new(id: i32, by_id: bool) -> Self {
        Self {
            id,
            epoch: EPOCH_NEW,
            by_id,
            slots: IndexMap::new(),
            due: BTreeSet::new(),
            moving: FuturesUnordered::new(),
            incarnation: None,
            first: 0,
        }
    }

    /// Takes over what a request adds or changes.
    fn want(&mut self, topics: Vec<FetchTopic>, keep: Keep) {
        for FetchTopic {
            topic,
            topic_id,
            partitions,
            ..
        } in topics
        {
            let key = topic_key(self.by_id, topic, topic_id.into(), keep);
            for partition in partitions {
                let epoch = |epoch: i32| (epoch >= 0).then_some(LeaderEpoch(epoch));
                let wanted = Wanted {
                    offset: Offset(partition.fetch_offset),
                    bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                    current_epoch: epoch(partition.current_leader_epoch),
                    last_epoch: epoch(partition.last_fetched_epoch),
                    log_start: Offset(partition.log_start_offset),
                };
                let slot = || Slot {
                    wanted,
                    partition: None,
                    told: None,
                    resting: false,
                    watched: None,
                };
                let key = (key.clone(), partition.partition);
                let slot = self.slots.entry(key.clone()).or_insert_with(slot);
                (slot.wanted, slot.resting) = (wanted, false);
                self.due.insert(key);
            }
        }
    }

    fn forget(&mut self, topics: Vec<ForgottenTopic>) {
        for ForgottenTopic {
            topic,
            topic_id,
            partitions,
            ..
        } in topics
        {
            let key = topic_key(self.by_id, topic, topic_id.into(), Keep::Briefly);
            for partition in partitions {
                let key = (key.clone(), partition);
                self.slots.swap_remove(&key);
                self.due.remove(&key);
            }
        }
        if self.first >= self.slots.len() {
            self.first = 0;
        }
    }

    /// Who fetches: another incarnation says all anew, even where nothing moved.
    pub(super) fn fetches_as(&mut self, incarnation: Option<BrokerEpoch>) {
        if self.incarnation != incarnation {
            self.due.extend(self.slots.keys().cloned());
            self.incarnation = incarnation;
        }
    }

    /// The slots that are to be looked at now, in the order in which they are served.
    pub(super) fn take_due(&mut self) -> Vec<usize> {
        let (moving, due) = (&mut self.moving, &mut self.due);
        let moved = async move {
            while let Some(key) = moving.next().await {
                due.extend(key);
            }
        };
        // All that has moved by now, however much that is: the rest is not waited for.
        let _ = tokio::task::unconstrained(moved).now_or_never();
        let (count, first) = (self.slots.len(), self.first);
        let mut due = Vec::with_capacity(self.due.len());
        for key in std::mem::take(&mut self.due) {
            let Some((at, _, slot)) = self.slots.get_full_mut(&key) else {
                continue;
            };
            slot.watched = None;
            if !slot.resting {
                due.push(at);
            }
        }
        due.sort_unstable_by_key(|at| (at + count - first) % count);
        due
    }

    /// The next fetch looks at the slot.
    pub(super) fn look_again(&mut self, at: usize) {
        if let Some((key, _)) = self.slots.get_index(at) {
            self.due.insert(key.clone());
        }
    }

    /// The slot is looked at again when its partition moves.
    pub(super) fn watch(&mut self, at: usize) {
        let Some((key, slot)) = self.slots.get_index_mut(at) else {
            return;
        };
        let (Some((_, watermarks)), None) = (&slot.partition, &slot.watched) else {
            return;
        };
        let (mut watermarks, key) = (watermarks.clone(), key.clone());
        let (watched, unwatched) = oneshot::channel();
        slot.watched = Some(watched);
        self.moving.push(Box::pin(async move {
            tokio::select! {
                biased;
                _ = unwatched => None,
                // The sender goes with the partition: that is news as well.
                _ = watermarks.changed() => Some(key),
            }
        }));
    }

    /// The next slot whose partition moves. Cancel-safe.
    pub(super) async fn moved(&mut self) -> usize {
        while let Some(moved) = self.moving.next().await {
            let slot = moved.and_then(|key| self.slots.get_full_mut(&key));
            let Some((at, _, slot)) = slot else { continue };
            slot.watched = None;
            if !slot.resting {
                return at;
            }
        }
        std::future::pending().await
    }
}

/// Whether a name may keep the request's frame alive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Briefly,
    Long,
}

fn topic_key(by_id: bool, name: Str, id: TopicId, keep: Keep) -> TopicKey {
    match (by_id, keep) {
        (true, _) => TopicKey::Id(id),
        (false, Keep::Briefly) => TopicKey::Name(name),
        (false, Keep::Long) => TopicKey::Name(name.detached()),
    }
}

/// Which answer a fetch gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything asked.
    Full,
    /// What the client does not know yet.
    News,
}

/// All sessions of the node.
pub(super) struct Cache {
    sessions: Mutex<BTreeMap<i32, Entry>>,
    sessions_max: usize,
    partitions_max: usize,
    random: Random,
}

struct Entry {
    /// Absent while a fetch has it.
    session: Option<FetchSession>,
    partitions: usize,
    used: Instant,
}

/// A session in use. Dropped without `give_back`, the session is gone, and the client begins a new one.
pub(super) struct Lease<'a> {
    cache: &'a Cache,
    session: Option<FetchSession>,
}

impl Cache {
    pub(super) fn new(sessions_max: usize, random: Random) -> Self {
        Self {
            sessions: Mutex::default(),
            sessions_max,
            partitions_max: PARTITIONS_MAX,
            random,
        }
    }

    /// Finds or makes the session of a request and takes over what it wants.
    pub(super) fn begin(
        &self,
        request: &mut FetchRequest,
        by_id: bool,
        now: Instant,
    ) -> Result<(Lease<'_>, Scope), ErrorCode> {
        let topics = std::mem::take(&mut request.topics);
        let forgotten = std::mem::take(&mut request.forgotten_topics_data);
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch != EPOCH_NONE && epoch != EPOCH_NEW {
            let mut session = self.take(id, epoch, by_id, now)?;
            session.forget(forgotten);
            session.want(topics, Keep::Long);
            return Ok((
                Lease {
                    cache: self,
                    session: Some(session),
                },
                Scope::News,
            ));
        }
        self.lock().remove(&id);
        let partitions = topics.iter().map(|topic| topic.partitions.len()).sum();
        let wants_session = epoch == EPOCH_NEW && partitions > 0;
        let id = if wants_session {
            self.reserve(partitions, now).unwrap_or(0)
        } else {
            0
        };
        let mut session = FetchSession::new(id, by_id);
        session.want(topics, if id == 0 { Keep::Briefly } else { Keep::Long });
        Ok((
            Lease {
                cache: self,
                session: Some(session),
            },
            Scope::Full,
        ))
    }

    fn take(&self, id: i32, epoch: i32, by_id: bool, now: Instant) -> Result<FetchSession, ErrorCode> {
        let mut sessions = self.lock();
        let entry = sessions
            .get_mut(&id)
            .ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        // One that is in use is a request ahead of this one.
        let session = entry
            .session
            .as_ref()
            .ok_or(ErrorCode::INVALID_FETCH_SESSION_EPOCH)?;
        if session.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        entry.used = now;
        entry.session.take().ok_or(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
    }

    /// Makes room for a session; `None` when there is none.
    fn reserve(&self, partitions: usize, now: Instant) -> Option<i32> {
        let mut sessions = self.lock();
        let full = |sessions: &BTreeMap<i32, Entry>| {
            let held: usize = sessions.values().map(|entry| entry.partitions).sum();
            sessions.len() >= self.sessions_max || held + partitions > self.partitions_max
        };
        while full(&sessions) {
            let resting = sessions.iter().filter(|(_, entry)| entry.session.is_some());
            let (oldest, entry) = resting.min_by_key(|(_, entry)| entry.used)?;
            if now.duration_since(entry.used) < REST {
                return None;
            }
            let oldest = *oldest;
            sessions.remove(&oldest);
        }
        let id = loop {
            let id = i32::try_from(self.random.below(i32::MAX as u64) + 1).expect("below 2^31");
            if !sessions.contains_key(&id) {
                break id;
            }
        };
        sessions.insert(
            id,
            Entry {
                session: None,
                partitions,
                used: now,
            },
        );
        Some(id)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Entry>> {
        // Every change below is complete in itself.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    pub(super) fn session(&mut self) -> &mut FetchSession {
        self.session
            .as_mut()
            .expect("a lease has its session until it is given back")
    }

    /// Ends the fetch: the next one carries the next epoch. Answers the id to tell the client: 0 when there is no
    /// session, or nothing left to remember.
    pub(super) fn give_back(mut self) -> i32 {
        let Some(mut session) = self.session.take() else {
            return 0;
        };
        let id = session.id;
        if id == 0 {
            return 0;
        }
        let mut sessions = self.cache.lock();
        let partitions = session.slots.len();
        let before = sessions.get(&id).map_or(0, |entry| entry.partitions);
        // One that grew by its later fetches must not pass the limit either: its client begins a new one.
        let outgrown = partitions > before && {
            let held: usize = sessions.values().map(|entry| entry.partitions).sum();
            held - before + partitions > self.cache.partitions_max
        };
        if partitions == 0 || outgrown {
            sessions.remove(&id);
            return 0;
        }
        session.epoch = if session.epoch == i32::MAX {
            1
        } else {
            session.epoch + 1
        };
        if let Some(entry) = sessions.get_mut(&id) {
            entry.partitions = partitions;
            entry.session = Some(session);
        }
        id
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            self.cache.lock().remove(&session.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Clock;
    use headwater_protocol::kafka::fetch::FetchPartition;

    fn request(id: i32, epoch: i32, partitions: &[i32], forgotten: &[i32]) -> FetchRequest {
        let partition = |index: &i32| FetchPartition {
            partition: *index,
            ..FetchPartition::default()
        };
        let topics = vec![FetchTopic {
            topic: Str::from_static("t"),
            partitions: partitions.iter().map(partition).collect(),
            ..FetchTopic::default()
        }];
        let forgotten = ForgottenTopic {
            topic: Str::from_static("t"),
            partitions: forgotten.to_vec(),
            ..ForgottenTopic::default()
        };
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            topics: if partitions.is_empty() { Vec::new() } else { topics },
            forgotten_topics_data: vec![forgotten],
            ..FetchRequest::default()
        }
    }

    /// The indexes the session fetches, the scope, and the id it goes on with.
    fn fetch(
        cache: &Cache,
        mut request: FetchRequest,
        now: Instant,
    ) -> Result<(Vec<i32>, Scope, i32), ErrorCode> {
        let (mut lease, scope) = cache.begin(&mut request, false, now)?;
        let mut slots: Vec<i32> = lease.session().slots.keys().map(|(_, index)| *index).collect();
        slots.sort_unstable();
        Ok((slots, scope, lease.give_back()))
    }

    #[test]
    fn a_session_remembers_what_is_fetched() {
        let now = Clock::manual(0).now();
        let cache = Cache::new(2, Random::seeded(1));
        let (slots, scope, id) = fetch(&cache, request(0, 0, &[0, 1, 2], &[]), now).unwrap();
        assert_eq!((slots, scope), (vec![0, 1, 2], Scope::Full));
        assert_ne!(id, 0);
        let next = fetch(&cache, request(id, 1, &[3], &[1]), now);
        assert_eq!(next, Ok((vec![0, 2, 3], Scope::News, id)));
        assert_eq!(
            fetch(&cache, request(id, 2, &[], &[]), now),
            Ok((vec![0, 2, 3], Scope::News, id))
        );
        for (epoch, code) in [
            (2, ErrorCode::INVALID_FETCH_SESSION_EPOCH),
            (4, ErrorCode::INVALID_FETCH_SESSION_EPOCH),
        ] {
            assert_eq!(fetch(&cache, request(id, epoch, &[], &[]), now), Err(code));
        }
        assert_eq!(
            fetch(&cache, request(id + 1, 3, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        // A client that forgets everything has no session any more.
        assert_eq!(
            fetch(&cache, request(id, 3, &[], &[0, 2, 3]), now),
            Ok((vec![], Scope::News, 0))
        );
        assert_eq!(
            fetch(&cache, request(id, 4, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }

    #[test]
    fn a_fetch_looks_at_what_it_names_and_at_what_is_left_to_say() {
        let now = Clock::manual(0).now();
        let cache = Cache::new(2, Random::seeded(1));
        let due = |mut request: FetchRequest, look_again: Option<usize>, incarnation: i64| {
            let (mut lease, _) = cache.begin(&mut request, false, now).unwrap();
            let session = lease.session();
            session.fetches_as(Some(BrokerEpoch(incarnation)));
            let due = session.take_due();
            look_again.into_iter().for_each(|at| session.look_again(at));
            (due, lease.give_back())
        };
        let (first, id) = due(request(0, 0, &[0, 1, 2, 3], &[]), None, 1);
        assert_eq!(first, [0, 1, 2, 3]);
        assert_eq!(due(request(id, 1, &[], &[]), None, 1).0, [0; 0]);
        assert_eq!(due(request(id, 2, &[2], &[]), Some(1), 1).0, [2]);
        assert_eq!(due(request(id, 3, &[3], &[]), Some(1), 1).0, [1, 3]);
        // The last one took the place of the forgotten one.
        assert_eq!(due(request(id, 4, &[], &[1]), None, 1).0, [0; 0]);
        assert_eq!(due(request(id, 5, &[3], &[]), None, 1).0, [1]);
        // Another incarnation of a replica says everything anew.
        assert_eq!(due(request(id, 6, &[], &[]), None, 2).0, [0, 1, 2]);
    }

    #[test]
    fn a_final_fetch_closes_and_a_new_one_replaces_the_session() {
        let now = Clock::manual(0).now();
        let cache = Cache::new(9, Random::seeded(1));
        let (_, _, first) = fetch(&cache, request(0, 0, &[0], &[]), now).unwrap();
        let (_, scope, second) = fetch(&cache, request(first, 0, &[0], &[]), now).unwrap();
        assert_eq!(scope, Scope::Full);
        assert_eq!(
            fetch(&cache, request(first, 1, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        assert_eq!(
            fetch(&cache, request(second, -1, &[5], &[]), now),
            Ok((vec![5], Scope::Full, 0))
        );
        assert_eq!(
            fetch(&cache, request(second, 1, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }

    #[test]
    fn a_full_cache_declines_until_a_session_has_rested() {
        let now = Clock::manual(0).now();
        let cache = Cache::new(1, Random::seeded(1));
        let (_, _, id) = fetch(&cache, request(0, 0, &[0], &[]), now).unwrap();
        assert_eq!(
            fetch(&cache, request(0, 0, &[0], &[]), now + REST / 2).unwrap().2,
            0
        );
        let (_, _, other) = fetch(&cache, request(0, 0, &[0], &[]), now + REST).unwrap();
        assert_ne!(other, 0);
        assert_eq!(
            fetch(&cache, request(id, 1, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }

    #[test]
    fn a_session_that_outgrows_the_limit_is_over() {
        let now = Clock::manual(0).now();
        let mut cache = Cache::new(9, Random::seeded(1));
        cache.partitions_max = 4;
        let (_, _, first) = fetch(&cache, request(0, 0, &[0, 1], &[]), now).unwrap();
        let (_, _, second) = fetch(&cache, request(0, 0, &[0], &[]), now).unwrap();
        assert_eq!(
            fetch(&cache, request(second, 1, &[1], &[]), now),
            Ok((vec![0, 1], Scope::News, second))
        );
        assert_eq!(
            fetch(&cache, request(second, 2, &[2], &[]), now),
            Ok((vec![0, 1, 2], Scope::News, 0))
        );
        assert_eq!(
            fetch(&cache, request(second, 3, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
        // The others go on.
        assert_eq!(
            fetch(&cache, request(first, 1, &[], &[]), now),
            Ok((vec![0, 1], Scope::News, first))
        );
    }

    #[test]
    fn a_session_in_use_is_nobody_elses_and_goes_with_a_lost_fetch() {
        let now = Clock::manual(0).now();
        let cache = Cache::new(9, Random::seeded(1));
        let (_, _, id) = fetch(&cache, request(0, 0, &[0], &[]), now).unwrap();
        let mut ahead = request(id, 1, &[], &[]);
        let (lease, _) = cache.begin(&mut ahead, false, now).unwrap();
        assert_eq!(
            fetch(&cache, request(id, 1, &[], &[]), now),
            Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH)
        );
        drop(lease);
        assert_eq!(
            fetch(&cache, request(id, 2, &[], &[]), now),
            Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)
        );
    }
}
