//! Folding a batch: the guest is called once for each turn of the assignment, and before it for the sessions that the
//! turn's records have joined.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::answer::{AnswerError, Failure, Failures, NO_GROUP, read_states};
use super::bytes::items;
use super::instance::{CallError, Instance};
use super::windows::Assignment;
use crate::metadata::WindowShape;

/// Windows that one record may belong to: it is folded once into each.
const WINDOWS_OF_RECORD_MAX: u32 = 1000;

/// Accumulators by group.
pub(crate) type States<'a> = Vec<Option<State<'a>>>;

/// An accumulator as it was, or as the guest answered it.
pub(crate) enum State<'a> {
    Before(&'a [u8]),
    After(Bytes),
}

impl std::ops::Deref for State<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Before(bytes) => bytes,
            Self::After(bytes) => bytes,
        }
    }
}

/// Why a batch could not be folded.
#[derive(Debug)]
pub(crate) enum FoldError {
    Call(CallError),
    /// This record of the batch has to be left out of it.
    One {
        record: u32,
        message: String,
    },
    /// It cannot be folded in windows like these.
    Windows {
        reason: String,
    },
}

impl From<CallError> for FoldError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<AnswerError> for FoldError {
    fn from(error: AnswerError) -> Self {
        Self::Call(error.into())
    }
}

/// What a batch is folded by.
pub(crate) struct Fold<'i> {
    pub(crate) instance: &'i mut Instance,
    pub(crate) shape: WindowShape,
    /// The records, as the guest reads them.
    pub(crate) batch: &'i [u8],
}

impl Fold<'_> {
    /// Nothing is called when no record belongs to a group. A record that fails in several windows is named once.
    pub(crate) fn run<'a>(
        mut self,
        assignment: &'a Assignment<'_>,
    ) -> Result<(States<'a>, Failures), FoldError> {
        let states = assignment.groups.iter();
        let states = states.map(|group| group.state.as_deref().map(State::Before));
        let mut states: States<'a> = states.collect();
        let turns = assignment.turns();
        if turns > WINDOWS_OF_RECORD_MAX {
            let reason = format!(
                "a record belongs to {turns} windows, the limit is {WINDOWS_OF_RECORD_MAX}: hopping windows would do with fewer"
            );
            return Err(FoldError::Windows { reason });
        }
        let mut failed: BTreeMap<u32, String> = BTreeMap::new();
        for turn in 0..turns {
            self.merge(assignment, turn, &mut states)?;
            let numbers = assignment.numbers(turn, turns);
            for failure in self.turn(&numbers, &mut states)?.iter() {
                let message = || failure.message.clone();
                failed.entry(failure.index).or_insert_with(message);
            }
        }
        if let (Some((record, message)), WindowShape::Session { .. }) = (failed.first_key_value(), self.shape)
        {
            // It must not have made the session longer, or joined two: the batch is gone through without it.
            return Err(FoldError::One {
                record: *record,
                message: message.clone(),
            });
        }
        let failures = failed.into_iter();
        let failures = failures.map(|(index, message)| Failure { index, message });
        let failures = Failures::check(failures.collect(), u32::MAX)?;
        Ok((states, failures))
    }

    /// Folds every record into the group that `numbers` names for it.
    fn turn(&mut self, numbers: &[u32], states: &mut States<'_>) -> Result<Failures, FoldError> {
        // The guest is shown the groups of this turn alone, in the order in which records name them.
        let mut shown = vec![NO_GROUP; states.len()];
        let mut groups: Vec<usize> = Vec::new();
        let mut records: Vec<u32> = Vec::new();
        let mut as_shown = Vec::with_capacity(numbers.len());
        for number in numbers {
            if *number == NO_GROUP {
                as_shown.push(NO_GROUP);
                continue;
            }
            let place = &mut shown[*number as usize];
            if *place == NO_GROUP {
                *place = groups.len() as u32;
                groups.push(*number as usize);
                records.push(0);
            }
            records[*place as usize] += 1;
            as_shown.push(*place);
        }
        if groups.is_empty() {
            return Ok(Failures::default());
        }
        let count = groups.len() as u32;
        let before = items(groups.iter().map(|group| states[*group].as_deref()));
        let (answer, failures) = self.instance.fold(&before, &as_shown, self.batch)?;
        let answer = Bytes::from(answer);
        for failure in failures.iter() {
            let place = as_shown[failure.index as usize];
            if place != NO_GROUP {
                records[place as usize] -= 1;
            }
        }
        // A group that had no accumulator may stay without one only if every record of it failed.
        let may_stay_empty =
            |place: u32| records[place as usize] == 0 && states[groups[place as usize]].is_none();
        let mut after = Vec::with_capacity(groups.len());
        read_states(&answer, count, may_stay_empty, &mut after)?;
        for (group, state) in groups.into_iter().zip(after) {
            if let Some(state) = state {
                states[group] = Some(State::After(answer.slice_ref(state)));
            }
        }
        Ok(failures)
    }

    /// Makes the accumulators of the groups that come about in this turn from two others each.
    fn merge(
        &mut self,
        assignment: &Assignment<'_>,
        turn: u32,
        states: &mut States<'_>,
    ) -> Result<(), FoldError> {
        let merges: Vec<_> = assignment.merges(turn).collect();
        if merges.is_empty() {
            return Ok(());
        }
        let both = merges.iter().flat_map(|merge| merge.from);
        let before = items(both.map(|group| states[group].as_deref()));
        let count = merges.len() as u32;
        let (answer, failures) = self.instance.merge(&before, count)?;
        let answer = Bytes::from(answer);
        if let Some(failure) = failures.first() {
            return Err(FoldError::One {
                record: merges[failure.index as usize].record,
                message: format!("it joins two sessions: {}", failure.message),
            });
        }
        let mut after = Vec::with_capacity(merges.len());
        read_states(&answer, count, |_| false, &mut after)?;
        for (merge, state) in merges.iter().zip(after) {
            states[merge.into] = state.map(|state| State::After(answer.slice_ref(state)));
        }
        Ok(())
    }
}
