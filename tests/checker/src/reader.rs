//! Where each consumer is in each partition: it only moves forward, one offset at a time.
//!
//! Owns one number for each consumer and partition.

use std::collections::{BTreeMap, BTreeSet};

use crate::verdict::{Findings, Property};

/// All consumers.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// The offset that each is given next.
    next: BTreeMap<String, BTreeMap<u32, u64>>,
    closing: BTreeSet<String>,
}

impl Readers {
    pub(crate) fn is_closing(&self, client: &str) -> bool {
        self.closing.contains(client)
    }

    pub(crate) fn close(&mut self, client: &str) {
        self.closing.insert(client.to_owned());
    }

    pub(crate) fn start(&mut self, client: &str, partition: u32, offset: u64) {
        self.of(client).insert(partition, offset);
    }

    /// The consumer was given the record at this offset.
    pub(crate) fn read(&mut self, client: &str, partition: u32, offset: u64, findings: &mut Findings) {
        match self.of(client).insert(partition, offset + 1) {
            None => findings.add(Property::History, || {
                format!(
                    "{client} was given offset {offset} of partition {partition} and never began to read it"
                )
            }),
            Some(expected) if offset > expected => findings.add(Property::ReadGap, || {
                format!(
                    "{client}, partition {partition}: offset {offset} after {}",
                    before(expected)
                )
            }),
            Some(expected) if offset < expected => findings.add(Property::ReadAgain, || {
                format!(
                    "{client}, partition {partition}: offset {offset} after {}",
                    before(expected)
                )
            }),
            Some(_) => {}
        }
    }

    fn of(&mut self, client: &str) -> &mut BTreeMap<u32, u64> {
        // Looked up first: an entry would copy the name for every record.
        if !self.next.contains_key(client) {
            self.next.insert(client.to_owned(), BTreeMap::new());
        }
        self.next
            .get_mut(client)
            .expect("it was put there if it was missing")
    }
}

fn before(next: u64) -> String {
    next.checked_sub(1)
        .map_or_else(|| "the start".to_owned(), |offset| offset.to_string())
}
