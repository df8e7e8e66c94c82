//! The coordinator of one partition of `__transaction_state`, for one reign of this node over it: reads the transactional ids back,
//! works requests off one by one, writes, answers when what it wrote is on all in-sync replicas, and has markers written.
//!
//! What ends it is losing the partition, or not knowing any more what the log holds: then everybody who waits is told to look for
//! the coordinator again, and the next one reads the log anew.

use super::error::{NotNow, TransactionError};
use super::markers::Markers;
use super::request::{Add, Begin, Description, End, TransactionalId};
use super::state::{Answer, CallId, Decided, Effect, Now, Settings, State, WriteId};
use super::store::{Record, Replay};
use crate::coordination::{Entry, Log, Unread, each_record};
use crate::partition::{AppendError, Partition};
use crate::sys::Sys;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use headwater_protocol::ids::LeaderEpoch;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};

/// Requests that wait for a coordinator; those who send more wait.
const LETTERS_MAX: usize = 256;
/// Writes on their way; while there are as many nothing new is begun.
const WRITES_MAX: usize = 1024;

type Reply = oneshot::Sender<Answer>;

/// One request. Whoever asked may be gone when it is answered.
pub(super) enum Letter {
    Begin(Begin, Reply),
    Add(Add, Reply),
    End(End, Reply),
    Describe(TransactionalId, oneshot::Sender<Option<Description>>),
    List(oneshot::Sender<Vec<Description>>),
}

/// What others see of a coordinator without asking it.
#[derive(Default)]
struct Status {
    is_open: AtomicBool,
    count: AtomicUsize,
}

/// The way to a coordinator. Cheap to clone.
#[derive(Clone)]
pub(super) struct Handle {
    epoch: LeaderEpoch,
    letters: Sender<Letter>,
    status: Arc<Status>,
}

impl Handle {
    /// That of the partition in which it coordinates.
    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether it has read its transactions.
    pub(super) fn is_open(&self) -> bool {
        self.status.is_open.load(Ordering::Acquire)
    }

    pub(super) fn count(&self) -> usize {
        self.status.count.load(Ordering::Relaxed)
    }

    /// Asks, and waits for the answer. A coordinator that ends answers nobody: another one is to be looked for.
    pub(super) async fn ask<T>(
        &self,
        letter: impl FnOnce(oneshot::Sender<T>) -> Letter,
    ) -> Result<T, TransactionError> {
        if !self.is_open() {
            return Err(TransactionError::Loading);
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.letters.send(letter(reply)).await;
        sent.map_err(|_| TransactionError::NotCoordinator)?;
        answer.await.map_err(|_| TransactionError::NotCoordinator)
    }
}

/// Why a coordinator ends before its reign does.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Read(#[from] Unread),
    #[error("what the log holds is not known any more: {0}")]
    Write(AppendError),
}

type Written = (WriteId, Result<(), AppendError>);

pub(super) struct Coordinator {
    log: Log,
    epoch: LeaderEpoch,
    sys: Sys,
    markers: Markers,
    opened: watch::Sender<u64>,
    status: Arc<Status>,
    letters: Mailbox<Letter>,
    state: State,
    /// Who waits for an answer.
    waiting: BTreeMap<CallId, Reply>,
    next_call: u64,
    writes: FuturesOrdered<BoxFuture<'static, Written>>,
    marking: FuturesUnordered<BoxFuture<'static, Decided>>,
}

impl Coordinator {
    pub(super) fn new(
        partition: Partition,
        epoch: LeaderEpoch,
        settings: Settings,
        sys: Sys,
        markers: Markers,
        opened: watch::Sender<u64>,
    ) -> (Self, Handle) {
        let (sender, letters) = mailbox(LETTERS_MAX);
        let status = Arc::new(Status::default());
        let coordinator = Self {
            log: Log::new(partition, epoch),
            epoch,
            sys,
            markers,
            opened,
            status: Arc::clone(&status),
            letters,
            state: State::new(settings),
            waiting: BTreeMap::new(),
            next_call: 0,
            writes: FuturesOrdered::new(),
            marking: FuturesUnordered::new(),
        };
        let handle = Handle {
            epoch,
            letters: sender,
            status,
        };
        (coordinator, handle)
    }

    /// Returns when the reign is over, or when the log has to be read anew. May be dropped at any await.
    pub(super) async fn run(mut self) {
        let partition = self.log.name();
        if let Err(lost) = self.load().await {
            tracing::warn!(%partition, epoch = %self.epoch, reason = %lost, "transactions could not be read");
            return;
        }
        let Err(lost) = self.serve().await else { return };
        tracing::warn!(%partition, epoch = %self.epoch, reason = %lost, "transactions will be read anew");
    }

    /// Reads the transactional ids back. What this node's log holds is committed sooner or later; nothing is answered before.
    async fn load(&mut self) -> Result<(), Lost> {
        let began = self.sys.clock.now();
        let mut replay = Replay::default();
        self.log
            .read(|batch, from| each_record(batch, from, |key, value| replay.record(key, value)))
            .await?;
        let (known, unknown) = replay.finish();
        if unknown > 0 {
            let partition = self.log.name();
            tracing::warn!(%partition, unknown, "records are not understood: a newer version wrote them");
        }
        let count = known.len();
        self.state.restore(known, self.now());
        self.status.count.store(count, Ordering::Relaxed);
        self.status.is_open.store(true, Ordering::Release);
        self.opened.send_modify(|count| *count += 1);
        let took_ms = self.sys.clock.now().duration_since(began).as_millis();
        tracing::debug!(partition = %self.log.name(), epoch = %self.epoch, transactions = count, took_ms, "transactions are read");
        Ok(())
    }

    /// Ends well when nobody can ask any more.
    async fn serve(&mut self) -> Result<(), Lost> {
        loop {
            self.carry_out().await;
            let may_begin = self.writes.len() < WRITES_MAX;
            let deadline = self.state.next_deadline().filter(|_| may_begin);
            let clock = self.sys.clock.clone();
            tokio::select! {
                biased;
                Some((write, result)) = self.writes.next(), if !self.writes.is_empty() => {
                    let result = match result {
                        Ok(()) => Ok(()),
                        Err(error) => Err(judge(error)?),
                    };
                    self.state.written(write, result, self.now());
                }
                Some(decided) = self.marking.next(), if !self.marking.is_empty() => {
                    self.state.marked(&decided.id, decided.producer, self.now());
                }
                letter = self.letters.recv(), if may_begin => match letter {
                    Some(letter) => self.handle(letter),
                    None => return Ok(()),
                },
                () = clock.sleep_until_some(deadline) => self.state.tick(self.now()),
            }
        }
    }

    /// Does what the state wants done.
    async fn carry_out(&mut self) {
        for effect in self.state.take_effects() {
            match effect {
                Effect::Answer { call, answer } => {
                    if let Some(reply) = self.waiting.remove(&call) {
                        // That nobody waits any more is normal.
                        let _ = reply.send(answer);
                    }
                }
                Effect::Write { write, record } => {
                    let appended = self.log.append(&[record], self.sys.clock.unix_ms()).await;
                    // A refusal keeps its place: the state hears of writes in their order.
                    self.writes.push_back(Box::pin(async move {
                        let result = match appended {
                            Ok(pending) => pending.await.map(|_| ()),
                            Err(error) => Err(error),
                        };
                        (write, result)
                    }));
                }
                Effect::Mark(decided) => {
                    let marking = self.markers.clone().mark(decided, self.epoch);
                    self.marking.push(Box::pin(marking));
                }
            }
        }
        self.status.count.store(self.state.count(), Ordering::Relaxed);
    }

    fn handle(&mut self, letter: Letter) {
        let now = self.now();
        match letter {
            Letter::Begin(begin, reply) => {
                let call = self.call(reply);
                self.state.begin(now, call, &begin);
            }
            Letter::Add(add, reply) => {
                let call = self.call(reply);
                self.state.add(now, call, &add);
            }
            Letter::End(end, reply) => {
                let call = self.call(reply);
                self.state.end(now, call, &end);
            }
            Letter::Describe(id, reply) => drop(reply.send(self.state.describe(&id))),
            Letter::List(reply) => drop(reply.send(self.state.list())),
        }
    }

    fn call(&mut self, reply: Reply) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.waiting.insert(call, reply);
        call
    }

    fn now(&self) -> Now {
        Now {
            at: self.sys.clock.now(),
            unix_ms: self.sys.clock.unix_ms(),
        }
    }
}

impl Entry for Record {
    fn key(&self) -> &[u8] {
        &self.key
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
}

/// Whether nothing was appended for certain; everything else the log alone can tell.
fn judge(error: AppendError) -> Result<NotNow, Lost> {
    match error {
        AppendError::NotEnoughReplicas { .. } | AppendError::DiskFull | AppendError::TooLarge { .. } => {
            Ok(NotNow)
        }
        error => Err(Lost::Write(error)),
    }
}
