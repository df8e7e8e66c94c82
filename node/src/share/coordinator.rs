//! The share coordinator of one partition of `__share_group_state`, for one reign of this node over it: reads the states back,
//! and works requests off, all that have come together, in one write; answers when that is on all in-sync replicas.
//!
//! What ends it is losing the partition, or not knowing any more what the log holds: then nobody is answered, and the next one
//! reads the log anew.

use super::error::Unkept;
use super::ledger::{self, Draft, Ledger};
use super::request::{Kept, Key, Name, Place, Seen};
use super::store::{Record, Replay};
use crate::coordination::{Entry, Log, Unread, each_record};
use crate::partition::{AppendError, Partition};
use crate::sys::Sys;
use crate::sys::mailbox::{Mailbox, Sender, mailbox};
use headwater_protocol::ids::{LeaderEpoch, Offset, TopicId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};

/// Requests that wait for a coordinator; those who send more wait.
const LETTERS_MAX: usize = 256;
/// Letters are taken together until their records take about as much.
const WRITE_BYTES: usize = 256 << 10;
/// About how much one may take. Together it is less than what a batch of the log holds.
const ASK_BYTES_MAX: usize = 512 << 10;

/// About what a state takes of the log beside its group's name, and what each of its batches does.
pub(super) const STATE_BYTES: usize = 128;
pub(super) const BATCH_BYTES: usize = 20;

/// What a coordinator is asked about one group.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// To deliver by the states of partitions, as their leader.
    Read(Vec<(Place, LeaderEpoch)>),
    Write(Vec<(Place, Kept)>),
    /// The group begins anew there.
    Initialize(Vec<(Place, Option<Offset>)>),
    /// None: everything.
    Delete(Option<Vec<Place>>),
    /// None: everything.
    See(Option<Vec<Place>>),
}

/// What is answered, in the order of the request.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Read(Vec<(Place, Result<Kept, Unkept>)>),
    Done(Vec<(Place, Result<(), Unkept>)>),
    Seen(Vec<(Place, Seen)>),
}

/// What an answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// Something was written together with it, which nobody can who is not in office.
    Written,
    /// What the coordinator knew: it may have been deposed.
    Known,
}

type Reply = oneshot::Sender<Result<(Told, Basis), Unkept>>;

/// One request. Whoever asked may be gone when it is answered.
pub(super) enum Letter {
    Ask {
        group: Name,
        ask: Ask,
        reply: Reply,
    },
    /// Topics were deleted.
    ForgetTopics(BTreeSet<TopicId>),
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

    /// Whether it has read its states.
    pub(super) fn is_open(&self) -> bool {
        self.status.is_open.load(Ordering::Acquire)
    }

    /// How many states it keeps.
    pub(super) fn count(&self) -> usize {
        self.status.count.load(Ordering::Relaxed)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, group: Name, ask: Ask) -> Result<(Told, Basis), Unkept> {
        if !self.is_open() {
            return Err(Unkept::Again);
        }
        let (reply, answer) = oneshot::channel();
        let letter = Letter::Ask { group, ask, reply };
        let sent = self.letters.send(letter).await;
        sent.map_err(|_| Unkept::Again)?;
        answer.await.unwrap_or(Err(Unkept::Unknown))
    }

    /// The states of topics that are gone are forgotten; some other time, if there is no room to say so.
    pub(super) fn forget_topics(&self, topics: BTreeSet<TopicId>) {
        if self.letters.try_send(Letter::ForgetTopics(topics)).is_err() {
            tracing::debug!("a share coordinator is busy: states of deleted topics stay");
        }
    }
}

/// What became of a write that the log has an answer to.
type Written = Result<Basis, Unkept>;

/// Why a coordinator ends before its reign does.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Read(#[from] Unread),
    #[error("what the log holds is not known any more: {0}")]
    Write(AppendError),
}

pub(super) struct Coordinator {
    log: Log,
    epoch: LeaderEpoch,
    sys: Sys,
    opened: watch::Sender<u64>,
    status: Arc<Status>,
    letters: Mailbox<Letter>,
    ledger: Ledger,
}

impl Coordinator {
    pub(super) fn new(
        partition: Partition,
        epoch: LeaderEpoch,
        sys: Sys,
        opened: watch::Sender<u64>,
    ) -> (Self, Handle) {
        let (sender, letters) = mailbox(LETTERS_MAX);
        let status = Arc::new(Status::default());
        let coordinator = Self {
            log: Log::new(partition, epoch),
            epoch,
            sys,
            opened,
            status: Arc::clone(&status),
            letters,
            ledger: Ledger::default(),
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
            tracing::warn!(%partition, epoch = %self.epoch, reason = %lost, "states of share groups could not be read");
            return;
        }
        let Err(lost) = self.serve().await else { return };
        tracing::warn!(%partition, epoch = %self.epoch, reason = %lost, "states of share groups will be read anew");
    }

    /// Reads the states back. What this node's log holds is committed sooner or later; nothing is answered before.
    async fn load(&mut self) -> Result<(), Lost> {
        let began = self.sys.clock.now();
        let mut replay = Replay::default();
        self.log
            .read(|batch, from| each_record(batch, from, |key, value| replay.record(key, value)))
            .await?;
        let (entries, unknown) = replay.finish();
        let partition = self.log.name();
        if unknown > 0 {
            tracing::warn!(%partition, unknown, "records are not understood: another kind of broker wrote them");
        }
        self.ledger = Ledger::restored(entries);
        self.status.count.store(self.ledger.count(), Ordering::Relaxed);
        self.status.is_open.store(true, Ordering::Release);
        self.opened.send_modify(|count| *count += 1);
        let took_ms = self.sys.clock.now().duration_since(began).as_millis();
        tracing::debug!(%partition, epoch = %self.epoch, states = self.ledger.count(), took_ms, "states of share groups are read");
        Ok(())
    }

    /// Ends well when nobody can ask any more.
    async fn serve(&mut self) -> Result<(), Lost> {
        while let Some(first) = self.letters.recv().await {
            let mut letters = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(letter) = next {
                match letter {
                    Letter::Ask { group, ask, reply } if ask.bytes(&group) > ASK_BYTES_MAX => {
                        tracing::warn!(%group, "a share coordinator is asked for more than it can write");
                        let _ = reply.send(Err(Unkept::NoRoom));
                    }
                    letter => {
                        bytes += letter.bytes();
                        letters.push(letter);
                    }
                }
                next = match bytes < WRITE_BYTES {
                    true => self.letters.try_recv(),
                    false => None,
                };
            }
            self.work_off(letters).await?;
        }
        Ok(())
    }

    /// Carries letters out in one write; one by one where together they are too large for the log.
    async fn work_off(&mut self, letters: Vec<Letter>) -> Result<(), Lost> {
        let (told, written) = self.attempt(&letters).await?;
        if written == Err(Unkept::NoRoom) && letters.len() > 1 {
            for letter in letters {
                let (told, written) = self.attempt(std::slice::from_ref(&letter)).await?;
                answer([letter], told, written);
            }
            return Ok(());
        }
        answer(letters, told, written);
        Ok(())
    }

    /// What is told of each letter, if the write is done.
    async fn attempt(&mut self, letters: &[Letter]) -> Result<(Vec<Option<Told>>, Written), Lost> {
        let mut draft = Draft::new(&self.ledger, self.sys.clock.unix_ms());
        let mut told = Vec::with_capacity(letters.len());
        for letter in letters {
            match letter {
                Letter::Ask { group, ask, .. } => {
                    let fresh = u32::from_be_bytes(self.sys.random.secret::<4>()).cast_signed();
                    told.push(Some(carry_out(&mut draft, group, ask.clone(), fresh)));
                }
                Letter::ForgetTopics(topics) => {
                    draft.forget_topics(topics);
                    told.push(None);
                }
            }
        }
        let changes = draft.finish();
        let records = ledger::records(&changes);
        let written = self.write(&records).await?;
        if written.is_ok() {
            self.ledger.apply(changes);
            self.status.count.store(self.ledger.count(), Ordering::Relaxed);
        }
        Ok((told, written))
    }

    async fn write(&self, records: &[Record]) -> Result<Written, Lost> {
        if records.is_empty() {
            return Ok(Ok(Basis::Known));
        }
        let appended = self.log.append(records, self.sys.clock.unix_ms()).await;
        let done = match appended {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => Ok(Ok(Basis::Written)),
            // Nothing was appended for certain; everything else the log alone can tell.
            Err(error @ AppendError::TooLarge { .. }) => {
                tracing::debug!(%error, partition = %self.log.name(), "states of share groups are not written");
                Ok(Err(Unkept::NoRoom))
            }
            Err(error @ (AppendError::NotEnoughReplicas { .. } | AppendError::DiskFull)) => {
                tracing::debug!(%error, partition = %self.log.name(), "states of share groups are not written");
                Ok(Err(Unkept::Again))
            }
            Err(error) => Err(Lost::Write(error)),
        }
    }
}

impl Letter {
    fn bytes(&self) -> usize {
        match self {
            Self::Ask { group, ask, .. } => ask.bytes(group),
            Self::ForgetTopics(_) => 0,
        }
    }
}

impl Ask {
    /// About how much of the log it takes.
    fn bytes(&self, group: &Name) -> usize {
        let state = STATE_BYTES + group.len();
        match self {
            Self::Read(places) => state * places.len(),
            Self::Write(writes) => {
                let bytes = |(_, kept): &(Place, Kept)| state + BATCH_BYTES * kept.batches.len();
                writes.iter().map(bytes).sum()
            }
            Self::Initialize(places) => state * places.len(),
            Self::Delete(_) | Self::See(_) => state,
        }
    }
}

/// That nobody waits any more is normal.
fn answer(letters: impl IntoIterator<Item = Letter>, told: Vec<Option<Told>>, written: Written) {
    for (letter, told) in letters.into_iter().zip(told) {
        if let (Letter::Ask { reply, .. }, Some(told)) = (letter, told) {
            let _ = reply.send(written.map(|basis| (told, basis)));
        }
    }
}

/// `fresh` is a number that tells a new state from former ones of its key.
fn carry_out(draft: &mut Draft<'_>, group: &Name, ask: Ask, fresh: i32) -> Told {
    let key = |place: Place| Key {
        group: Name::clone(group),
        place,
    };
    match ask {
        Ask::Read(places) => {
            let read = places.into_iter();
            Told::Read(
                read.map(|(place, epoch)| (place, draft.read(&key(place), epoch, fresh)))
                    .collect(),
            )
        }
        Ask::Write(writes) => {
            let written = writes.into_iter();
            Told::Done(
                written
                    .map(|(place, kept)| (place, draft.write(&key(place), kept)))
                    .collect(),
            )
        }
        Ask::Initialize(places) => {
            let mut done = Vec::with_capacity(places.len());
            for (place, start) in places {
                done.push((place, draft.initialize(&key(place), start, fresh)));
            }
            Told::Done(done)
        }
        Ask::Delete(places) => {
            draft.delete(group, places.as_deref());
            let places = places.unwrap_or_default().into_iter();
            Told::Done(places.map(|place| (place, Ok(()))).collect())
        }
        Ask::See(places) => Told::Seen(draft.seen(group, places.as_deref())),
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
