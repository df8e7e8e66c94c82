//! The Kafka wire format: ids, batches and messages. No I/O, no clock, no panic on any input.
//!
//! - [`consumer_protocol`]: what the consumers of a group tell each other.
//! - [`frame`]: the four-byte length in front of every message on a stream.
//! - [`ids`]: the newtypes the rest of the house uses for nodes, partitions, offsets and epochs.
//! - [`kafka`]: the messages, generated from Kafka's definitions.
//! - [`partitioner`]: which partition a key belongs to.
//! - [`primitives`]: the reader and writer of messages, and the value types of the schemas.
//! - [`record`]: record batches.

pub mod consumer_protocol;
pub mod frame;
pub mod ids;
pub mod kafka;
pub mod partitioner;
pub mod primitives;
pub mod record;
