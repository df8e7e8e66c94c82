//! How a stream between two nodes begins: who speaks, to whom, of which cluster, what for; and the proof that both know
//! the cluster's secret.
//!
//! The proof is an HMAC over the channel that carries it and over both names (RFC 2104, RFC 9266), so that it is worth
//! nothing on another connection or in the other direction. A cluster without a secret believes whoever knows its id, as
//! a Kafka cluster without authentication does.

use std::fmt;
use std::io;

use aws_lc_rs::hmac;
use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::transport::Stream;

/// What this build speaks between nodes.
pub(super) const VERSION: u32 = 1;
/// A hello has a few short names.
const BYTES_MAX: usize = 4096;

/// The first frame of a stream: a length as u32, then JSON. Fields that are not known are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) cluster: String,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) directory: String,
    pub(super) purpose: Purpose,
    pub(super) proof: String,
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Purpose {
    /// Calls of one kind.
    Calls(u8),
    /// Kafka requests.
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) directory: String,
    pub(super) proof: String,
}

/// Why a node does not talk to another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    #[error("it speaks version {spoken}, this node version {VERSION}")]
    Version { spoken: u32 },
    #[error("this node belongs to cluster {mine:?}, the other one to {theirs:?}")]
    Cluster { mine: String, theirs: String },
    #[error("this is node {0}")]
    OtherNode(NodeId),
    #[error("the cluster's secret is another one")]
    Secret,
    #[error(
        "node {node} is known on data directory {known}, and came back on {shown}: it lost what it held; remove it from \
         the cluster and add it again"
    )]
    Directory {
        node: NodeId,
        known: String,
        shown: String,
    },
    #[error("nothing serves {0}")]
    Purpose(String),
}

/// What every node of a cluster knows and nobody else.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Empty: no secret.
    pub fn new(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    pub(super) fn prove(&self, channel: &[u8], from: NodeId, to: NodeId) -> String {
        hex::encode(hmac::sign(&self.0, &spoken(channel, from, to)).as_ref())
    }

    pub(super) fn verify(&self, proof: &str, channel: &[u8], from: NodeId, to: NodeId) -> bool {
        hex::decode(proof)
            .is_ok_and(|proof| hmac::verify(&self.0, &spoken(channel, from, to), &proof).is_ok())
    }
}

fn spoken(channel: &[u8], from: NodeId, to: NodeId) -> Vec<u8> {
    let mut spoken = b"headwater peer 1".to_vec();
    spoken.extend_from_slice(&from.value().to_be_bytes());
    spoken.extend_from_slice(&to.value().to_be_bytes());
    spoken.extend_from_slice(channel);
    spoken
}

/// Says hello and waits for the answer.
pub(super) async fn exchange(stream: &mut Stream, hello: &Hello) -> io::Result<Result<Welcome, Refusal>> {
    write(stream, hello).await?;
    read(stream).await
}

pub(super) async fn write<T: Serialize>(stream: &mut Stream, value: &T) -> io::Result<()> {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_u32(0);
    serde_json::to_writer((&mut frame).writer(), value).expect("only strings and numbers");
    let length = u32::try_from(frame.len() - 4).expect("names are short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    let mut buffers: Vec<Bytes> = vec![frame.freeze()];
    stream.writer.write_buffers(&mut buffers).await
}

pub(super) async fn read<T: for<'a> Deserialize<'a>>(stream: &mut Stream) -> io::Result<T> {
    let bytes = stream.reader.read_u32().await? as usize;
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    if bytes > BYTES_MAX {
        return Err(invalid(format!("a hello of {bytes} bytes")));
    }
    let mut content = vec![0; bytes];
    stream.reader.read_exact(&mut content).await?;
    serde_json::from_slice(&content).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_one_channel_one_direction_and_one_secret() {
        let (one, two) = (NodeId(1), NodeId(2));
        let secret = Secret::new("s");
        let proof = secret.prove(b"channel", one, two);
        assert!(secret.verify(&proof, b"channel", one, two));
        assert!(!secret.verify(&proof, b"another", one, two));
        assert!(!secret.verify(&proof, b"channel", two, one));
        assert!(!Secret::new("").verify(&proof, b"channel", one, two));
        assert!(!secret.verify("no hex", b"channel", one, two));
    }
}
