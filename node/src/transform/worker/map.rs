//! A map's step: each output is completed from its input and gathered for the sink it names.

use std::ops::Range;

use super::super::answer::Outputs;
use super::super::outbox::Outgoing;
use super::room::Room;
use super::{Counts, Ran, Trouble, Worker};

impl Worker {
    pub(super) fn run_map(&mut self, range: Range<usize>) -> Result<Ran, Trouble> {
        let records = range.len() as u32;
        self.input.encode(range.clone(), &mut self.buffer);
        let instance = self.instance.as_mut().expect("the attempt prepared it");
        let (answer, failures) = instance.transform(&self.buffer, records)?;
        self.check_strict(range.start, &failures)?;
        let sinks = self.outbox.sinks().clone();
        let mut outputs = Outputs::new(&answer, records, &failures, &sinks[..self.sinks().len()])?;
        let mut room = Room::new(self.setup.answer_bytes_max, self.buffer.len());
        let sections = self.input.sections();
        let mut at = self.input.section_of(range.start);
        let (mut sent, mut served, mut last) = (0, 0, None);
        while let Some(output) = outputs.next()? {
            let index = range.start + output.input as usize;
            // Outputs come in the order of their inputs, and so do the sections.
            while sections[at].records.end <= index {
                at += 1;
            }
            let section = &sections[at];
            let record = Outgoing::of_record(&self.input.record_of(section, index)).changed_by(&output);
            room.take(&record)?;
            let compression = section.batch.header().compression();
            let pushed = self.outbox.push(output.sink, &record, compression);
            pushed.map_err(|error| Trouble::unsendable(index, &error))?;
            sent += 1;
            served += u64::from(last != Some(output.input));
            last = Some(output.input);
        }
        self.write_failures(range.start, &failures)?;
        let (taken, failed) = (u64::from(records), failures.len() as u64);
        Ok(Ran {
            counts: Counts {
                taken,
                sent,
                failed,
                dropped: taken - served - failed,
                late: 0,
            },
            ..Ran::default()
        })
    }
}
