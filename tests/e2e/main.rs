//! Ring 4: stories told with real processes and other people's clients. One file for each story.
//!
//! It owns no helper that a second story could want: those are the harness's. Each test starts its own node in its own
//! folder on free ports.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests reach the machine to watch processes"
)]
#![allow(clippy::print_stderr, reason = "a test says what it skipped and why")]

mod cluster;
mod clusters;
mod compile;
mod crashes;
mod dead_letters;
mod demo;
mod faults;
mod full_disk;
mod groups;
mod groups_seen;
mod hostile;
mod kcat;
mod librdkafka;
mod links;
mod malformed;
mod malformed_quic;
mod mirrors;
mod module_author;
mod sdk;
mod sdk_groups;
mod sdk_transactions;
mod shares;
mod start_and_stop;
mod tls;
mod transactions;
mod transactions_seen;
mod transforms_killed;
