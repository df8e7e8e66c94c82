//! What the metadata says about sites, links and the way from an edge to its core. Secrets are held as digests or
//! as names of files, never themselves.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An edge site as its core knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    pub name: String,
    pub id: String,
    pub state: SiteState,
    /// SHA-256 of the one-time token, in hex; empty once it is used.
    pub token_digest: String,
    pub invited_ms: i64,
    /// When the token stops being accepted.
    pub expires_ms: i64,
    pub enrolled_ms: Option<i64>,
    /// SHA-256 of the certificate the site holds, in hex.
    pub cert_fingerprint: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    Invited,
    Enrolled,
    Revoked,
}

/// A link between this cluster and one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub name: String,
    /// The site at the far end; on an edge its own name.
    pub site: String,
    pub role: LinkRole,
    pub flows: Vec<Flow>,
    pub paused: bool,
    /// Rises with every change of the declaration.
    pub revision: i64,
    pub created_ms: i64,
}

/// Which end of the link this cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkRole {
    /// The end that is dialled.
    Core,
    /// The end that dials.
    Edge,
}

/// One direction of copying, for the topics that its patterns name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub direction: Direction,
    pub mode: FlowMode,
    /// Topic names; `*` stands for any characters.
    pub topics: Vec<String>,
    /// Put before a topic's name at the copy.
    pub prefix: String,
    pub on_gap: GapPolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Edge to core.
    Up,
    /// Core to edge.
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowMode {
    /// Same offsets, same bytes.
    Mirror,
}

/// What to do about records that the source would delete before they were copied, or has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapPolicy {
    /// The source keeps what was not copied yet, up to this many bytes.
    Hold { bytes: u64 },
    /// The copy notes the gap and goes on behind it.
    MarkGap,
}

/// On an edge: the core it dials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The link it serves.
    pub link: String,
    /// This site's name, as the core knows it.
    pub site: String,
    /// The core's cluster.
    pub cluster_id: String,
    /// Where the core accepts QUIC, as `host:port`.
    pub core_quic: String,
    /// The core's authority, which its certificate must come from.
    pub core_ca_pem: String,
    /// What this site shows.
    pub certificate_pem: String,
    /// The private key's file, relative to the security folder of the data directory.
    pub key_file: String,
}
