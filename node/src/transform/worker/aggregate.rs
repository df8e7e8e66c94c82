//! An aggregate's steps: records are grouped by key and window and folded into accumulators; windows that closed, or
//! changed, are told about.

use std::ops::Range;

use super::super::answer::{Outputs, read_keys};
use super::super::changelog::ENTRY_BYTES_MAX;
use super::super::fold::{Fold, FoldError};
use super::super::outbox::Outgoing;
use super::super::windows::{self, Assignment};
use super::room::Room;
use super::{Bisect, Counts, Ran, Trouble, Worker};
use crate::metadata::Emit;
use headwater_protocol::record::Compression;

impl Worker {
    /// Finds windows to tell about when there are none under way.
    pub(super) fn gather_windows(&mut self) {
        if !self.telling.is_empty() {
            return;
        }
        let Some(windows) = &mut self.windows else { return };
        self.changes.groups.extend(windows.sweep());
        match self.rules.emit {
            Emit::Close => self.windows_told = windows.closed(self.rules.batch_bytes_max),
            Emit::Update => {
                // They were told about with their last change.
                let closed = windows.closed(usize::MAX);
                self.changes.groups.extend(windows.remove(&closed));
                self.windows_told = std::mem::take(&mut self.changed);
            }
        }
        let count = self.windows_told.len();
        let mut ranges = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, window) in self.windows_told.iter().enumerate() {
            let size = window.key.len() + window.state.len() + 32;
            if index > start && bytes + size > self.rules.batch_bytes_max {
                ranges.push(start..index);
                (start, bytes) = (index, 0);
            }
            bytes += size;
        }
        ranges.push(start..count);
        self.telling = Bisect::new(ranges.into_iter());
    }

    pub(super) fn run_aggregate(&mut self, range: Range<usize>) -> Result<Ran, Trouble> {
        let records = range.len() as u32;
        self.input.encode(range.clone(), &mut self.buffer);
        let instance = self.instance.as_mut().expect("the attempt prepared it");
        let (answer, key_failures) = instance.keys(&self.buffer, records)?;
        let mut keys = Vec::with_capacity(range.len());
        read_keys(&answer, &key_failures, records, &mut keys)?;
        self.check_strict(range.start, &key_failures)?;
        let windows = self.windows.as_ref().expect("an aggregate has windows");
        let assignment = windows.assign(&keys);
        let fold = Fold {
            instance: self.instance.as_mut().expect("the attempt prepared it"),
            shape: windows.shape(),
            batch: &self.buffer,
        };
        let folded = fold.run(&assignment);
        let (states, fold_failures) = folded.map_err(|error| in_batch(range.start, error))?;
        self.check_strict(range.start, &fold_failures)?;
        let states: Vec<Option<&[u8]>> = states.iter().map(Option::as_deref).collect();
        self.check_room(&assignment, &states)?;
        self.write_failures(range.start, &key_failures)?;
        self.write_failures(range.start, &fold_failures)?;
        for index in &assignment.late {
            self.send_late(range.start + *index as usize)?;
        }
        let windows = self.windows.as_mut().expect("an aggregate has windows");
        self.applied = windows.apply(&assignment, &states);
        let (taken, late) = (u64::from(records), assignment.late.len() as u64);
        let failed = (key_failures.len() + fold_failures.len()) as u64;
        let dropped = keys.iter().filter(|key| key.is_none()).count() as u64 - key_failures.len() as u64;
        Ok(Ran {
            counts: Counts {
                taken,
                sent: 0,
                failed,
                dropped,
                late,
            },
            ..Ran::default()
        })
    }

    /// A record that came after all its windows had closed: to the topic for such records, or the way of failed ones.
    fn send_late(&mut self, index: usize) -> Result<(), Trouble> {
        if !self.rules.has_late_sink {
            let written = self.letter(index, "late", "it came after its window had closed");
            return written.map_err(Trouble::from_blame);
        }
        let sink = self.sinks().len();
        let record = Outgoing::of_record(&self.input.record(index));
        let pushed = self.outbox.push(sink, &record, Compression::None);
        pushed.map_err(|error| Trouble::unsendable(index, &error))
    }

    fn check_room(&mut self, assignment: &Assignment<'_>, states: &[Option<&[u8]>]) -> Result<(), Trouble> {
        let windows = self.windows.as_ref().expect("an aggregate has windows");
        let growth = windows.growth(assignment, states);
        let kept = windows.bytes() + self.keyed().bytes();
        let limit = self.rules.state_bytes_max;
        if kept + growth > limit {
            let reason = format!("the open windows need more than {limit} bytes of state");
            return Err(Trouble::Module { reason });
        }
        let sizes = assignment.groups.iter().zip(states);
        let mut sizes = sizes.map(|(group, state)| group.key.len() + state.map_or(0, <[u8]>::len));
        if let Some(bytes) = sizes.find(|bytes| *bytes > ENTRY_BYTES_MAX) {
            let reason =
                format!("the accumulator of a group has {bytes} bytes, the limit is {ENTRY_BYTES_MAX}");
            return Err(Trouble::Module { reason });
        }
        Ok(())
    }

    /// Tells the module about windows and sends what it makes of them.
    pub(super) fn run_emit(&mut self, range: Range<usize>) -> Result<Ran, Trouble> {
        let told = &self.windows_told[range.clone()];
        windows::encode(told, &mut self.buffer);
        let instance = self.instance.as_mut().expect("the attempt prepared it");
        let (answer, failures) = instance.emit(&self.buffer, told.len() as u32)?;
        self.check_strict(range.start, &failures)?;
        let sinks = self.outbox.sinks().clone();
        let named = self.sinks().len();
        let told = &self.windows_told[range.clone()];
        let mut outputs = Outputs::new(&answer, told.len() as u32, &failures, &sinks[..named])?;
        let mut room = Room::new(self.setup.answer_bytes_max, self.buffer.len());
        let mut counts = Counts {
            failed: failures.len() as u64,
            ..Counts::default()
        };
        while let Some(output) = outputs.next()? {
            let input = output.input as usize;
            let record = Outgoing::of_window(&told[input]).changed_by(&output);
            room.take(&record)?;
            let pushed = self.outbox.push(output.sink, &record, Compression::None);
            pushed.map_err(|error| Trouble::unsendable(range.start + input, &error))?;
            counts.sent += 1;
        }
        for failure in failures.iter() {
            let letter =
                self.window_letter(range.start + failure.index as usize, "rejected", &failure.message);
            letter.map_err(Trouble::from_blame)?;
        }
        if self.rules.emit == Emit::Close {
            self.forgets = self.windows_told[range].to_vec();
        }
        Ok(Ran {
            counts,
            ..Ran::default()
        })
    }
}

/// What is wrong with the batch whose first record has the number `start`.
fn in_batch(start: usize, error: FoldError) -> Trouble {
    match error {
        FoldError::Call(error) => Trouble::Call(error),
        FoldError::One { record, message } => Trouble::One {
            index: start + record as usize,
            reason: "rejected",
            message,
        },
        FoldError::Windows { reason } => Trouble::Module { reason },
    }
}
