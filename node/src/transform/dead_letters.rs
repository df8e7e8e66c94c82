//! Dead letters as things: found in their topic, shown with their story, and written back to the source.
//!
//! Owns the redrives of this node and its memory of which letters they wrote back; both are gone with the process. Nothing
//! here changes a dead-letter topic, and nothing needs a module to run. It works on what this node holds: letters of a
//! partition of which it has a copy, sources that it leads.
//!
//! ```text
//! letter     a record read as a letter, which letters are meant    rebuild   back to a record (both pure)
//! page, summary, marks, redrive   what is shown and remembered (pure)
//! scan       reads letters       write   writes records            run       the task of one redrive
//! ```

mod error;
mod letter;
mod marks;
pub(super) mod names;
mod page;
mod rebuild;
mod redrive;
mod run;
mod scan;
mod summary;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use headwater_protocol::ids::{NodeId, Offset, PartitionIndex};

pub use self::error::LetterError;
pub use self::letter::{DeadLetter, Filter, LetterHeader, Place, Round};
pub use self::marks::{Again, Mark};
pub use self::page::{Cursor, CursorError, Order};
pub use self::rebuild::{Edit, Refusal};
pub use self::redrive::{Many, Mode, Passed, Redrive, RedriveState, Span};
pub use self::summary::{Group, Stretch, Summary};

use self::marks::Marks;
use self::page::Run as Found;
use self::redrive::{Known, Shown};
use self::run::Run;
use self::scan::{Scan, Wanted};
use self::summary::Counting;
use self::write::Writer;
use crate::metadata::{Topic, Transform, View};
use crate::partition::Registry;
use crate::sys::Sys;
use crate::sys::task::{Kind, StillRunning, Tasks};
use crate::telemetry::{Metrics, names::TRANSFORM_REDRIVEN};

/// Letters of one page, at most.
pub const PAGE_MAX: usize = 500;
/// Offsets that one page looks through at most, over all partitions.
const PAGE_OFFSETS_MAX: i64 = 20_000;
/// Offsets that a summary looks through at most, over all partitions.
pub const SUMMARY_OFFSETS_MAX: i64 = 200_000;
/// Letters that this node remembers to have written back: about 20 MB.
const MARKS_MAX: usize = 100_000;
/// How long whoever cancels a redrive waits for its end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// What dead letters are dealt with by.
pub struct Parts {
    pub sys: Sys,
    pub view: View,
    pub registry: Registry,
    pub metrics: Metrics,
}

/// Which letters to show.
#[derive(Debug, Clone)]
pub struct PageQuery {
    pub filter: Filter,
    /// Of the dead-letter topic. None: all.
    pub partition: Option<PartitionIndex>,
    pub order: Order,
    /// Where the page before ended.
    pub cursor: Cursor,
    pub limit: usize,
}

/// A letter, with what this node remembers and thinks of it.
#[derive(Debug, Clone)]
pub struct Shelved {
    pub letter: DeadLetter,
    /// That it was written back.
    pub mark: Option<Mark>,
    /// Why it cannot be written back as it is.
    pub refusal: Option<Refusal>,
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub letters: Vec<Shelved>,
    /// What was looked through.
    pub scanned: Vec<Stretch>,
    /// Where the next page begins. None: this is the last.
    pub next: Option<Cursor>,
}

/// The dead letters of all transforms. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    sys: Sys,
    tasks: Tasks,
    view: View,
    registry: Registry,
    metrics: Metrics,
    marks: Arc<Mutex<Marks>>,
    known: Arc<Mutex<Known>>,
}

impl DeadLetters {
    /// Reads and writes nothing by itself. Redrives end with `parts.sys.tasks`.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            sys,
            view,
            registry,
            metrics,
        } = parts;
        Self {
            tasks: sys.tasks.child("dead-letters"),
            sys,
            view,
            registry,
            metrics,
            marks: Arc::new(Mutex::new(Marks::new(MARKS_MAX))),
            known: Arc::default(),
        }
    }

    /// Ends the redrives under way, and waits until what they had sent is acknowledged.
    pub async fn stop(&self, patience: Duration) -> Result<(), StillRunning> {
        self.tasks.stop(&self.sys.clock, patience).await
    }

    /// A page of the letters of a transform. It may have fewer than were asked for, and another one behind it: how far it
    /// looks is limited.
    pub async fn page(&self, transform: &str, query: PageQuery) -> Result<Page, LetterError> {
        let transform = self.transform(transform)?;
        let Some(letters) = self.view.topic(&transform.dead_letter) else {
            return Ok(Page::default());
        };
        let scans = self.scans(&transform, &letters, query.partition, query.filter)?;
        let limit = query.limit.clamp(1, PAGE_MAX);
        let share = share(PAGE_OFFSETS_MAX, scans.len());
        let runs = scans.iter().map(|scan| {
            let begun = query.cursor.0.get(&scan.partition.name().index).copied();
            one_run(scan, query.order, begun, limit, share)
        });
        let merged = page::merge(query.order, try_join_all(runs).await?, limit);
        let marks = self.marks();
        let shelved = merged.letters.into_iter().map(|letter| Shelved {
            mark: marks.get((letters.id, letter.place)).cloned(),
            refusal: rebuild::check(&letter, &Edit::default(), &transform.source).err(),
            letter,
        });
        Ok(Page {
            letters: shelved.collect(),
            scanned: merged.scanned,
            next: merged.next,
        })
    }

    /// Counts the newest letters of a transform, looking through so many records of its dead-letter topic at most.
    pub async fn summary(&self, transform: &str, offsets: i64) -> Result<Summary, LetterError> {
        let transform = self.transform(transform)?;
        let Some(letters) = self.view.topic(&transform.dead_letter) else {
            return Ok(Summary::default());
        };
        let scans = self.scans(&transform, &letters, None, Filter::default())?;
        let share = share(offsets.clamp(1, SUMMARY_OFFSETS_MAX), scans.len());
        let (mut counting, mut others, mut scanned) = (Counting::default(), 0, Vec::new());
        for scan in scans {
            let marks = *scan.partition.watermarks().borrow();
            let from = marks.last_stable.plus(-share).max(marks.log_start);
            let mut at = from;
            while at < marks.last_stable {
                let step = scan.step(at, marks.last_stable).await?;
                let known = self.marks();
                for letter in &step.letters {
                    counting.add(letter, known.get((letters.id, letter.place)).is_some());
                }
                others += step.others;
                at = step.next;
            }
            scanned.push(Stretch {
                partition: scan.partition.name().index,
                from,
                until: marks.last_stable,
                log_start: marks.log_start,
                end: marks.last_stable,
            });
        }
        Ok(counting.finish(others, scanned))
    }

    /// Writes one letter back, edited or not, and returns when that is acknowledged.
    pub async fn redrive_one(
        &self,
        transform: &str,
        letter: Place,
        edit: Edit,
        again: Again,
        mode: Mode,
    ) -> Result<Redrive, LetterError> {
        let many = Many {
            filter: Filter::default(),
            partition: Some(letter.partition),
            from: Some(letter.offset),
            until: Some(letter.offset.plus(1)),
            limit: None,
            rate: 1,
            again,
            mode,
        };
        let (mut redrive, writer, scans) = self.begin(transform, &many)?;
        let mut found = Vec::new();
        for (span, scan) in redrive.spans.iter().zip(&scans) {
            found.extend(scan.step(span.from, span.until).await?.letters);
        }
        if found.is_empty() {
            return Err(LetterError::NoLetter(letter));
        }
        let written = writer.write(&found, &edit).await;
        let now_ms = self.sys.clock.unix_ms();
        for one in written {
            redrive.last = one?;
            redrive.redriven += 1;
        }
        redrive.reach(letter.partition, letter.offset.plus(1));
        redrive.end(RedriveState::Done, None, now_ms);
        if mode == Mode::Write {
            self.known().remember(redrive.clone());
        }
        Ok(redrive)
    }

    /// Begins to write many letters back. The answer is how it stands at the beginning; `redrive` tells of it later.
    pub fn redrive(&self, transform: &str, many: &Many) -> Result<Redrive, LetterError> {
        let (redrive, writer, scans) = self.begin(transform, many)?;
        let shown = self.known().admit(redrive)?;
        let begun = shown.now();
        let run = Run {
            shown: Arc::clone(&shown),
            writer,
            scans,
            view: self.view.clone(),
            clock: self.sys.clock.clone(),
            stopping: self.tasks.cancelled(),
            cancel: shown.cancelled(),
            rate: many.rate,
            limit: many.limit,
        };
        drop(self.tasks.spawn("redrive", Kind::BestEffort, run.run()));
        Ok(begun)
    }

    /// The redrives of a transform that this node remembers, the newest first.
    pub fn redrives(&self, transform: &str) -> Result<Vec<Redrive>, LetterError> {
        self.transform(transform)?;
        Ok(self.known().of(transform))
    }

    pub fn redrive_of(&self, transform: &str, id: &str) -> Result<Redrive, LetterError> {
        self.find(transform, id).map(|shown| shown.now())
    }

    /// Ends a redrive and returns when it has ended; what it wrote stays written. One that has ended stays as it is.
    pub async fn cancel(&self, transform: &str, id: &str) -> Result<Redrive, LetterError> {
        let shown = self.find(transform, id)?;
        shown.cancel();
        // A write that hangs is told of as under way.
        let _ = self.sys.clock.timeout(CANCEL_PATIENCE, shown.ended()).await;
        Ok(shown.now())
    }

    fn find(&self, transform: &str, id: &str) -> Result<Arc<Shown>, LetterError> {
        let found = self.known().find(transform, id);
        found.ok_or_else(|| LetterError::UnknownRedrive(id.to_owned()))
    }

    /// What a redrive is begun with.
    fn begin(&self, name: &str, many: &Many) -> Result<(Redrive, Writer, Vec<Scan>), LetterError> {
        let transform = self.transform(name)?;
        let topic = |name: &str| {
            let found = self.view.topic(name);
            found.ok_or_else(|| LetterError::UnknownTopic(name.to_owned()))
        };
        let (letters, source) = (topic(&transform.dead_letter)?, topic(&transform.source)?);
        if source.mirror.is_some() {
            let topic = transform.source.clone();
            return Err(LetterError::Mirror { topic });
        }
        let scans = self.scans(&transform, &letters, many.partition, many.filter.clone())?;
        let spans = scans.iter().map(|scan| span(scan, many)).collect();
        let id = format!("{:016x}", self.sys.random.u64());
        let redrive = Redrive::begin(id.clone(), name, many, spans, self.sys.clock.unix_ms());
        let writer = Writer {
            registry: self.registry.clone(),
            clock: self.sys.clock.clone(),
            marks: Arc::clone(&self.marks),
            counter: self.metrics.counter(&TRANSFORM_REDRIVEN, &[name]),
            letters,
            source,
            redrive: id,
            again: many.again,
            mode: many.mode,
        };
        Ok((redrive, writer, scans))
    }

    /// The partitions of a dead-letter topic, or the one that is meant. All have to be on this node.
    fn scans(
        &self,
        transform: &Transform,
        letters: &Topic,
        only: Option<PartitionIndex>,
        filter: Filter,
    ) -> Result<Vec<Scan>, LetterError> {
        if let Some(partition) = only.filter(|index| letters.partition(*index).is_none()) {
            let topic = letters.name.to_string();
            return Err(LetterError::UnknownPartition { topic, partition });
        }
        let wanted = Arc::new(Wanted {
            transform: transform.name.clone(),
            filter,
        });
        let meant = letters
            .indexes()
            .filter(|index| only.is_none_or(|only| only == *index));
        let scan = |index| match self.registry.get_by_id(letters.id, index) {
            Some(partition) => Ok(Scan {
                tasks: self.tasks.clone(),
                partition,
                wanted: Arc::clone(&wanted),
            }),
            None => Err(LetterError::NotHere {
                topic: letters.name.to_string(),
                partition: index,
                leader: leader_of(letters, index),
            }),
        };
        meant.map(scan).collect()
    }

    fn transform(&self, name: &str) -> Result<Arc<Transform>, LetterError> {
        let found = self.view.image().transforms.get(name).cloned();
        found.ok_or_else(|| LetterError::UnknownTransform(name.to_owned()))
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever leads a partition, by what the metadata says.
fn leader_of(topic: &Topic, index: PartitionIndex) -> NodeId {
    topic.partition(index).map_or(NodeId::NONE, |state| state.leader)
}

/// What of so many offsets one of several partitions gets.
fn share(offsets: i64, partitions: usize) -> i64 {
    let partitions = i64::try_from(partitions).unwrap_or(i64::MAX).max(1);
    (offsets / partitions).max(1)
}

/// The part of a partition that a redrive is to deal with: its end is fixed now.
fn span(scan: &Scan, many: &Many) -> Span {
    let marks = *scan.partition.watermarks().borrow();
    let end = marks.last_stable;
    let until = many.until.map_or(end, |until| until.min(end));
    let from = many
        .from
        .map_or(marks.log_start, |from| from.max(marks.log_start));
    Span {
        partition: scan.partition.name().index,
        from,
        until: until.max(from),
        position: from,
    }
}

async fn one_run(
    scan: &Scan,
    order: Order,
    begun: Option<Offset>,
    limit: usize,
    share: i64,
) -> Result<Found, LetterError> {
    let marks = *scan.partition.watermarks().borrow();
    let (log_start, end) = (marks.log_start, marks.last_stable);
    let (began, found) = match order {
        Order::Newest => {
            let until = begun.unwrap_or(end).clamp(log_start, end);
            let floor = until.plus(-share).max(log_start);
            (until, scan.back(until, floor, limit).await?)
        }
        Order::From(from) => {
            let from = begun.unwrap_or(from).clamp(log_start, end);
            let until = from.plus(share).min(end);
            (from, scan.forth(from, until, limit).await?)
        }
    };
    Ok(Found {
        letters: found.letters,
        began,
        reached: found.reached,
        log_start,
        end,
        partition: scan.partition.name().index,
    })
}
