//! One line for a run: what it did and which faults it met. A green run in which nothing happened is no proof.

use std::collections::BTreeMap;
use std::fmt;

/// Counters by name, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary(BTreeMap<&'static str, u64>);

impl Summary {
    pub(crate) fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self
            .0
            .iter()
            .map(|(what, count)| format!("{what}={count}"))
            .collect();
        f.write_str(&parts.join(" "))
    }
}
