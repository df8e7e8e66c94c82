//! What must hold, one file a property: what it says, why it might seem broken when it is not, and a made-up breach as a
//! test.
//!
//! All are pure: facts go in, a violation comes out or none. They must never ask the cluster anything.

pub(crate) mod copies;
pub(crate) mod groups;
pub(crate) mod images;
pub(crate) mod keys;
pub(crate) mod leaders;
pub(crate) mod levels;
pub(crate) mod lost;
pub(crate) mod monotone;
pub(crate) mod order;
pub(crate) mod phantom;
pub(crate) mod place;
pub(crate) mod replicas;
pub(crate) mod transactions;
pub(crate) mod watermarks;
pub(crate) mod whole;

use std::fmt;

/// A property that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Those that look at each thing a client tries or sees.
#[derive(Debug, Default)]
pub(crate) struct Online {
    pub(crate) phantom: phantom::Phantom,
    pub(crate) place: place::Place,
    pub(crate) order: order::Order,
    pub(crate) monotone: monotone::Monotone,
    pub(crate) transactions: transactions::Transactions,
    pub(crate) copies: copies::Copies,
    pub(crate) groups: groups::Groups,
    pub(crate) keys: keys::Keys,
}

/// Those that look at the nodes from time to time.
#[derive(Debug, Default)]
pub(crate) struct Regular {
    pub(crate) watermarks: watermarks::Watermarks,
    pub(crate) leaders: leaders::Leaders,
    pub(crate) images: images::Images,
}

/// Names for made-up breaches.
#[cfg(test)]
pub(crate) mod made_up {
    use crate::client::Partition;
    use crate::oracle::Mark;

    pub(crate) fn partition(index: i32) -> Partition {
        Partition {
            topic: "t".to_owned(),
            index,
        }
    }

    pub(crate) fn mark(producer: u32, number: u32) -> Mark {
        Mark { producer, number }
    }
}
