//! Redrives: what one is to do, how far it is, and which ones this node knows of.
//! Pure. It owns their limits: so many under way, one for each transform, so many remembered.

use std::collections::VecDeque;
use std::sync::Arc;

use headwater_protocol::ids::{Offset, PartitionIndex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::LetterError;
use super::letter::{Filter, Place};
use super::marks::Again;
use super::rebuild::Refusal;

/// Redrives of many letters under way at once on a node.
const RUNNING_MAX: usize = 4;
/// Redrives that are remembered, those under way among them.
const KEPT_MAX: usize = 200;

/// Whether records are written, or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Write,
    DryRun,
}

/// Many letters to be written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many {
    pub filter: Filter,
    /// Of the dead-letter topic. None: all.
    pub partition: Option<PartitionIndex>,
    /// None: from the first letter there is.
    pub from: Option<Offset>,
    /// None: to the end as it is now; what fails again meanwhile is not part of it.
    pub until: Option<Offset>,
    /// None: all.
    pub limit: Option<u64>,
    /// Records per second.
    pub rate: u32,
    pub again: Again,
    pub mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedriveState {
    Running,
    /// All of its range is dealt with.
    Done,
    Cancelled,
    /// What was written before stays written.
    Failed,
}

/// Part of a partition of the dead-letter topic, and how far in it a redrive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub partition: PartitionIndex,
    pub from: Offset,
    pub until: Offset,
    /// What is below it, from `from` on, is dealt with.
    pub position: Offset,
}

/// Letters that were not written back, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    pub why: Refusal,
    pub count: u64,
    pub first: Place,
}

/// A redrive as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    pub id: String,
    pub transform: String,
    pub state: RedriveState,
    pub mode: Mode,
    pub filter: Filter,
    pub rate: u32,
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    pub spans: Vec<Span>,
    /// Written to the source; in a dry run: would have been.
    pub redriven: u64,
    /// One for each reason.
    pub passed: Vec<Passed>,
    /// Where the last one was written.
    pub last: Option<Place>,
    pub error: Option<String>,
}

impl Redrive {
    pub(crate) fn begin(id: String, transform: &str, many: &Many, spans: Vec<Span>, now_ms: i64) -> Self {
        Self {
            id,
            transform: transform.to_owned(),
            state: RedriveState::Running,
            mode: many.mode,
            filter: many.filter.clone(),
            rate: many.rate,
            started_ms: now_ms,
            ended_ms: None,
            spans,
            redriven: 0,
            passed: Vec::new(),
            last: None,
            error: None,
        }
    }

    pub(crate) fn pass(&mut self, why: Refusal, letter: Place) {
        match self.passed.iter_mut().find(|it| it.why.code() == why.code()) {
            Some(known) => known.count += 1,
            None => self.passed.push(Passed {
                why,
                count: 1,
                first: letter,
            }),
        }
    }

    pub(crate) fn reach(&mut self, partition: PartitionIndex, position: Offset) {
        if let Some(span) = self.spans.iter_mut().find(|span| span.partition == partition) {
            span.position = position.min(span.until);
        }
    }

    pub(crate) fn end(&mut self, state: RedriveState, error: Option<String>, now_ms: i64) {
        self.state = state;
        self.error = error;
        self.ended_ms = Some(now_ms);
    }
}

/// A redrive that others may look at, and cancel, while it goes on.
#[derive(Debug)]
pub(crate) struct Shown {
    redrive: watch::Sender<Redrive>,
    cancel: CancellationToken,
}

impl Shown {
    fn new(redrive: Redrive) -> Arc<Self> {
        Arc::new(Self {
            redrive: watch::Sender::new(redrive),
            cancel: CancellationToken::new(),
        })
    }

    pub(crate) fn now(&self) -> Redrive {
        self.redrive.borrow().clone()
    }

    /// What of it is asked for, without a copy of the rest.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Redrive) -> T) -> T {
        look(&self.redrive.borrow())
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Redrive) -> T) -> T {
        let mut changed = None;
        self.redrive
            .send_modify(|redrive| changed = Some(change(redrive)));
        changed.expect("it was called")
    }

    /// Asks it to end.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Returns when it is not under way any more.
    pub(crate) async fn ended(&self) {
        let mut redrive = self.redrive.subscribe();
        // The sender is this.
        let _ = redrive
            .wait_for(|redrive| redrive.state != RedriveState::Running)
            .await;
    }
}

/// The redrives that a node knows of, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Known(VecDeque<Arc<Shown>>);

impl Known {
    /// Takes one in that is to run. There is one for each transform at a time.
    pub(crate) fn admit(&mut self, redrive: Redrive) -> Result<Arc<Shown>, LetterError> {
        let running: Vec<Redrive> = self
            .all()
            .filter(|it| it.state == RedriveState::Running)
            .collect();
        if let Some(other) = running.iter().find(|it| it.transform == redrive.transform) {
            return Err(LetterError::Running(other.id.clone()));
        }
        if running.len() >= RUNNING_MAX {
            return Err(LetterError::TooMany(running.len()));
        }
        Ok(self.remember(redrive))
    }

    /// Takes one in; the oldest one that has ended goes for it.
    pub(crate) fn remember(&mut self, redrive: Redrive) -> Arc<Shown> {
        if self.0.len() >= KEPT_MAX {
            let ended = self
                .0
                .iter()
                .position(|it| it.look(|it| it.state != RedriveState::Running));
            if let Some(oldest) = ended {
                self.0.remove(oldest);
            }
        }
        let shown = Shown::new(redrive);
        self.0.push_back(Arc::clone(&shown));
        shown
    }

    /// Those of a transform, the newest first.
    pub(crate) fn of(&self, transform: &str) -> Vec<Redrive> {
        self.all().rev().filter(|it| it.transform == transform).collect()
    }

    pub(crate) fn find(&self, transform: &str, id: &str) -> Option<Arc<Shown>> {
        let is_it = |shown: &&Arc<Shown>| shown.look(|it| it.id == id && it.transform == transform);
        self.0.iter().find(is_it).cloned()
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = Redrive> {
        self.0.iter().map(|shown| shown.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redrive(id: &str, transform: &str) -> Redrive {
        let many = Many {
            filter: Filter::default(),
            partition: None,
            from: None,
            until: None,
            limit: None,
            rate: 1,
            again: Again::Refuse,
            mode: Mode::Write,
        };
        let span = Span {
            partition: PartitionIndex(0),
            from: Offset(3),
            until: Offset(9),
            position: Offset(3),
        };
        Redrive::begin(id.to_owned(), transform, &many, vec![span], 0)
    }

    #[test]
    fn a_transform_has_one_under_way_and_a_node_a_few() {
        let mut known = Known::default();
        let first = known.admit(redrive("a", "t0")).unwrap();
        assert_eq!(
            known.admit(redrive("b", "t0")).unwrap_err(),
            LetterError::Running("a".to_owned())
        );
        for number in 1..RUNNING_MAX {
            known.admit(redrive("x", &format!("t{number}"))).unwrap();
        }
        assert_eq!(
            known.admit(redrive("b", "t9")).unwrap_err(),
            LetterError::TooMany(RUNNING_MAX)
        );
        first.change(|it| it.end(RedriveState::Done, None, 5));
        known.admit(redrive("b", "t0")).unwrap();
        let ids: Vec<_> = known.of("t0").into_iter().map(|it| it.id).collect();
        assert_eq!(ids, ["b", "a"]);
    }

    #[test]
    fn the_oldest_that_ended_is_forgotten() {
        let mut known = Known::default();
        known.admit(redrive("running", "t0")).unwrap();
        for number in 0..KEPT_MAX + 5 {
            let shown = known.remember(redrive(&number.to_string(), "t1"));
            shown.change(|it| it.end(RedriveState::Done, None, 0));
        }
        assert_eq!(known.0.len(), KEPT_MAX);
        assert_eq!(known.of("t0").len(), 1);
        assert_eq!(
            known.of("t1").last().map(|it| it.id.clone()),
            Some("6".to_owned())
        );
    }

    #[test]
    fn it_tells_how_far_it_is_and_what_it_passed_over() {
        let mut redrive = redrive("a", "t");
        let letter = |offset| Place {
            partition: PartitionIndex(0),
            offset: Offset(offset),
        };
        redrive.pass(Refusal::Window, letter(4));
        redrive.pass(Refusal::Window, letter(5));
        redrive.pass(Refusal::BySource("no".to_owned()), letter(6));
        let told: Vec<_> = redrive
            .passed
            .iter()
            .map(|it| (it.why.code(), it.count, it.first.offset.0))
            .collect();
        assert_eq!(told, [("window", 2, 4), ("refused", 1, 6)]);
        redrive.reach(PartitionIndex(0), Offset(70));
        assert_eq!(redrive.spans[0].position, Offset(9));
    }
}
