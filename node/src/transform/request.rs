//! What callers ask the transforms of a node for, and what they get back. Values only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use headwater_protocol::ids::{NodeId, Offset, PartitionIndex};

use super::logs::LogLine;
use super::outside::Outside;
use super::spec::WindowSpec;
use crate::controller::Controller;
use crate::metadata::{Module, ModuleRef, ParamSpec, View, World};
use crate::partition::Registry;
use crate::sys::Sys;
use crate::telemetry::Metrics;

/// What the transforms of a node are built from.
pub struct Parts {
    pub sys: Sys,
    pub view: View,
    pub controller: Controller,
    pub registry: Registry,
    pub metrics: Metrics,
    pub node: NodeId,
    /// Where modules are kept.
    pub folder: PathBuf,
    /// Of the topic that has the modules, where there are as many nodes.
    pub replication_factor: i16,
    /// How many nodes the quorum is meant to have.
    pub voters: usize,
    /// The cluster around its pipelines.
    pub outside: Arc<dyn Outside>,
}

/// A module as `validate` sees it, before anything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFacts {
    pub name: String,
    pub version: String,
    pub description: String,
    pub world: World,
    pub params: Vec<ParamSpec>,
    pub imports: Vec<String>,
}

impl ModuleFacts {
    pub(crate) fn of(module: &Module) -> Self {
        Self {
            name: module.name.clone(),
            version: module.version.clone(),
            description: module.description.clone(),
            world: module.world,
            params: module.params.clone(),
            imports: module.imports.clone(),
        }
    }

    /// As the metadata has it, but for the time of its making.
    pub(crate) fn into_module(self, digest: String, size: u64) -> Module {
        Module {
            name: self.name,
            version: self.version,
            digest,
            size,
            world: self.world,
            description: self.description,
            params: self.params,
            imports: self.imports,
            builtin: false,
            created_ms: 0,
        }
    }
}

/// A header, with an owned copy of its bytes.
pub type OwnedHeader = (String, Option<Vec<u8>>);

/// A record that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub partition: PartitionIndex,
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<OwnedHeader>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Dropped,
    /// It became the outputs.
    Mapped,
    Failed,
}

impl Fate {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Mapped => "mapped",
            Self::Failed => "failed",
        }
    }
}

/// A record that would have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldSend {
    /// None: the transform's first sink.
    pub topic: Option<String>,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<OwnedHeader>,
}

/// One record, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub input: Sample,
    pub fate: Fate,
    /// For an aggregate: what the windows that this record was the last of would send when they close.
    pub outputs: Vec<WouldSend>,
    pub error: Option<String>,
}

/// What to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    pub module: ModuleRef,
    pub params: BTreeMap<String, String>,
    pub source: String,
    /// None: all partitions.
    pub partition: Option<PartitionIndex>,
    /// None: the last records there are.
    pub offset: Option<Offset>,
    pub limit: usize,
    pub lookups: BTreeMap<String, String>,
    /// For aggregates: the size of tumbling windows, short for a `window` of that kind.
    pub window_ms: Option<i64>,
    /// For aggregates; tumbling ones of an hour if neither is given.
    pub window: Option<WindowSpec>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRunReport {
    pub results: Vec<Tried>,
    pub cpu_us: u64,
    pub log: Vec<LogLine>,
}
