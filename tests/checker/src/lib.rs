//! Judges what clients of a replicated log were told against what the log holds: histories in, a verdict out.
//!
//! It owns the properties a log promises and nothing else. It must never depend on the broker or its client: it would
//! share their mistakes. It may not be told who is right either: acknowledgements, reads and replicas are all witnesses.
//!
//! A history is lines of JSON, in any number of files and in any order between clients; the events of one client stand
//! in the order in which it saw them ([`Event`] lists them). Memory is linear and small: about 18 bytes for each record
//! that was sent or read, 32 for each stored batch of a replica, nothing for each line.
//!
//! ```
//! use headwater_checker::{Judge, Property};
//!
//! let mut judge = Judge::default();
//! for line in [
//!     r#"{"event":"invoke","client":"p","partition":0,"sequence":0,"at":10}"#,
//!     r#"{"event":"ok","client":"p","partition":0,"sequence":0,"offset":0,"at":20}"#,
//!     r#"{"event":"closing","client":"c"}"#,
//!     r#"{"event":"start","client":"c","partition":0,"offset":0}"#,
//!     r#"{"event":"end","client":"c","partition":0,"offset":0}"#,
//! ] {
//!     judge.line(line.as_bytes());
//! }
//! // Acknowledged, and not there when the log was read to its end.
//! assert_eq!(judge.verdict().count(Property::Lost), 1);
//! ```

mod effects;
mod event;
mod judge;
mod log;
mod ownership;
mod reader;
mod replicas;
mod sent;
mod tables;
mod verdict;

#[cfg(test)]
mod tests;

pub use effects::{Effect, Effects, EffectsVerdict, Promise, Told};
pub use event::{Event, Kind};
pub use judge::{Judge, each_line};
pub use ownership::{Ownership, OwnershipVerdict, Rule, Turn};
pub use tables::{Delivery, Entry, Rows, Sum, Tables, TablesVerdict, Wrong};
pub use verdict::{Property, Verdict, Volume};
