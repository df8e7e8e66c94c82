//! What the metadata says about an uploaded module. The bytes themselves lie in the module store, named by digest.

use serde::{Deserialize, Serialize};

/// One version of one module. Never changes: another upload needs another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    pub name: String,
    pub version: String,
    /// SHA-256 of the component's bytes, in hex.
    pub digest: String,
    pub size: u64,
    pub world: World,
    pub description: String,
    pub params: Vec<ParamSpec>,
    /// The host interfaces it imports: the list of its permissions.
    pub imports: Vec<String>,
    /// Shipped inside the binary.
    #[serde(default)]
    pub builtin: bool,
    pub created_ms: i64,
}

/// Which of the three shapes the module has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    Filter,
    Map,
    Aggregate,
}

/// A parameter that the module asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    pub name: String,
    pub kind: ParamKind,
    pub required: bool,
    pub default: Option<String>,
    pub description: String,
}

/// How a parameter's value is written; it always travels as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamKind {
    Text,
    Integer,
    Float,
    Boolean,
    Duration,
    Table,
}
