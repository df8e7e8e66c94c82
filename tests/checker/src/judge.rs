//! The judge: takes events one by one, in any order between clients, and gives a verdict in the end.
//!
//! Owns the four witnesses' records (sent, log, readers, replicas) and who hears which event.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use crate::event::{Event, Kind};
use crate::log::{PartitionLog, Witness};
use crate::reader::Readers;
use crate::replicas::Replicas;
use crate::sent::{Outcome, Sent};
use crate::verdict::{Findings, Property, Verdict, Volume};

/// Hands over each line of a history. A last line that was cut off is what a killed client leaves, and is passed over.
pub fn each_line<E: From<io::Error>>(
    mut lines: impl BufRead,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        take(&line)?;
    }
}

/// Takes histories, gives a verdict.
#[derive(Debug, Default)]
pub struct Judge {
    sent: Sent,
    logs: BTreeMap<u32, PartitionLog>,
    readers: Readers,
    replicas: Replicas,
    findings: Findings,
    volume: Volume,
}

impl Judge {
    /// Takes all lines of one file.
    pub fn read(&mut self, lines: impl BufRead) -> io::Result<()> {
        each_line(lines, |line| {
            self.line(line);
            Ok(())
        })
    }

    /// Takes one line.
    pub fn line(&mut self, line: &[u8]) {
        match Event::parse(line) {
            Ok(event) => self.event(&event),
            Err(why) => self.findings.add(Property::History, || {
                format!("{why}: {}", String::from_utf8_lossy(line).trim_end())
            }),
        }
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event<'_>) {
        if self.hear(event).is_none() {
            self.findings.add(Property::History, || {
                format!("an event lacks what its kind needs: {event:?}")
            });
        }
    }

    /// Judges everything that was taken.
    pub fn verdict(mut self) -> Verdict {
        let (findings, volume) = (&mut self.findings, &mut self.volume);
        for partition in self.sent.partitions() {
            self.logs.entry(partition).or_default();
        }
        volume.partitions = self.logs.len() as u64;
        for (partition, log) in &self.logs {
            if !log.is_closed() {
                findings.add(Property::History, || {
                    format!("partition {partition} was not read when all was over")
                });
            }
            volume.in_log += log.judge(*partition, &self.sent, findings);
        }
        let is_closed = |partition: u32| self.logs.get(&partition).is_some_and(PartitionLog::is_closed);
        self.sent.close(is_closed, findings, volume);
        self.replicas.judge(findings, volume);
        if volume.acknowledged == 0 && volume.replicas == 0 {
            findings.add(Property::History, || {
                "nothing was acknowledged: there is nothing to judge".to_owned()
            });
        }
        Verdict::new(self.volume, self.findings)
    }

    /// None if the event lacks something.
    fn hear(&mut self, event: &Event<'_>) -> Option<()> {
        let Event {
            client, partition, ..
        } = *event;
        match event.event {
            Kind::Invoke => {
                let name = self.sent.name(client, partition, event.sequence?)?;
                self.sent.invoke(name, event.at?, &mut self.findings);
            }
            Kind::Ok => self.acknowledged(event)?,
            Kind::Unknown => self.ended(event, Outcome::Unknown)?,
            Kind::Fail => self.ended(event, Outcome::Failed)?,
            Kind::Start => {
                self.readers.start(client, partition, event.offset?);
                if self.readers.is_closing(client) {
                    self.logs.entry(partition).or_default().close();
                }
            }
            Kind::Read => self.given(event)?,
            Kind::Alien => {
                let offset = event.offset?;
                self.readers.read(client, partition, offset, &mut self.findings);
                self.findings.add(Property::Phantom, || {
                    format!("{client}: offset {offset} of partition {partition} is no record of ours")
                });
            }
            Kind::Closing => self.readers.close(client),
            Kind::End => self.logs.entry(partition).or_default().set_end(event.offset?),
            Kind::Batch => self.replicas.batch(
                (client, partition),
                (event.offset?, event.last?),
                event.epoch?,
                event.digest?,
                &mut self.findings,
            ),
            Kind::Replica => self
                .replicas
                .bounds(client, partition, event.offset?, event.last?),
        }
        Some(())
    }

    fn ended(&mut self, event: &Event<'_>, outcome: Outcome) -> Option<()> {
        let name = self.sent.name(event.client, event.partition, event.sequence?)?;
        self.sent.outcome(name, outcome, event.at?, &mut self.findings);
        Some(())
    }

    fn acknowledged(&mut self, event: &Event<'_>) -> Option<()> {
        self.ended(event, Outcome::Acknowledged)?;
        // A broker that remembers a repetition only dimly does not say where the record is.
        let Some(offset) = event.offset else {
            return Some(());
        };
        let name = self.sent.name(event.client, event.partition, event.sequence?)?;
        let log = self.logs.entry(event.partition).or_default();
        log.witness(
            event.partition,
            offset,
            name,
            Witness::Producer,
            &mut self.sent,
            &mut self.findings,
        );
        Some(())
    }

    fn given(&mut self, event: &Event<'_>) -> Option<()> {
        let Event {
            client, partition, ..
        } = *event;
        let offset = event.offset?;
        let name = self.sent.name(event.producer?, partition, event.sequence?)?;
        let witness = if self.readers.is_closing(client) {
            Witness::Closing
        } else {
            Witness::Consumer
        };
        self.volume.read += u64::from(witness == Witness::Consumer);
        self.readers.read(client, partition, offset, &mut self.findings);
        let log = self.logs.entry(partition).or_default();
        log.witness(
            partition,
            offset,
            name,
            witness,
            &mut self.sent,
            &mut self.findings,
        );
        Some(())
    }
}
