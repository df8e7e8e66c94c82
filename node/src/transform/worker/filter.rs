//! A filter's step: batches of which everything is kept are passed on as they are, the others are rebuilt by copying
//! the records that are kept. Must never decode what it only forwards.

use std::ops::Range;

use super::super::answer::check_verdicts;
use super::super::input::{Input, Section};
use super::super::outbox::{Outbox, Outgoing};
use super::{Counts, Ran, Trouble, Worker, broken};

const KEEP: u8 = 1;

impl Worker {
    pub(super) fn run_filter(&mut self, range: Range<usize>) -> Result<Ran, Trouble> {
        let records = range.len() as u32;
        self.input.encode(range.clone(), &mut self.buffer);
        let instance = self.instance.as_mut().expect("the attempt prepared it");
        let (verdicts, failures) = instance.filter(&self.buffer, records)?;
        let kept = u64::from(check_verdicts(&verdicts, &failures, records)?);
        self.check_strict(range.start, &failures)?;
        for (section, part) in self.input.sections_of(range.clone()) {
            let verdicts = &verdicts[part.start - range.start..part.end - range.start];
            send(&self.input, &mut self.outbox, section, part, verdicts)?;
        }
        self.write_failures(range.start, &failures)?;
        let (taken, failed) = (u64::from(records), failures.len() as u64);
        Ok(Ran {
            counts: Counts {
                taken,
                sent: kept,
                failed,
                dropped: taken - kept - failed,
                late: 0,
            },
            ..Ran::default()
        })
    }
}

/// Sends what was kept of one Kafka batch to the first sink.
fn send(
    input: &Input,
    outbox: &mut Outbox,
    section: &Section,
    part: Range<usize>,
    verdicts: &[u8],
) -> Result<(), Trouble> {
    let is_whole = section.is_whole(&part) && verdicts.iter().all(|verdict| *verdict == KEEP);
    if is_whole
        && outbox.takes_whole(0, &section.batch)
        && let Some(partition) = common_partition(input, outbox, section)
    {
        return outbox.push_batch(0, partition, &section.batch).map_err(broken);
    }
    let compression = section.batch.header().compression();
    for (index, verdict) in part.zip(verdicts) {
        if *verdict != KEEP {
            continue;
        }
        let record = Outgoing::of_record(&input.record_of(section, index));
        outbox
            .push(0, &record, compression)
            .map_err(|error| Trouble::unsendable(index, &error))?;
    }
    Ok(())
}

/// The partition that all records of a batch go to, if it is one.
fn common_partition(input: &Input, outbox: &Outbox, section: &Section) -> Option<u32> {
    if !outbox.routes_by_key(0) {
        return Some(0);
    }
    let mut partitions = section
        .records
        .clone()
        .map(|index| outbox.route(0, input.record_of(section, index).record.key));
    let first = partitions.next()?;
    partitions.all(|partition| partition == first).then_some(first)
}
