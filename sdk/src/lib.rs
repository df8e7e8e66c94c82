//! Client of Headwater and of any Kafka broker, over QUIC and TCP.

mod admin;
mod client;
mod config;
pub mod connection;
mod consumer;
mod door;
mod error;
mod partitioner;
mod retry;
pub mod routing;
#[cfg(test)]
mod testing;
mod transport;

pub use admin::*;
pub use client::Client;
pub use config::*;
pub use connection::{CallError, Connection, ConnectionOptions};
pub use consumer::*;
pub use error::Error;
pub use headwater_protocol as protocol;
pub use headwater_protocol::partitioner::{murmur2, partition_for_key};
pub use retry::Backoff;
pub use transport::DialError;
