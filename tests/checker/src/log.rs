//! What a partition holds, by everybody who has seen a part of it.
//!
//! Owns a name and a byte for each offset. It must never prefer one witness to another.

use crate::sent::{Name, Sent};
use crate::verdict::{Findings, Property};

/// A consumer was given it.
const READ: u8 = 1;
/// It was there when everything was over.
const FINAL: u8 = 2;

/// More than any run writes; a higher offset is a mistake.
const OFFSET_MAX: u64 = 1 << 33;

/// Who says what an offset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    /// The producer, which was told the offset.
    Producer,
    Consumer,
    /// A consumer, after everything was over.
    Closing,
}

/// One partition.
///
/// - An offset holds the record that its first witness has seen there; whoever sees another is a finding.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    contents: Vec<u64>,
    marks: Vec<u8>,
    /// Where the log ends, as a closing consumer was told.
    end: Option<u64>,
    /// A closing consumer has begun.
    is_closing: bool,
}

impl PartitionLog {
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closing
    }

    pub(crate) fn set_end(&mut self, end: u64) {
        self.end = Some(self.end.map_or(end, |known| known.max(end)));
    }

    pub(crate) fn witness(
        &mut self,
        partition: u32,
        offset: u64,
        name: Name,
        witness: Witness,
        sent: &mut Sent,
        findings: &mut Findings,
    ) {
        if offset >= OFFSET_MAX {
            findings.add(Property::History, || {
                format!("partition {partition}: offset {offset} cannot be")
            });
            return;
        }
        let place = offset as usize;
        if self.contents.len() <= place {
            self.contents.resize(place + 1, 0);
            self.marks.resize(place + 1, 0);
        }
        match Name::from_stored(self.contents[place]) {
            None => self.contents[place] = name.stored(),
            Some(known) if known == name => {}
            Some(known) => findings.add(Property::TwoContents, || {
                format!("offset {offset}: {}, and {}", sent.show(known), sent.show(name))
            }),
        }
        if witness != Witness::Producer {
            sent.mark_seen(name);
        }
        match witness {
            Witness::Producer => {}
            Witness::Consumer => self.marks[place] |= READ,
            Witness::Closing => {
                let is_new = self.marks[place] & FINAL == 0;
                self.marks[place] |= FINAL;
                if is_new && sent.mark_in_log(name) {
                    findings.add(Property::Duplicate, || {
                        format!("{}, again at offset {offset}", sent.show(name))
                    });
                }
            }
        }
    }

    /// Judges what can be said only when everything is known. Answers how many records the log holds.
    pub(crate) fn judge(&self, partition: u32, sent: &Sent, findings: &mut Findings) -> u64 {
        if !self.is_closing {
            return 0;
        }
        self.judge_end(partition, findings);
        self.judge_order(sent, findings);
        self.judge_times(sent, findings);
        self.marks.iter().filter(|mark| *mark & FINAL != 0).count() as u64
    }

    fn judge_end(&self, partition: u32, findings: &mut Findings) {
        for (offset, mark) in self.marks.iter().enumerate() {
            if mark & READ != 0 && mark & FINAL == 0 {
                findings.add(Property::Vanished, || {
                    format!("partition {partition}, offset {offset}")
                });
            }
        }
        let reached = self
            .marks
            .iter()
            .rposition(|mark| mark & FINAL != 0)
            .map_or(0, |last| last as u64 + 1);
        match self.end {
            Some(end) if reached >= end => {}
            told => findings.add(Property::History, || {
                format!("partition {partition} was read to {reached}, its end is {told:?}")
            }),
        }
    }

    /// Each producer's records rise along the log. One that comes back is a duplicate, and said as such.
    fn judge_order(&self, sent: &Sent, findings: &mut Findings) {
        let mut last: Vec<Option<u64>> = Vec::new();
        for (offset, name) in self.held() {
            let stream = name.stream();
            if last.len() <= stream {
                last.resize(stream + 1, None);
            }
            match last[stream] {
                Some(before) if name.sequence() < before => findings.add(Property::Reordered, || {
                    format!("{} at offset {offset}, behind record {before}", sent.show(name))
                }),
                _ => last[stream] = Some(name.sequence()),
            }
        }
    }

    /// What was acknowledged before something else was sent stands ahead of it.
    fn judge_times(&self, sent: &Sent, findings: &mut Findings) {
        let mut earliest: Option<(u32, u64, Name)> = None;
        for (offset, name) in self.held().rev() {
            if let (Some((acknowledged, later, other)), Some(invoked)) = (earliest, sent.invoked_at(name))
                && acknowledged < invoked
            {
                findings.add(Property::RealTime, || {
                    format!(
                        "{} at offset {offset} was sent after {} at offset {later} was acknowledged",
                        sent.show(name),
                        sent.show(other)
                    )
                });
            }
            if let Some(at) = sent.acknowledged_at(name)
                && earliest.is_none_or(|(known, ..)| at < known)
            {
                earliest = Some((at, offset, name));
            }
        }
    }

    /// The log in the end: offsets with their records.
    fn held(&self) -> impl DoubleEndedIterator<Item = (u64, Name)> + '_ {
        let marked = self.contents.iter().zip(&self.marks).enumerate();
        marked.filter_map(|(offset, (stored, mark))| {
            let name = Name::from_stored(*stored)?;
            (mark & FINAL != 0).then_some((offset as u64, name))
        })
    }
}
