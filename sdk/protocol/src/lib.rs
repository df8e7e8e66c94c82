//! The Kafka wire format: ids, batches and messages. No I/O, no clock, no panic on any input.

pub mod ids;
pub mod record;
