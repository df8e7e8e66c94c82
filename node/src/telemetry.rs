//! What an operator sees: log lines (`logging`), metrics (`metrics`, every name in `names`) and health (`health`).
//!
//! Owns the recording; it knows nothing of who records, and serves nothing itself: `http` does.

pub mod health;
pub mod logging;
pub mod metrics;
pub mod names;

pub use health::Health;
pub use metrics::{Counter, Gauge, Histogram, Metrics};
