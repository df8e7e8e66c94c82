//! Reads the partitions of a share fetch where their group stands, and has what was read given to the member.
//!
//! Owns what the fetch may take of memory: no batch is read without room for it. A record that is given and not told to the
//! member would be locked for nothing, so nothing is given before there is enough to be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, select_all};
use futures_util::stream::FuturesUnordered;
use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::record::{BatchView, Batches};
use tokio::sync::watch;

use super::super::share::{Member, locate};
use crate::partition::{Isolation, Partition, ReadError, ReadOutcome, ReadRequest, Watermarks};
use crate::server::errors;
use crate::server::request::Context;
use crate::share::{Acquire, Acquired, Name, Next, Place, Session, ShareError, Span};
use crate::sys::budget::Permit;

/// What one read takes at most.
const READ_BYTES: usize = 1 << 20;
/// How long a look waits for where the group stands, in all partitions together; also where the time of the fetch is up, so
/// that what is known is told.
const STATE_PATIENCE: Duration = Duration::from_millis(100);
/// How often is looked again at once where what was read went to others.
const ROUNDS_MAX: usize = 16;

/// How much may be answered, and how.
pub(super) struct Limits {
    pub(super) bytes_min: usize,
    pub(super) bytes_max: usize,
    pub(super) records_max: usize,
    pub(super) is_strict: bool,
    pub(super) batch_size: usize,
    pub(super) wait_ms: u64,
}

/// What is told of one partition.
#[derive(Default)]
pub(super) struct Found {
    pub(super) code: ErrorCode,
    /// Whole batches, of which the acquired records are some.
    pub(super) records: Vec<Bytes>,
    pub(super) acquired: Vec<Acquired>,
}

impl Found {
    fn of(code: ErrorCode) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }
}

/// A partition that is led here, as it was before anybody asked where the group stands.
struct Led {
    place: Place,
    partition: Partition,
    epoch: LeaderEpoch,
    marks: Watermarks,
    watermarks: watch::Receiver<Watermarks>,
}

/// What was read of one partition and is nobody's yet.
struct Candidate {
    place: Place,
    epoch: LeaderEpoch,
    from: Offset,
    batches: Vec<(Span, Bytes)>,
    bytes: usize,
    permit: Permit,
}

/// Ends when a partition may have something new.
type Watch = BoxFuture<'static, ()>;

/// One look at all partitions.
#[derive(Default)]
struct Round {
    candidates: Vec<Candidate>,
    errors: BTreeMap<Place, ErrorCode>,
    watches: Vec<Watch>,
    bytes: usize,
}

pub(super) struct Gather<'a> {
    context: &'a Context,
    member: &'a Member,
    session: &'a Session,
    limits: Limits,
    isolation: Isolation,
    deadline: Instant,
    found: BTreeMap<Place, Found>,
    permit: Option<Permit>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        context: &'a Context,
        member: &'a Member,
        session: &'a Session,
        limits: Limits,
    ) -> Self {
        Self {
            context,
            member,
            session,
            isolation: context.services().shares.isolation(&member.group),
            deadline: context.received + Duration::from_millis(limits.wait_ms),
            limits,
            found: session
                .refused
                .iter()
                .map(|place| (*place, Found::of(ErrorCode::INVALID_REQUEST)))
                .collect(),
            permit: None,
        }
    }

    /// What the member is given, with the memory that it takes. Ends when its session does.
    pub(super) async fn run(mut self) -> (BTreeMap<Place, Found>, Option<Permit>) {
        let mut rounds = 0;
        loop {
            let mut round = self.look(&self.session.places).await;
            let is_over = self.context.services().sys.clock.now() >= self.deadline;
            let had_candidates = !round.candidates.is_empty();
            if is_over || !round.errors.is_empty() || round.bytes >= self.limits.bytes_min {
                for candidate in std::mem::take(&mut round.candidates) {
                    self.acquire(candidate).await;
                }
            }
            for (place, code) in round.errors {
                self.found.entry(place).or_default().code = code;
            }
            if is_over || !self.found.is_empty() {
                return (self.found, self.permit);
            }
            rounds += 1;
            let looks_again = had_candidates && round.candidates.is_empty() && rounds < ROUNDS_MAX;
            // What was read is nobody's: its memory is for others while this one waits.
            round.candidates.clear();
            if !looks_again && !self.wait(round.watches).await {
                return (self.found, self.permit);
            }
        }
    }

    /// Whether there is anything to look for again.
    async fn wait(&self, watches: Vec<Watch>) -> bool {
        let clock = &self.context.services().sys.clock;
        let news = async {
            match watches.is_empty() {
                true => std::future::pending().await,
                false => drop(select_all(watches).await),
            }
        };
        tokio::select! {
            biased;
            () = self.session.over.cancelled() => false,
            () = news => true,
            () = clock.sleep_until(self.deadline) => true,
        }
    }

    async fn look(&self, places: &[Place]) -> Round {
        let mut round = Round::default();
        let shares = Arc::new(self.context.services().shares.clone());
        let mut asked = FuturesUnordered::new();
        for (index, place) in places.iter().enumerate() {
            let (partition, epoch) = match locate(self.context, *place) {
                Ok(led) => led,
                Err(code) => {
                    round.errors.insert(*place, code);
                    continue;
                }
            };
            let mut watermarks = partition.watermarks();
            // Seen before anything else is: what changes from here on is looked at again.
            let marks = *watermarks.borrow_and_update();
            let led = Led {
                place: *place,
                partition,
                epoch,
                marks,
                watermarks,
            };
            let (shares, key) = (Arc::clone(&shares), self.member.key(*place));
            asked.push(async move {
                let next = shares.next(key, epoch, marks.log_start).await;
                (index, led, next)
            });
        }
        let mut known = self.known(&mut asked).await;
        known.sort_unstable_by_key(|(index, ..)| *index);
        if !asked.is_empty() {
            // What is still being read is looked at when it is there.
            round
                .watches
                .push(Box::pin(async move { drop(asked.next().await) }));
        }
        for (_, led, next) in known {
            let place = led.place;
            let looked = match next {
                Ok(next) => self.look_at(led, next, &mut round).await,
                // It is read anew at the next fetch.
                Err(ShareError::NotAvailable) => Ok(None),
                Err(error) => Err(errors::of_share(&error)),
            };
            match looked {
                Ok(Some(candidate)) => {
                    round.bytes += candidate.bytes;
                    round.candidates.push(candidate);
                }
                Ok(None) => {}
                Err(code) => drop(round.errors.insert(place, code)),
            }
        }
        round
    }

    /// What is answered of all that was asked at the same time, or soon enough.
    async fn known<F: Future>(&self, asked: &mut FuturesUnordered<F>) -> Vec<F::Output> {
        let clock = &self.context.services().sys.clock;
        let mut patience = std::pin::pin!(clock.sleep(STATE_PATIENCE));
        let mut over = std::pin::pin!(self.session.over.cancelled());
        let mut known = Vec::with_capacity(asked.len());
        loop {
            tokio::select! {
                biased;
                () = &mut over => return known,
                answer = asked.next() => match answer {
                    Some(answer) => known.push(answer),
                    None => return known,
                },
                () = &mut patience => return known,
            }
        }
    }

    /// Reads one partition where its group stands, if there is room for it.
    async fn look_at(&self, led: Led, next: Next, round: &mut Round) -> Result<Option<Candidate>, ErrorCode> {
        let Led {
            place,
            partition,
            epoch,
            marks,
            mut watermarks,
        } = led;
        let Next { from, mut news } = next;
        round.watches.push(Box::pin(async move {
            tokio::select! {
                _ = watermarks.changed() => {}
                _ = news.changed() => {}
            }
        }));
        let visible = match self.isolation {
            Isolation::Committed => marks.last_stable,
            Isolation::Uncommitted => marks.high_watermark,
        };
        let room = self.limits.bytes_max.saturating_sub(round.bytes).min(READ_BYTES);
        let Some(from) = from.filter(|from| *from < visible) else {
            return Ok(None);
        };
        if room == 0 {
            return Ok(None);
        }
        let Some(mut permit) = self.ask(room, round.bytes == 0).await else {
            return Ok(None);
        };
        let request = ReadRequest {
            from,
            max_bytes: room.min(permit.bytes()),
            isolation: self.isolation,
            min_one: round.bytes == 0,
            current_epoch: Some(epoch),
            up_to_log_end: false,
        };
        let outcome = match partition.read(request).await {
            Ok(outcome) => outcome,
            // Where its group stands is found out anew.
            Err(ReadError::OutOfRange { .. }) => return Ok(None),
            Err(error) => return Err(errors::of_read(&error)),
        };
        permit.shrink_to(outcome.bytes);
        let batches = batches(&partition, &outcome)?;
        Ok((!batches.is_empty()).then_some(Candidate {
            place,
            epoch,
            from,
            batches,
            bytes: outcome.bytes,
            permit,
        }))
    }

    /// Takes memory for a read. When there is none, a fetch that has something already goes without.
    async fn ask(&self, room: usize, waits: bool) -> Option<Permit> {
        let answers = &self.context.caller.shared.answers;
        if let Some(permit) = answers.try_acquire(room.max(1)) {
            return Some(permit);
        }
        if !waits {
            return None;
        }
        tokio::select! {
            biased;
            () = self.session.over.cancelled() => None,
            permit = answers.acquire(room) => Some(permit),
        }
    }

    /// Has what was read given to the member, as far as it is free still, and keeps the batches that are.
    async fn acquire(&mut self, candidate: Candidate) {
        let given: usize = self.found.values().map(records_of).sum();
        let records_max = self.limits.records_max.saturating_sub(given);
        if records_max == 0 {
            return;
        }
        let Candidate {
            place,
            epoch,
            from,
            batches,
            mut permit,
            ..
        } = candidate;
        let wanted = Acquire {
            by: Name::clone(&self.member.id),
            from,
            spans: batches.iter().map(|(span, _)| *span).collect(),
            records_max,
            is_strict: self.limits.is_strict,
            batch_size: self.limits.batch_size,
        };
        let shares = &self.context.services().shares;
        let acquired = shares
            .acquire(self.session, self.member.key(place), epoch, wanted)
            .await;
        let Ok(acquired) = acquired else { return };
        if acquired.is_empty() {
            return;
        }
        let is_told = |span: &Span| {
            let mut given = acquired.iter();
            !span.is_hidden && given.any(|it| it.first <= span.last && span.first <= it.last)
        };
        let told = batches.into_iter().filter(|(span, _)| is_told(span));
        let records: Vec<Bytes> = told.map(|(_, bytes)| bytes).collect();
        permit.shrink_to(records.iter().map(Bytes::len).sum());
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        let found = Found {
            code: ErrorCode::NONE,
            records,
            acquired,
        };
        self.found.insert(place, found);
    }
}

fn records_of(found: &Found) -> usize {
    let count = |it: &Acquired| usize::try_from(it.last.since(it.first) + 1).unwrap_or(0);
    found.acquired.iter().map(count).sum()
}

/// The batches of a read one by one, and whether members see them.
fn batches(partition: &Partition, outcome: &ReadOutcome) -> Result<Vec<(Span, Bytes)>, ErrorCode> {
    let span = |batch: &BatchView| Span {
        first: batch.base_offset(),
        last: batch.next_offset().plus(-1),
        is_hidden: batch.header().is_control() || outcome.hides(batch.header()),
    };
    let batches = Batches::new(outcome.contiguous());
    let batches = batches.map(|batch| batch.map(|batch| (span(&batch), batch.into_bytes())));
    batches.collect::<Result<_, _>>().map_err(|error| {
        tracing::warn!(%error, partition = %partition.name(), "a batch that was read is none");
        ErrorCode::KAFKA_STORAGE_ERROR
    })
}
