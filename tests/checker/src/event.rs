//! One line of a history, and how it is read.
//!
//! Owns the format. Lines borrow from their buffer; nothing is kept.

use serde::{Deserialize, Serialize};

/// What one client, or one replica, saw.
///
/// - A record's name is its producer, its partition and its sequence number, which counts from 0 in each partition.
/// - `at` is in microseconds of one clock that all clients share and that never steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Event<'a> {
    /// What happened, by one of the names in [`Kind`].
    pub event: Kind,
    /// Who saw it: a producer, a consumer, or a replica by its node.
    #[serde(borrow)]
    pub client: &'a str,
    #[serde(default)]
    pub partition: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Of a read: whose record it was.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<&'a str>,
    /// Of a stored batch: its last offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Of a stored batch: a digest of all its bytes that replicas must share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A producer is about to send a record.
    Invoke,
    /// It was acknowledged, at this offset if the broker said one.
    Ok,
    /// It may have been written and may not.
    Unknown,
    /// It was not written, says the client.
    Fail,
    /// A consumer begins to read a partition at this offset, or goes on there.
    Start,
    /// A consumer was given a record.
    Read,
    /// A consumer was given something that no producer of ours makes: torn, shifted or foreign.
    Alien,
    /// What this consumer reads is the log as it stands when everything is over.
    Closing,
    /// A closing consumer was told that the partition ends before this offset.
    End,
    /// A replica stores a batch: `offset` to `last`.
    Batch,
    /// A replica's log of a partition begins at `offset` and ends before `last`.
    Replica,
}

impl<'a> Event<'a> {
    /// An event with nothing but its kind and client.
    pub fn new(event: Kind, client: &'a str, partition: u32) -> Self {
        Self {
            event,
            client,
            partition,
            sequence: None,
            offset: None,
            producer: None,
            last: None,
            epoch: None,
            digest: None,
            at: None,
        }
    }

    pub fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}
