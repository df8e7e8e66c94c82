//! One typed tree of settings, from defaults, a TOML file, `HEADWATER_*` variables and flags, in rising priority.
//!
//! Every key is declared once (`server` and its parts, `topic`) with its type, default and meaning; an unknown one is
//! refused by naming the nearest known one. Each module receives only its branch. Nothing here reads a file or a variable
//! by itself: `main` hands the text in.

mod cleaner;
mod client_metrics;
mod dynamic;
pub mod file;
mod group;
pub mod properties;
pub mod server;
mod share;
mod throttled;
mod tls;
pub mod topic;
mod transaction;
pub mod units;

pub use cleaner::LogCleaner;
pub use dynamic::Dynamic;
pub use group::GroupConfig;
pub use server::{
    Advertise, BrokerConfig, LeaderBalance, Listen, Liveness, LogFormat, NodeConfig, Replication, Telemetry,
    Voter,
};
pub use share::ShareConfig;
pub use throttled::Throttled;
pub use tls::{CertificateFiles, ClientAuth, Tls};
pub use topic::TopicConfig;
pub use transaction::TransactionConfig;
