//! The broker as a library, in layers: each module may use those above it in this list, never those below.

// L1: the door to the machine.
pub mod config;
pub mod sys;
pub mod telemetry;
// L2: means.
pub mod log;
pub mod security;
pub mod transport;
// L3: what the cluster agreed on, and who else is in it.
pub mod metadata;
pub mod peer;
// L4: machinery.
pub mod controller;
pub mod partition;
pub mod replication;
// L5: services.
pub mod coordination;
pub mod group;
pub mod link;
pub mod share;
pub mod transaction;
pub mod transform;
// L6: the edge.
pub mod http;
pub mod server;
// L7: assembly and commands.
pub mod cli;
pub mod node;
