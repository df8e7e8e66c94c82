//! What groups, share groups and transactions have in common: a topic of the node's own, and for each of its partitions that this
//! node leads a coordinator, which answers for the keys that belong there.
//!
//! Owns how such a topic is made and which coordinators run. It never looks into what they keep.

mod deploy;
mod log;
mod topic;

pub use deploy::{Deployment, Means, Post};
pub use log::{Entry, Log, Unread, each_record};
pub use topic::{OwnTopic, Unavailable};
