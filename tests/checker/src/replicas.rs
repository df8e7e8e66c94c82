//! Copies of a partition, batch for batch: they are the same below the lowest of their ends.
//!
//! Owns what each replica stores, by offsets and digests. What stands above the lowest end is not judged: no majority
//! may have it.

use std::collections::BTreeMap;

use crate::verdict::{Findings, Property, Volume};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    base: u64,
    last: u64,
    epoch: i64,
    digest: u64,
}

#[derive(Debug, Default)]
struct Copy {
    start: Option<u64>,
    end: Option<u64>,
    batches: Vec<Stored>,
}

/// All copies of all partitions.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    partitions: BTreeMap<u32, BTreeMap<String, Copy>>,
}

impl Replicas {
    pub(crate) fn bounds(&mut self, replica: &str, partition: u32, start: u64, end: u64) {
        let copy = self.copy(replica, partition);
        (copy.start, copy.end) = (Some(start), Some(end));
    }

    pub(crate) fn batch(
        &mut self,
        (replica, partition): (&str, u32),
        (base, last): (u64, u64),
        epoch: i64,
        digest: u64,
        findings: &mut Findings,
    ) {
        let batches = &mut self.copy(replica, partition).batches;
        if let Some(before) = batches.last()
            && (before.last + 1 != base || before.epoch > epoch)
        {
            findings.add(Property::BrokenReplica, || {
                format!(
                    "{replica}, partition {partition}: a batch {base} to {last} of epoch {epoch} follows {} to {} of \
                     epoch {}",
                    before.base, before.last, before.epoch
                )
            });
        }
        batches.push(Stored {
            base,
            last,
            epoch,
            digest,
        });
    }

    fn copy(&mut self, replica: &str, partition: u32) -> &mut Copy {
        self.partitions
            .entry(partition)
            .or_default()
            .entry(replica.to_owned())
            .or_default()
    }

    pub(crate) fn judge(&self, findings: &mut Findings, volume: &mut Volume) {
        for (partition, copies) in &self.partitions {
            volume.replicas = volume.replicas.max(copies.len() as u64);
            let mut bounds = Vec::new();
            for (replica, copy) in copies {
                match (copy.start, copy.end) {
                    (Some(start), Some(end)) => bounds.push((start, end)),
                    _ => findings.add(Property::History, || {
                        format!("{replica}, partition {partition}: where its log begins and ends is not said")
                    }),
                }
            }
            let from = bounds.iter().map(|(start, _)| *start).max().unwrap_or(0);
            let until = bounds.iter().map(|(_, end)| *end).min().unwrap_or(0);
            let mut copies = copies.iter();
            let Some((first, one)) = copies.next() else {
                continue;
            };
            for (other, two) in copies {
                let pair = format!("partition {partition}, {first} and {other}");
                volume.batches_compared += compare(
                    &pair,
                    one.between(from, until),
                    two.between(from, until),
                    findings,
                );
            }
        }
    }
}

impl Copy {
    fn between(&self, from: u64, until: u64) -> impl Iterator<Item = Stored> + '_ {
        let inside = move |batch: &&Stored| batch.base >= from && batch.base < until;
        self.batches.iter().filter(inside).copied()
    }
}

/// Walks two copies side by side until they part; what follows would only repeat it.
fn compare(
    pair: &str,
    mut one: impl Iterator<Item = Stored>,
    mut two: impl Iterator<Item = Stored>,
    findings: &mut Findings,
) -> u64 {
    let mut compared = 0;
    loop {
        let (left, right) = (one.next(), two.next());
        if left.is_none() && right.is_none() {
            return compared;
        }
        if left != right {
            findings.add(Property::Diverged, || {
                format!(
                    "{pair} part after {compared} batches: {} and {}",
                    shown(left),
                    shown(right)
                )
            });
            return compared;
        }
        compared += 1;
    }
}

fn shown(batch: Option<Stored>) -> String {
    batch.map_or_else(
        || "nothing".to_owned(),
        |Stored {
             base,
             last,
             epoch,
             digest,
         }| format!("{base} to {last}, epoch {epoch}, digest {digest:08x}"),
    )
}
