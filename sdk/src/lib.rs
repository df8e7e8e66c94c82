//! Client of Headwater and of any Kafka broker (2.1 and later), over QUIC and TCP.
//!
//! ```no_run
//! use headwater_sdk::{Client, Config, ConsumerConfig, NewTopic, ProducerConfig, Record, Start, Trust};
//!
//! # async fn story() -> Result<(), Box<dyn std::error::Error>> {
//! // QUIC first; TCP when UDP does not get through.
//! let config = Config::new("quic://localhost:9092, localhost:9092")?;
//! let client = Client::connect(config.with_trust(Trust::SkipVerification)).await?;
//! client.admin().create_topic(&NewTopic::new("flights", 3)).await?;
//!
//! let producer = client.producer(ProducerConfig::default())?;
//! let delivery = producer.send("flights", Record::value("late").key("AA1")).await?;
//! println!("written at {:?}", delivery.receipt().await?);
//! producer.close().await;
//!
//! let mut consumer = client.consumer(ConsumerConfig::default())?;
//! consumer.assign_all("flights", Start::Earliest).await?;
//! let record = consumer.next().await?;
//! println!("{}: {:?}", record.offset, record.value);
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`] finds the cluster, keeps its connections and knows who leads what. Everything else is made
//!   from it and shares it.
//! - [`Producer`] batches records, writes each once and in order, and tells what became of it. With a transactional id it
//!   writes them in transactions.
//! - [`Consumer`] reads assigned partitions from any place, ahead of its reader, within a budget of bytes.
//! - [`GroupConsumer`] reads its share of some topics, together with the other members of a group, and commits.
//! - [`Admin`] sees to topics, settings, offsets, the places of replicas, groups, transactions and the members of the cluster.
//! - [`Connection`] is one pipelined connection over any stream of bytes, for those who have their own.
//!
//! # Whom to trust
//! QUIC is always encrypted, so a client says whose certificate it accepts: [`Trust::Ca`] takes the
//! authority that a cluster made at its first start, [`Trust::Fingerprint`] pins one certificate, and
//! [`Trust::SkipVerification`] is for tests. Plain TCP needs none.
//!
//! # When the network changes
//! [`Client::rebind`] moves all QUIC connections to a new local port; requests under way go on. A connection
//! that is lost is replaced, and what a producer had under way is sent again in order. When QUIC cannot
//! reach the cluster any more, the addresses of [`Config::bootstrap`] are tried anew, TCP too.
//!
//! # Cancelling
//! Every `async fn` says what a dropped future means. All of them need a tokio runtime with time and I/O.
//!
//! # Memory
//! What is bounded: records held by a producer ([`ProducerConfig::buffer_memory`]), bytes fetched ahead by a
//! consumer ([`ConsumerConfig::prefetch_bytes`]), requests without an answer per connection and the size of
//! an answer ([`Limits`]).

mod admin;
mod client;
mod config;
pub mod connection;
mod consumer;
mod door;
mod error;
mod group;
mod partitioner;
mod producer;
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
pub use group::*;
pub use headwater_protocol as protocol;
pub use headwater_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId};
pub use headwater_protocol::partitioner::{murmur2, partition_for_key};
pub use headwater_protocol::record::{Compression, HeaderRef};
pub use producer::*;
pub use retry::Backoff;
pub use transport::DialError;
