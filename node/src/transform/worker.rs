//! The synchronous heart of a pipeline: takes committed batches, calls the guest with ranges of their records, and
//! turns what it answers into appends and changes of state. It is run on a thread that may block.
//!
//! It owns the guest's instance, the windows and the order of work. Nothing it did counts before `accept`; it never
//! waits, and never touches a log.

mod aggregate;
mod filter;
mod join;
mod map;
mod room;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, PartitionIndex};
use headwater_protocol::record::{self, Batches, RECORDS_BYTES_MAX};

use super::answer::{AnswerError, Failures};
use super::bisect::{Bisect, Cut};
use super::changelog::Changes;
use super::input::Input;
use super::instance::{CallError, Instance, Module, Setup, StartError};
use super::keyed::KeyedStore;
use super::letter::{Cause, Letters, Origin};
use super::outbox::{Append, Outbox, Outgoing, Sink, UnsendableRecord};
use super::windows::{Applied, Closed, Windows};
use crate::metadata::{Emit, World};
pub(crate) use join::JoinParts;
use join::Joining;

/// Records a guest is called with at most.
const RECORDS_PER_CALL_MAX: usize = 32 << 10;

/// How a worker works: the deployment's settings as far as they reach it.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Uncompressed bytes of records that a guest is called with, unless one record is larger.
    pub(crate) batch_bytes_max: usize,
    /// What accumulators and keyed entries of the partition may take together.
    pub(crate) state_bytes_max: usize,
    /// A record the module fails on ends the range before it, instead of being written off at once.
    pub(crate) is_strict: bool,
    /// Records written off go to the last of the sinks.
    pub(crate) has_dead_letters: bool,
    /// Records that come too late go as they are to the last of the sinks before it.
    pub(crate) has_late_sink: bool,
    pub(crate) emit: Emit,
}

/// What one attempt was made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Records of the input.
    Records(Range<usize>),
    /// Windows to be told about.
    Windows(Range<usize>),
}

/// How many records became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) taken: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
    pub(crate) late: u64,
}

/// What came of one attempt that went well.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) appends: Vec<Append>,
    pub(crate) counts: Counts,
    /// Everything before it is dealt with. None when no record was.
    pub(crate) position: Option<Offset>,
}

/// Who is to blame for an attempt that did not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blame {
    /// One of the records, or several: cut the range to find out.
    Range(CallError),
    /// This one.
    One {
        index: usize,
        reason: &'static str,
        message: String,
    },
    /// None of them: the module cannot go on at all.
    Module { reason: String },
    /// The node stops.
    Stopping,
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) work: Work,
    pub(crate) result: Result<Ran, Blame>,
    pub(crate) cpu: Duration,
}

/// A batch of the source that cannot be read: skipped, but not silently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) offset: Offset,
    pub(crate) message: String,
}

/// The worker of one partition.
///
/// - Either `instance` or `keyed` is there: the keyed store lives in the instance while there is one.
/// - `work` ranges over `input`, `telling` over `windows_told`.
pub(crate) struct Worker {
    module: Arc<Module>,
    setup: Setup,
    rules: Rules,
    instance: Option<Instance>,
    keyed: Option<KeyedStore>,
    windows: Option<Windows>,
    /// Where there are two sources: then the input is what comes of joining them.
    joining: Option<Joining>,
    input: Input,
    next_offset: Offset,
    work: Bisect,
    windows_told: Vec<Closed>,
    telling: Bisect,
    /// Windows changed since they were last told about, when updates are asked for.
    changed: Vec<Closed>,
    /// What `accept` will add to the state's changes.
    changes: Changes,
    /// What the attempt made of the windows, which `accept` keeps and `reject` undoes.
    applied: Applied,
    /// Windows that `accept` will forget.
    forgets: Vec<Closed>,
    buffer: Vec<u8>,
    outbox: Outbox,
    letters: Letters,
    cpu: Duration,
    now_ms: i64,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) module: Arc<Module>,
    pub(crate) setup: Setup,
    pub(crate) rules: Rules,
    pub(crate) keyed: KeyedStore,
    /// For aggregates.
    pub(crate) windows: Option<Windows>,
    /// Where there is a second source.
    pub(crate) join: Option<JoinParts>,
    /// Behind those that a module may name the one for late records, and last the dead-letter topic, if they are there.
    pub(crate) sinks: Arc<[Sink]>,
    pub(crate) origin: Origin,
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            module,
            setup,
            rules,
            keyed,
            windows,
            join,
            sinks,
            origin,
        } = parts;
        assert_eq!(
            windows.is_some(),
            module.world() == World::Aggregate,
            "aggregates, and only they, have windows"
        );
        let source: PartitionIndex = origin.partition;
        // A window's state may have been committed and its update not sent: all are told about once more.
        let changed = match (&windows, rules.emit) {
            (Some(windows), Emit::Update) => windows.all(),
            (Some(_) | None, Emit::Close | Emit::Update) => Vec::new(),
        };
        Self {
            module,
            setup,
            rules,
            instance: None,
            keyed: Some(keyed),
            windows,
            joining: join.map(Joining::new),
            input: Input::default(),
            next_offset: Offset::ZERO,
            work: Bisect::default(),
            windows_told: Vec::new(),
            telling: Bisect::default(),
            changed,
            changes: Changes::default(),
            applied: Applied::default(),
            forgets: Vec::new(),
            buffer: Vec::new(),
            letters: Letters::new(origin, sinks.len() - 1),
            outbox: Outbox::new(sinks, source),
            cpu: Duration::ZERO,
            now_ms: 0,
        }
    }

    /// Makes the instance, so that a module which cannot be set up is found before there is work.
    pub(crate) fn prepare(&mut self) -> Result<(), StartError> {
        if self.instance.is_some() {
            return Ok(());
        }
        let keyed = self.keyed.take().expect("without an instance the store is here");
        match Instance::start(&self.module, self.setup.clone(), keyed) {
            Ok(instance) => {
                self.instance = Some(instance);
                Ok(())
            }
            Err(failed) => {
                self.keyed = Some(failed.keyed);
                Err(failed.error)
            }
        }
    }

    pub(crate) fn windows(&self) -> Option<&Windows> {
        self.windows.as_ref()
    }

    /// The committed entries of the keyed store.
    pub(crate) fn keyed(&self) -> &KeyedStore {
        match &self.instance {
            Some(instance) => instance.keyed_now(),
            None => self
                .keyed
                .as_ref()
                .expect("without an instance the store is here"),
        }
    }

    /// Takes in batches as the log gave them, from offset `from` on. Everything taken in before must be done.
    pub(crate) fn load(&mut self, batches: Bytes, from: Offset, now_ms: i64) -> Vec<Unreadable> {
        self.input.clear();
        self.now_ms = now_ms;
        self.next_offset = from;
        let mut unreadable = Vec::new();
        for batch in Batches::new(batches) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    // The log hands out whole batches; behind this one nothing can be found.
                    unreadable.push(Unreadable {
                        offset: self.next_offset,
                        message: error.to_string(),
                    });
                    break;
                }
            };
            let next = batch.next_offset();
            if let Err(error) = self.input.push(batch, from, RECORDS_BYTES_MAX) {
                unreadable.push(Unreadable {
                    offset: error.base_offset,
                    message: error.to_string(),
                });
            }
            self.next_offset = self.next_offset.max(next);
        }
        let ranges = self
            .input
            .ranges(self.rules.batch_bytes_max, RECORDS_PER_CALL_MAX);
        self.work = Bisect::new(ranges.into_iter());
        unreadable
    }

    /// Where the next batches are to be read from.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// No more input is expected for the open windows: closes them all.
    pub(crate) fn close_all_windows(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        if let Some(windows) = &mut self.windows {
            windows.close_all();
        }
    }

    /// Makes the next attempt, or finds that there is nothing to do.
    pub(crate) fn attempt(&mut self) -> Option<Attempt> {
        self.gather_windows();
        let work = match self.telling.next() {
            Some(range) => Work::Windows(range),
            None => Work::Records(self.work.next()?),
        };
        let result = self.run(&work);
        if result.is_err() {
            self.reject();
        }
        Some(Attempt {
            work,
            result,
            cpu: std::mem::take(&mut self.cpu),
        })
    }

    /// The attempt that went well counts. Gives the changes of state.
    pub(crate) fn accept(&mut self) -> Changes {
        let mut changes = std::mem::take(&mut self.changes);
        let Applied { kept, changed } = std::mem::take(&mut self.applied);
        changes.groups.extend(kept);
        if self.rules.emit == Emit::Update {
            self.changed.extend(changed);
        }
        if let Some(windows) = &mut self.windows {
            windows.keep();
            changes.groups.extend(windows.remove(&self.forgets));
        }
        self.forgets.clear();
        if let Some(instance) = &mut self.instance {
            changes.entries.extend(instance.keyed().commit());
        }
        changes
    }

    /// The attempt does not count after all.
    pub(crate) fn reject(&mut self) {
        self.outbox.discard();
        self.forgets.clear();
        self.applied = Applied::default();
        if let Some(windows) = &mut self.windows {
            windows.undo();
        }
        if let Some(instance) = &mut self.instance {
            instance.keyed().roll_back();
        }
    }

    /// Cuts the work of a failed attempt. Gives the one record or window when nothing is left to cut.
    pub(crate) fn cut(&mut self, work: Work) -> Option<Work> {
        match work {
            Work::Records(range) => match self.work.failed(range) {
                Cut::Halved => None,
                Cut::Found(index) => Some(Work::Records(index..index + 1)),
            },
            Work::Windows(range) => match self.telling.failed(range) {
                Cut::Halved => None,
                Cut::Found(index) => Some(Work::Windows(index..index + 1)),
            },
        }
    }

    /// Puts work back, cut so that the record or window with number `at` is the first of a range.
    pub(crate) fn put_back(&mut self, work: Work, at: usize) {
        match work {
            Work::Records(range) => self.work.split(range, at),
            Work::Windows(range) => self.telling.split(range, at),
        }
    }

    /// Offset of a record of the input. None for a window.
    pub(crate) fn offset_of(&self, work: &Work) -> Option<Offset> {
        match work {
            Work::Records(range) => Some(match &self.joining {
                Some(joining) => joining.cause(range.start).1,
                None => self.input.record(range.start).offset,
            }),
            Work::Windows(_) => None,
        }
    }

    /// Writes off the first record or window of `work`: a dead letter if there is a topic for it. The rest of the
    /// work is put back.
    pub(crate) fn write_off(&mut self, work: Work, reason: &str, message: &str) -> Result<Ran, Blame> {
        let (at, rest) = match &work {
            Work::Records(range) | Work::Windows(range) => (range.start, range.start + 1..range.end),
        };
        if !rest.is_empty() {
            match work {
                Work::Records(_) => self.work.put(rest),
                Work::Windows(_) => self.telling.put(rest),
            }
        }
        let mut ran = Ran::default();
        match work {
            Work::Records(_) => {
                self.letter(at, reason, message)?;
                ran.counts = Counts {
                    taken: 1,
                    failed: 1,
                    ..Counts::default()
                };
                ran.position = Some(self.position_after(at));
            }
            Work::Windows(_) => {
                self.window_letter(at, reason, message)?;
                ran.counts.failed = 1;
                if self.rules.emit == Emit::Close {
                    self.forgets.push(self.windows_told[at].clone());
                }
            }
        }
        ran.appends = self.finish()?;
        Ok(ran)
    }

    fn run(&mut self, work: &Work) -> Result<Ran, Blame> {
        self.prepare().map_err(|error| match error {
            StartError::Failed(CallError::Stopping) => Blame::Stopping,
            other => Blame::Module {
                reason: other.to_string(),
            },
        })?;
        self.tell_time(work);
        let result = match (work, self.module.world()) {
            (Work::Windows(range), _) => self.run_emit(range.clone()),
            (Work::Records(range), World::Filter) => self.run_filter(range.clone()),
            (Work::Records(range), World::Map) => self.run_map(range.clone()),
            (Work::Records(range), World::Aggregate) => self.run_aggregate(range.clone()),
        };
        if let Some(instance) = &mut self.instance {
            self.cpu += instance.take_cpu();
        }
        let mut ran = result.map_err(|error| self.blame(error))?;
        ran.appends = self.finish()?;
        if let Work::Records(range) = work {
            ran.position = Some(self.position_after(range.end - 1));
        }
        Ok(ran)
    }

    /// Tells the keyed store how late it is, where that counts.
    fn tell_time(&mut self, work: &Work) {
        let Some(instance) = &mut self.instance else {
            return;
        };
        if let (Work::Records(range), true) = (work, instance.keyed_now().is_aging()) {
            let times = range.clone().map(|index| self.input.record(index).timestamp_ms);
            instance.keyed().begin_call(times.max());
        }
    }

    /// Turns what went wrong into who is to blame, and gives up an instance that cannot be called again.
    fn blame(&mut self, error: Trouble) -> Blame {
        match error {
            Trouble::Call(error) => {
                if let Some(instance) = self.instance.take() {
                    self.keyed = Some(instance.into_keyed());
                }
                match error {
                    CallError::Stopping => Blame::Stopping,
                    CallError::State(_) => Blame::Module {
                        reason: error.to_string(),
                    },
                    other => Blame::Range(other),
                }
            }
            Trouble::One {
                index,
                reason,
                message,
            } => Blame::One {
                index,
                reason,
                message,
            },
            Trouble::Module { reason } => Blame::Module { reason },
        }
    }

    fn finish(&mut self) -> Result<Vec<Append>, Blame> {
        self.outbox.finish().map_err(|error| Blame::Module {
            reason: error.to_string(),
        })
    }

    /// Everything up to and including the record with this number is dealt with.
    fn position_after(&self, index: usize) -> Offset {
        if index + 1 < self.input.len() {
            self.input.record(index + 1).offset
        } else {
            self.next_offset
        }
    }

    /// The sinks that a module may name.
    fn sinks(&self) -> &[Sink] {
        let sinks = self.outbox.sinks();
        let own = usize::from(self.rules.has_dead_letters) + usize::from(self.rules.has_late_sink);
        &sinks[..sinks.len() - own]
    }

    /// Deals with the failures a module reported on records from `start` on.
    fn write_failures(&mut self, start: usize, failures: &Failures) -> Result<(), Trouble> {
        self.check_strict(start, failures)?;
        for failure in failures.iter() {
            let letter = self.letter(start + failure.index as usize, "rejected", &failure.message);
            letter.map_err(Trouble::from_blame)?;
        }
        Ok(())
    }

    fn check_strict(&self, start: usize, failures: &Failures) -> Result<(), Trouble> {
        match failures.first() {
            Some(failure) if self.rules.is_strict => Err(Trouble::One {
                index: start + failure.index as usize,
                reason: "rejected",
                message: failure.message.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Writes the dead letter of a record, if there is a topic for it.
    fn letter(&mut self, index: usize, reason: &str, message: &str) -> Result<(), Blame> {
        if !self.rules.has_dead_letters {
            return Ok(());
        }
        let source = self.input.record(index);
        let record = Outgoing::of_record(&source);
        let mut cause = Cause {
            reason,
            message,
            offset: source.offset,
            failed_at_ms: self.now_ms,
        };
        let written = match &self.joining {
            Some(joining) => {
                let (topic, offset) = joining.cause(index);
                cause.offset = offset;
                self.letters.write_joined(&mut self.outbox, &record, cause, topic)
            }
            None => self.letters.write(&mut self.outbox, &record, cause),
        };
        written.map_err(|error| Blame::Module {
            reason: format!("no dead letter can be written: {error}"),
        })
    }

    fn window_letter(&mut self, index: usize, reason: &str, message: &str) -> Result<(), Blame> {
        if !self.rules.has_dead_letters {
            return Ok(());
        }
        let window = &self.windows_told[index];
        let record = Outgoing {
            value: Some(&window.state),
            ..Outgoing::of_window(window)
        };
        let offset = Offset(self.next_offset.value().saturating_sub(1));
        let cause = Cause {
            reason,
            message,
            offset,
            failed_at_ms: self.now_ms,
        };
        let written = self.letters.write_window(&mut self.outbox, &record, cause);
        written.map_err(|error| Blame::Module {
            reason: format!("no dead letter can be written: {error}"),
        })
    }
}

/// What can go wrong within an attempt.
enum Trouble {
    /// The call failed, or its answer broke the contract: the instance is of no more use.
    Call(CallError),
    One {
        index: usize,
        reason: &'static str,
        message: String,
    },
    Module {
        reason: String,
    },
}

impl Trouble {
    fn from_blame(blame: Blame) -> Self {
        match blame {
            Blame::Range(error) => Self::Call(error),
            Blame::One {
                index,
                reason,
                message,
            } => Self::One {
                index,
                reason,
                message,
            },
            Blame::Module { reason } => Self::Module { reason },
            Blame::Stopping => Self::Call(CallError::Stopping),
        }
    }

    fn unsendable(index: usize, error: &UnsendableRecord) -> Self {
        Self::One {
            index,
            reason: "unsendable",
            message: error.to_string(),
        }
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<AnswerError> for Trouble {
    fn from(error: AnswerError) -> Self {
        Self::Call(error.into())
    }
}

/// A batch that was read once cannot be passed on: memory or code is broken.
fn broken(error: record::Error) -> Trouble {
    Trouble::Module {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
