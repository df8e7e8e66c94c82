//! A join's step: records of both sides, in the order of their times, become pairs, and those are what the module is given.
//!
//! It owns what was read of either side and how far that is dealt with. The pairs of a step, its changes of state and both positions
//! count together, when the module has dealt with all of them.

use bytes::Bytes;
use headwater_protocol::ids::Offset;
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, BatchView, Batches, Headers, RECORDS_BYTES_MAX,
};

use super::super::changelog::Changes;
use super::super::input::{Input, Source};
use super::super::join::{Given, Joiner, KeyAt, Pair, Side, TakeError, Taken, check_value, put_pair};
use super::super::letter::Cause;
use super::super::outbox::Outgoing;
use super::{Bisect, Blame, Counts, RECORDS_PER_CALL_MAX, Ran, Unreadable, Worker};

/// Pairs of one step, unless one record makes more.
const STEP_BYTES: usize = 1 << 20;
/// Pairs are cut into batches of about this size.
const BATCH_BYTES: usize = 256 << 10;

/// What a worker needs to join.
pub(crate) struct JoinParts {
    pub(crate) joiner: Joiner,
    /// Of the left side and the right one.
    pub(crate) topics: [String; 2],
    pub(crate) keys: [KeyAt; 2],
    pub(crate) positions: [Offset; 2],
}

/// Both sides, and the join between them.
pub(super) struct Joining {
    joiner: Joiner,
    topics: [String; 2],
    keys: [KeyAt; 2],
    sides: [SideInput; 2],
    /// Which record brought about each record of the worker's input.
    causes: Vec<(Side, Offset)>,
}

/// What was read of one side.
struct SideInput {
    input: Input,
    /// The first record that is not dealt with.
    at: usize,
    /// Where reading goes on.
    next: Offset,
    /// There was nothing more when it was read last.
    is_at_end: bool,
}

impl SideInput {
    fn new(position: Offset) -> Self {
        Self {
            input: Input::default(),
            at: 0,
            next: position,
            is_at_end: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.at == self.input.len()
    }

    /// Everything before it is dealt with.
    fn position(&self) -> Offset {
        if self.is_empty() {
            self.next
        } else {
            self.input.record(self.at).offset
        }
    }
}

/// What a step gathers for the module.
struct Pairs<'w> {
    input: &'w mut Input,
    causes: &'w mut Vec<(Side, Offset)>,
    builder: BatchBuilder,
    value: Vec<u8>,
    bytes: usize,
    trouble: Option<String>,
}

impl Pairs<'_> {
    fn add(&mut self, pair: &Pair<'_>) {
        let headers = pair
            .left
            .or(pair.right)
            .map_or(Headers::NONE, |half| half.headers);
        let [left, right] = [pair.left, pair.right].map(|half| half.map(|half| half.value));
        put_pair(left, right, &mut self.value);
        let added = self
            .builder
            .append_forwarded(pair.timestamp_ms, pair.key, Some(&self.value), headers);
        match added {
            Ok(()) => {
                self.causes.push(pair.of);
                self.bytes += pair.key.map_or(0, <[u8]>::len) + self.value.len() + headers.encoded().len();
                if self.builder.plain_bytes() > BATCH_BYTES {
                    self.close();
                }
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    fn close(&mut self) {
        let base = self.input.len() as i64;
        self.builder.options_mut().base_offset = Offset(base);
        let built = self.builder.build().map_err(|error| error.to_string());
        let parsed = built.and_then(|built| {
            let Some(bytes) = built else { return Ok(()) };
            let batch = BatchView::parse(bytes).map_err(|error| error.to_string())?;
            let pushed = self.input.push(batch, Offset::ZERO, RECORDS_BYTES_MAX);
            pushed.map_err(|error| error.to_string())
        });
        if let Err(error) = parsed {
            self.trouble = Some(error);
        }
    }
}

impl Joining {
    pub(super) fn new(parts: JoinParts) -> Self {
        let JoinParts {
            joiner,
            topics,
            keys,
            positions,
        } = parts;
        Self {
            joiner,
            topics,
            keys,
            sides: positions.map(SideInput::new),
            causes: Vec::new(),
        }
    }

    /// The record of the worker's input with this number came about by one of this topic.
    pub(super) fn cause(&self, index: usize) -> (&str, Offset) {
        let (side, offset) = self.causes[index];
        (&self.topics[side.index()], offset)
    }

    /// The side whose record is next: the earlier one; of two at once the right one, so that a table has changed by then. None
    /// where it is not known which that is: a side has to be read on.
    fn next(&self) -> Option<Side> {
        let [left, right] = &self.sides;
        let time = |side: &SideInput| side.input.record(side.at).timestamp_ms;
        match (left.is_empty(), right.is_empty()) {
            (true, true) => None,
            (false, true) => right.is_at_end.then_some(Side::Left),
            (true, false) => left.is_at_end.then_some(Side::Right),
            (false, false) if time(right) <= time(left) => Some(Side::Right),
            (false, false) => Some(Side::Left),
        }
    }
}

/// What a record of a side came to.
enum Judged {
    Taken(Taken),
    Failed { message: String },
}

impl Worker {
    /// Where a side is to be read on. None: what was read of it is not dealt with yet.
    pub(crate) fn wants(&self, side: Side) -> Option<Offset> {
        let side = &self.joining().sides[side.index()];
        side.is_empty().then_some(side.next)
    }

    /// There is nothing more of a side for now.
    pub(crate) fn ends(&mut self, side: Side) {
        self.joining_mut().sides[side.index()].is_at_end = true;
    }

    /// Reading goes on there: what was to be read is not there.
    pub(crate) fn skip_to(&mut self, side: Side, offset: Offset) {
        self.joining_mut().sides[side.index()].next = offset;
    }

    /// Takes in batches of a side that wants some. Reading goes on at `next`.
    pub(crate) fn load_side(&mut self, side: Side, batches: Bytes, next: Offset) -> Vec<Unreadable> {
        let side = &mut self.joining_mut().sides[side.index()];
        let from = side.next;
        side.input.clear();
        (side.at, side.next, side.is_at_end) = (0, next, false);
        let mut unreadable = Vec::new();
        for batch in Batches::new(batches) {
            let pushed = match batch {
                Ok(batch) => side.input.push(batch, from, RECORDS_BYTES_MAX),
                Err(error) => {
                    // The log hands out whole batches; behind this one nothing can be found.
                    unreadable.push(Unreadable {
                        offset: from,
                        message: error.to_string(),
                    });
                    break;
                }
            };
            if let Err(error) = pushed {
                unreadable.push(Unreadable {
                    offset: error.base_offset,
                    message: error.to_string(),
                });
            }
        }
        unreadable
    }

    /// Joins what is there of both sides, as far as their order is known; the pairs become the input. Gives what is to be sent
    /// besides, and counts the records of both sides. What was joined before must be dealt with.
    pub(crate) fn join(&mut self, now_ms: i64) -> Result<Ran, Blame> {
        self.now_ms = now_ms;
        let mut joining = self.joining.take().expect("the transform joins");
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        joining.causes.clear();
        let joined = self.join_into(&mut joining, &mut input);
        self.input = input;
        self.joining = Some(joining);
        let counts = joined?;
        let ranges = self
            .input
            .ranges(self.rules.batch_bytes_max, RECORDS_PER_CALL_MAX);
        self.work = Bisect::new(ranges.into_iter());
        Ok(Ran {
            appends: self.finish()?,
            counts,
            position: None,
        })
    }

    fn join_into(&mut self, joining: &mut Joining, input: &mut Input) -> Result<Counts, Blame> {
        let mut causes = std::mem::take(&mut joining.causes);
        let mut pairs = Pairs {
            input,
            causes: &mut causes,
            builder: BatchBuilder::new(BatchOptions::PLAIN),
            value: Vec::new(),
            bytes: 0,
            trouble: None,
        };
        let mut counts = Counts::default();
        while pairs.bytes < STEP_BYTES
            && let Some(side) = joining.next()
        {
            let Joining {
                joiner,
                topics,
                keys,
                sides,
                ..
            } = joining;
            let source = sides[side.index()].input.record(sides[side.index()].at);
            counts.taken += 1;
            let topic = &topics[side.index()];
            match judge(joiner, side, &source, &keys[side.index()], &mut pairs)? {
                Judged::Taken(Taken::Used) => {}
                Judged::Taken(Taken::Dropped) => counts.dropped += 1,
                Judged::Taken(Taken::Late) => {
                    counts.late += 1;
                    self.side_letter(
                        topic,
                        &source,
                        "late",
                        "it came after all that it could be joined with",
                    )?;
                }
                Judged::Failed { message } if self.rules.is_strict => {
                    let reason = format!("record {} of {topic}: {message}", source.offset);
                    return Err(Blame::Module { reason });
                }
                Judged::Failed { message } => {
                    counts.failed += 1;
                    self.side_letter(topic, &source, "rejected", &message)?;
                }
            }
            joining.sides[side.index()].at += 1;
        }
        pairs.close();
        let trouble = pairs.trouble.take();
        joining.causes = causes;
        match trouble {
            Some(reason) => Err(Blame::Module { reason }),
            None => Ok(counts),
        }
    }

    /// Writes the dead letter of a record as it is on its side.
    fn side_letter(
        &mut self,
        topic: &str,
        source: &Source<'_>,
        reason: &str,
        message: &str,
    ) -> Result<(), Blame> {
        if !self.rules.has_dead_letters {
            return Ok(());
        }
        let cause = Cause {
            reason,
            message,
            offset: source.offset,
            failed_at_ms: self.now_ms,
        };
        let record = Outgoing::of_record(source);
        let written = self.letters.write_of(&mut self.outbox, &record, cause, topic);
        written.map_err(|error| Blame::Module {
            reason: format!("no dead letter can be written: {error}"),
        })
    }

    /// The step counts: gives its changes, those of the join and what the module left, and where both sides are now.
    pub(crate) fn finish_join(&mut self) -> (Changes, [Offset; 2]) {
        let mut changes = self.accept();
        let joining = self.joining_mut();
        changes.joins.extend(joining.joiner.changes());
        let [left, right] = &joining.sides;
        (changes, [left.position(), right.position()])
    }

    pub(crate) fn joiner(&self) -> Option<&Joiner> {
        self.joining.as_ref().map(|joining| &joining.joiner)
    }

    fn joining(&self) -> &Joining {
        self.joining.as_ref().expect("the transform joins")
    }

    fn joining_mut(&mut self) -> &mut Joining {
        self.joining.as_mut().expect("the transform joins")
    }
}

/// Gives one record to the join.
fn judge(
    joiner: &mut Joiner,
    side: Side,
    source: &Source<'_>,
    key: &KeyAt,
    pairs: &mut Pairs<'_>,
) -> Result<Judged, Blame> {
    let record = &source.record;
    let found = match record.value.map(|value| check_value(value, key)) {
        None => None,
        Some(Ok(found)) => found,
        Some(Err(error)) => {
            let message = error.to_string();
            return Ok(Judged::Failed { message });
        }
    };
    let given = Given {
        side,
        offset: source.offset,
        timestamp_ms: source.timestamp_ms,
        key: match key {
            KeyAt::Record => record.key,
            KeyAt::Value(_) => found.as_deref(),
        },
        value: record.value,
        headers: record.headers,
    };
    match joiner.take(&given, &mut |pair: &Pair<'_>| pairs.add(pair)) {
        Ok(taken) => Ok(Judged::Taken(taken)),
        Err(error @ TakeError::Entry { .. }) => Ok(Judged::Failed {
            message: error.to_string(),
        }),
        Err(error @ TakeError::State { .. }) => Err(Blame::Module {
            reason: error.to_string(),
        }),
    }
}
