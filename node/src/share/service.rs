//! The one task that delivers to share groups on this node: applies `state`, and asks the coordinators what it wants asked.
//!
//! It reads no records: whoever serves a fetch does, where it is told to, and comes back with what it has read.

use super::coordinator::{Ask, Told};
use super::error::{ShareError, Unkept};
use super::keeper::Keeper;
use super::request::{Acknowledge, Acquire, Acquired, Kept, Key, Name, Next, Open, Place};
use super::state::{Answer, CallId, Effect, Mark, Reading, SessionId, Settings, State, Write};
use super::{Knows, Properties, Session};
use crate::partition::{Isolation, OffsetQuery, Registry};
use crate::sys::Sys;
use crate::sys::mailbox::Mailbox;
use crate::telemetry::Counter;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// One request. Whoever asked may be gone when it is answered.
pub(super) enum Letter {
    Open {
        open: Open,
        /// Fires when the member's connection is gone.
        gone: CancellationToken,
        reply: oneshot::Sender<Result<Session, ShareError>>,
    },
    Close {
        group: Name,
        member: Name,
    },
    Next {
        key: Key,
        epoch: LeaderEpoch,
        log_start: Offset,
        reply: oneshot::Sender<Result<Next, ShareError>>,
    },
    Acquire {
        session: SessionId,
        key: Key,
        epoch: LeaderEpoch,
        wanted: Acquire,
        reply: oneshot::Sender<Vec<Acquired>>,
    },
    Acknowledge {
        key: Key,
        epoch: LeaderEpoch,
        by: Name,
        batches: Vec<Acknowledge>,
        reply: oneshot::Sender<Result<(), ShareError>>,
    },
}

/// Somebody whose answer has to wait.
enum Reply {
    Next(oneshot::Sender<Result<Next, ShareError>>, watch::Receiver<()>),
    Acknowledge(oneshot::Sender<Result<(), ShareError>>),
}

/// What has come to its end.
enum Done {
    Read(Key, Reading, Result<Kept, ShareError>),
    Written(Name, Vec<(Place, Mark, Result<(), Unkept>)>),
    /// A session is over, or its connection is.
    Gone(SessionId),
}

/// What the task works with.
pub(super) struct Means {
    pub(super) sys: Sys,
    pub(super) registry: Registry,
    pub(super) keeper: Keeper,
    pub(super) settings: Settings,
    pub(super) properties: Properties,
    pub(super) knows: Knows,
    pub(super) counts: Arc<Counts>,
    pub(super) acquired: Counter,
    pub(super) acknowledged: Counter,
}

/// What others see of it without asking.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) sessions: AtomicUsize,
    pub(super) partitions: AtomicUsize,
}

pub(super) struct Service {
    means: Means,
    letters: Mailbox<Letter>,
    state: State,
    /// Who waits for an answer.
    waiting: BTreeMap<CallId, Reply>,
    next_call: u64,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Told where there is news; gone where nothing is delivered any more.
    news: BTreeMap<Key, watch::Sender<()>>,
    /// What ends the watch over a session's connection.
    sessions: BTreeMap<SessionId, CancellationToken>,
}

impl Service {
    pub(super) fn new(means: Means, letters: Mailbox<Letter>) -> Self {
        Self {
            state: State::new(means.settings),
            means,
            letters,
            waiting: BTreeMap::new(),
            next_call: 0,
            work: FuturesUnordered::new(),
            news: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// Runs until nobody can ask any more. May be dropped at any await.
    pub(super) async fn run(mut self) {
        let clock = self.means.sys.clock.clone();
        loop {
            // Locks run out also where there is always something else to do.
            self.state.tick(clock.now());
            self.carry_out();
            let deadline = self.state.next_deadline();
            tokio::select! {
                biased;
                Some(done) = self.work.next(), if !self.work.is_empty() => self.note(done),
                letter = self.letters.recv() => match letter {
                    Some(letter) => self.handle(letter),
                    None => return,
                },
                () = clock.sleep_until_some(deadline) => {}
            }
        }
    }

    fn note(&mut self, done: Done) {
        match done {
            Done::Read(key, reading, result) => self.state.read(&key, reading, result),
            Done::Written(group, results) => self.state.written(&group, results),
            Done::Gone(session) => {
                self.sessions.remove(&session);
                self.state.gone(session);
            }
        }
    }

    fn handle(&mut self, letter: Letter) {
        let now = self.means.sys.clock.now();
        match letter {
            Letter::Open { open, gone, reply } => {
                let opened = self.state.open(&open);
                if let Ok(begun) = &opened
                    && let Some(session) = begun.begun
                {
                    let over = gone.child_token();
                    self.sessions.insert(session, over.clone());
                    self.work.push(Box::pin(async move {
                        over.cancelled_owned().await;
                        Done::Gone(session)
                    }));
                }
                let found = opened.map(|opened| Session {
                    id: opened.session,
                    over: self.sessions.get(&opened.session).cloned().unwrap_or(gone),
                    places: opened.places,
                    refused: opened.refused,
                });
                drop(reply.send(found));
            }
            Letter::Close { group, member } => self.state.close(&group, &member),
            Letter::Next {
                key,
                epoch,
                log_start,
                reply,
            } => {
                let news = self.news.entry(key.clone()).or_default().subscribe();
                let call = self.call(Reply::Next(reply, news));
                self.state.next(call, &key, epoch, log_start);
            }
            Letter::Acquire {
                session,
                key,
                epoch,
                wanted,
                reply,
            } => {
                let acquired = self.state.acquire(now, session, (&key, epoch), &wanted);
                let count: i64 = acquired.iter().map(|it| it.last.since(it.first) + 1).sum();
                self.means.acquired.add(u64::try_from(count).unwrap_or(0));
                drop(reply.send(acquired));
            }
            Letter::Acknowledge {
                key,
                epoch,
                by,
                batches,
                reply,
            } => {
                self.means.acknowledged.add(batches.len() as u64);
                let call = self.call(Reply::Acknowledge(reply));
                self.state.acknowledge(now, call, (&key, epoch), &by, &batches);
            }
        }
    }

    /// Does what the state wants done.
    fn carry_out(&mut self) {
        for effect in self.state.take_effects() {
            match effect {
                Effect::Answer { call, answer } => self.give(call, answer),
                Effect::Read { key, epoch, reading } => self.read(key, epoch, reading),
                Effect::Write { group, writes } => {
                    let keeper = self.means.keeper.clone();
                    self.work.push(Box::pin(async move {
                        let results = write(&keeper, &group, writes).await;
                        Done::Written(group, results)
                    }));
                }
                Effect::News(key) => {
                    if let Some(news) = self.news.get(&key) {
                        news.send_replace(());
                    }
                }
                Effect::Dropped(key) => drop(self.news.remove(&key)),
                Effect::Ended(session) => {
                    if let Some(over) = self.sessions.remove(&session) {
                        over.cancel();
                    }
                }
            }
        }
        let counts = &self.means.counts;
        counts
            .sessions
            .store(self.state.session_count(), Ordering::Relaxed);
        counts
            .partitions
            .store(self.state.held_count(), Ordering::Relaxed);
    }

    /// That nobody waits any more is normal.
    fn give(&mut self, call: CallId, answer: Answer) {
        match (self.waiting.remove(&call), answer) {
            (Some(Reply::Next(reply, news)), Answer::Next(next)) => {
                drop(reply.send(next.map(|from| Next { from, news })));
            }
            (Some(Reply::Acknowledge(reply)), Answer::Acknowledged(result)) => drop(reply.send(result)),
            (None, _) => {}
            (Some(Reply::Next(..) | Reply::Acknowledge(_)), answer) => {
                unreachable!("a call is answered in its own kind, not by {answer:?}")
            }
        }
    }

    fn call(&mut self, reply: Reply) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.waiting.insert(call, reply);
        call
    }

    fn read(&mut self, key: Key, epoch: LeaderEpoch, reading: Reading) {
        let keeper = self.means.keeper.clone();
        let (registry, properties) = (self.means.registry.clone(), self.means.properties.clone());
        let knows = Arc::clone(&self.means.knows);
        self.work.push(Box::pin(async move {
            let kept = match may_begin(&keeper, &key, &knows).await {
                Ok(()) => read(&keeper, &registry, &key, epoch, &properties).await,
                Err(error) => Err(error),
            };
            Done::Read(key, reading, kept)
        }));
    }
}

/// Anybody may name a group: a state comes into being only for one that there is.
async fn may_begin(keeper: &Keeper, key: &Key, knows: &Knows) -> Result<(), ShareError> {
    let told = keeper.ask(&key.group, Ask::See(Some(vec![key.place]))).await?;
    if matches!(told, Told::Seen(seen) if !seen.is_empty()) {
        return Ok(());
    }
    match knows(Name::clone(&key.group)).await {
        Some(true) => Ok(()),
        Some(false) => Err(ShareError::NoGroup),
        None => Err(ShareError::NotAvailable),
    }
}

/// Reads a state. Where nobody has decided yet where the group begins, that is decided and kept.
async fn read(
    keeper: &Keeper,
    registry: &Registry,
    key: &Key,
    epoch: LeaderEpoch,
    properties: &Properties,
) -> Result<Kept, ShareError> {
    let told = keeper
        .ask(&key.group, Ask::Read(vec![(key.place, epoch)]))
        .await?;
    let Told::Read(mut results) = told else {
        return Err(ShareError::NotAvailable);
    };
    let kept = results.pop().map_or(Err(Unkept::Unknown), |(_, result)| result)?;
    if kept.start.is_some() {
        return Ok(kept);
    }
    let partition = registry.get_by_id(key.place.0, key.place.1);
    let partition = partition.ok_or(ShareError::NotLeader)?;
    let query = match properties.now().share_begins_at_start(&key.group) {
        true => OffsetQuery::Earliest,
        false => OffsetQuery::Latest,
    };
    let found = partition
        .list_offset(query, Isolation::Uncommitted, Some(epoch))
        .await;
    let found = found.map_err(|error| {
        tracing::debug!(%error, partition = %partition.name(), "where a share group begins cannot be told");
        ShareError::NotAvailable
    })?;
    let start = found.ok_or(ShareError::NotAvailable)?.offset;
    let kept = Kept {
        start: Some(start),
        ..kept
    };
    let told = keeper
        .ask(&key.group, Ask::Write(vec![(key.place, kept.clone())]))
        .await?;
    match told {
        Told::Done(results) => results.into_iter().try_for_each(|(_, result)| result)?,
        Told::Read(_) | Told::Seen(_) => return Err(ShareError::NotAvailable),
    }
    Ok(kept)
}

async fn write(keeper: &Keeper, group: &Name, writes: Vec<Write>) -> Vec<(Place, Mark, Result<(), Unkept>)> {
    let marks: Vec<(Place, Mark)> = writes.iter().map(|write| (write.place, write.mark)).collect();
    let writes = writes.into_iter().map(|write| {
        let kept = Kept {
            state_epoch: write.state_epoch,
            leader_epoch: write.leader_epoch,
            start: Some(write.start),
            batches: write.batches,
        };
        (write.place, kept)
    });
    let told = keeper.ask(group, Ask::Write(writes.collect())).await;
    let results: BTreeMap<Place, Result<(), Unkept>> = match told {
        Ok(Told::Done(results)) => results.into_iter().collect(),
        Ok(Told::Read(_) | Told::Seen(_)) => BTreeMap::new(),
        Err(unkept) => marks.iter().map(|(place, _)| (*place, Err(unkept))).collect(),
    };
    let result = |(place, mark): (Place, Mark)| {
        let result = results.get(&place).copied();
        (place, mark, result.unwrap_or(Err(Unkept::Unknown)))
    };
    marks.into_iter().map(result).collect()
}
