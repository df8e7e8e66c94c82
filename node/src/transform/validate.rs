//! What an upload must be: a component of one of our worlds, that imports nothing but ours, compiles, and says what
//! it is. Every refusal is written for the person who built the module.
//! It owns those rules and their words. It must never run a module without limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::PartitionIndex;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use super::MODULE_BYTES_MAX;
use super::abi;
use super::engine::{Engine, Trusted};
use super::instance::{self, CallError, Instance, MODULE_INTERFACE, Module, Setup, StartError};
use super::logs::{LogRing, Logger, MESSAGE_BYTES_MAX};
use super::params::{self, is_plain_name};
use super::request::ModuleFacts;
use crate::metadata::{ParamKind, ParamSpec, World};
use crate::sys::clock::Clock;

const NAME_BYTES_MAX: usize = 100;
const VERSION_BYTES_MAX: usize = 64;
/// How many of a component's imports and exports a refusal names.
const NAMES_SHOWN: usize = 20;
const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
const PARAMS_MAX: usize = 100;
/// What `describe` may use.
const DESCRIBE_MEMORY_BYTES_MAX: u64 = 64 << 20;
const DESCRIBE_CPU_MAX: Duration = Duration::from_secs(1);
const DESCRIBE_ANSWER_BYTES_MAX: u64 = 1 << 20;

const PACKAGE: &str = "headwater:module/";
const IMPORTS: [&str; 4] = ["types", "lookup", "state", "log"];
const RECIPE: &str = "build it with `headwater module build`, or for Rust: RUSTFLAGS='-C linker=wasm-component-ld' \
                      cargo build --release --target wasm32-unknown-unknown";

const WASI_HINT: &str = "WASI is not there: for Rust build for wasm32-unknown-unknown, for Python use \
                         componentize-py --stub-wasi";

/// Why an upload was refused. All are the uploader's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidateError {
    #[error("the upload is empty")]
    Empty,
    #[error("the module has {bytes} bytes, the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("this is not WebAssembly: it does not begin with \\0asm")]
    NotWasm,
    #[error("this is a core module, not a component")]
    CoreModule,
    #[error(
        "the file is damaged or uses WebAssembly features that are off here: {}",
        said(reason)
    )]
    Invalid { reason: String },
    #[error("the component imports {}, which Headwater does not offer", names.join(", "))]
    ForbiddenImport { names: Vec<String> },
    #[error("the component exports no {}", names.join(" and no "))]
    MissingExport {
        names: Vec<String>,
        exported: Vec<String>,
    },
    #[error("the component exports {}: a module is of one world only", names.join(" and "))]
    SeveralWorlds { names: Vec<String> },
    #[error("the component is built against {}, this node has version 1", said(name))]
    OtherVersion { name: String },
    #[error("the component cannot be compiled: {}", said(reason))]
    Compile { reason: String },
    #[error(
        "the component's functions are not those of headwater:module@1.0.0: {}",
        said(reason)
    )]
    Signature { reason: String },
    #[error("`describe` failed: {error}")]
    Describe { error: CallError },
    #[error("`describe` answers something unusable: {reason}")]
    BadDescribe { reason: String },
    #[error("the node has no room to try the module: {reason}")]
    NoRoom { reason: String },
}

impl ValidateError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::CoreModule => Some(RECIPE.to_owned()),
            Self::ForbiddenImport { names } if names.iter().any(|name| name.starts_with("wasi:")) => {
                Some(WASI_HINT.to_owned())
            }
            Self::MissingExport { exported, .. } => {
                let exported = if exported.is_empty() {
                    "nothing".to_owned()
                } else {
                    exported.join(", ")
                };
                Some(format!(
                    "it must export {MODULE_INTERFACE} and one of headwater:module/filter@1.0.0, \
                     headwater:module/mapping@1.0.0 and headwater:module/aggregate@1.0.0; it exports {exported}"
                ))
            }
            _ => None,
        }
    }

    /// The code that the HTTP API and the command line show.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "EMPTY",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::NotWasm | Self::CoreModule => "NOT_A_COMPONENT",
            Self::Invalid { .. } => "INVALID_WASM",
            Self::ForbiddenImport { .. } => "FORBIDDEN_IMPORT",
            Self::MissingExport { .. } => "MISSING_EXPORT",
            Self::SeveralWorlds { .. } => "SEVERAL_WORLDS",
            Self::OtherVersion { .. } => "OTHER_VERSION",
            Self::Compile { .. } => "CANNOT_COMPILE",
            Self::Signature { .. } => "WRONG_SIGNATURE",
            Self::Describe { .. } => "DESCRIBE_FAILED",
            Self::BadDescribe { .. } => "BAD_DESCRIBE",
            Self::NoRoom { .. } => "NO_ROOM",
        }
    }
}

/// What a sound upload is.
pub(crate) struct Validated {
    pub(crate) facts: ModuleFacts,
    pub(crate) compiled: Trusted,
}

/// Checks an upload completely, and compiles it in this process: call it where a thread may be busy for seconds.
pub(crate) fn validate(engine: &Arc<Engine>, clock: &Clock, wasm: &[u8]) -> Result<Validated, ValidateError> {
    let (world, imports) = inspect(wasm)?;
    let compiled = engine.compile(wasm).map_err(|error| ValidateError::Compile {
        reason: format!("{error:#}"),
    })?;
    examine(engine, clock, world, imports, compiled)
}

/// Checks the code of an upload that was found sound: its functions, and what its `describe` answers. A thread may be
/// busy with it for a second.
pub(crate) fn examine(
    engine: &Arc<Engine>,
    clock: &Clock,
    world: World,
    imports: Vec<String>,
    compiled: Trusted,
) -> Result<Validated, ValidateError> {
    let component = engine.load(&compiled);
    let component = component.map_err(|error| ValidateError::Compile {
        reason: format!("{error:#}"),
    })?;
    let module = Module::link(Arc::clone(engine), &component, world);
    let module = module.map_err(|reason| ValidateError::Signature { reason })?;
    let metadata = describe(&module, clock)?;
    let params = check_metadata(&metadata).map_err(|reason| ValidateError::BadDescribe { reason })?;
    let abi::Metadata {
        name,
        version,
        description,
        ..
    } = metadata;
    let facts = ModuleFacts {
        name,
        version,
        description,
        world,
        params,
        imports,
    };
    Ok(Validated { facts, compiled })
}

/// Looks at the bytes alone: kind, soundness, imports and exports.
pub(crate) fn inspect(wasm: &[u8]) -> Result<(World, Vec<String>), ValidateError> {
    if wasm.is_empty() {
        return Err(ValidateError::Empty);
    }
    if wasm.len() > MODULE_BYTES_MAX {
        return Err(ValidateError::TooLarge {
            bytes: wasm.len(),
            limit: MODULE_BYTES_MAX,
        });
    }
    if !wasm.starts_with(b"\0asm") {
        return Err(ValidateError::NotWasm);
    }
    let invalid = |error: wasmparser::BinaryReaderError| ValidateError::Invalid {
        reason: error.to_string(),
    };
    let mut validator = Validator::new_with_features(features());
    let (mut imports, mut exports) = (BTreeSet::new(), BTreeSet::new());
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(invalid)?;
        match &payload {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(ValidateError::CoreModule);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section.clone() {
                    imports.insert(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section.clone() {
                    exports.insert(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    validator.validate_all(wasm).map_err(invalid)?;
    let imports = check_imports(imports)?;
    Ok((check_exports(exports)?, imports))
}

/// What the engine runs.
fn features() -> WasmFeatures {
    let mut features = WasmFeatures::WASM2 | WasmFeatures::COMPONENT_MODEL | WasmFeatures::TAIL_CALL;
    features |= WasmFeatures::EXTENDED_CONST | WasmFeatures::MULTI_MEMORY;
    features.remove(WasmFeatures::RELAXED_SIMD | WasmFeatures::THREADS | WasmFeatures::MEMORY64);
    features
}

/// The part between the package and the version, if the name is of our package at major version 1.
fn ours(name: &str) -> Option<Result<&str, ValidateError>> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    if version.split('.').next() == Some("1") {
        Some(Ok(interface))
    } else {
        Some(Err(ValidateError::OtherVersion {
            name: name.to_owned(),
        }))
    }
}

fn check_imports(names: BTreeSet<String>) -> Result<Vec<String>, ValidateError> {
    let (mut allowed, mut forbidden) = (Vec::new(), Vec::new());
    for name in names {
        match ours(&name).transpose()? {
            Some("types") => {}
            Some(interface) if IMPORTS.contains(&interface) => allowed.push(interface.to_owned()),
            _ => forbidden.push(name),
        }
    }
    if forbidden.is_empty() {
        Ok(allowed)
    } else {
        let names = shown(forbidden);
        Err(ValidateError::ForbiddenImport { names })
    }
}

fn check_exports(names: BTreeSet<String>) -> Result<World, ValidateError> {
    let (mut worlds, mut has_module) = (Vec::new(), false);
    for name in &names {
        match ours(name).transpose()? {
            Some("module") => has_module = true,
            Some("filter") => worlds.push(World::Filter),
            Some("mapping") => worlds.push(World::Map),
            Some("aggregate") => worlds.push(World::Aggregate),
            // Other languages' tools export more than they are asked to.
            _ => {}
        }
    }
    match (worlds.as_slice(), has_module) {
        ([world], true) => Ok(*world),
        ([_, _, ..], _) => {
            let names = worlds.iter().map(|world| instance::interface(*world).to_owned());
            Err(ValidateError::SeveralWorlds {
                names: names.collect(),
            })
        }
        (found, has_module) => {
            let missing = [
                (!has_module, "headwater:module/module"),
                (found.is_empty(), "interface of a world"),
            ];
            let missing = missing
                .iter()
                .filter(|(is_missing, _)| *is_missing)
                .map(|(_, name)| (*name).to_owned());
            Err(ValidateError::MissingExport {
                names: missing.collect(),
                exported: shown(names),
            })
        }
    }
}

fn describe(module: &Module, clock: &Clock) -> Result<abi::Metadata, ValidateError> {
    let setup = Setup {
        memory_bytes_max: DESCRIBE_MEMORY_BYTES_MAX,
        cpu_per_call: DESCRIBE_CPU_MAX,
        answer_bytes_max: DESCRIBE_ANSWER_BYTES_MAX,
        params: Vec::new(),
        tables: Arc::new(BTreeMap::new()),
        logger: Logger::new(
            "upload",
            PartitionIndex(-1),
            Arc::new(LogRing::default()),
            clock.clone(),
        ),
    };
    Instance::describe(module, setup).map_err(|error| match error {
        StartError::Failed(error) => ValidateError::Describe { error },
        StartError::Instantiate { reason } => ValidateError::NoRoom { reason },
        StartError::Signature { reason } => ValidateError::Signature { reason },
        StartError::Refused { message } => ValidateError::BadDescribe { reason: message },
    })
}

/// Checks what a module says about itself; gives its parameters as the metadata holds them.
fn check_metadata(metadata: &abi::Metadata) -> Result<Vec<ParamSpec>, String> {
    check_name(&metadata.name)?;
    check_version(&metadata.version)?;
    if metadata.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(format!(
            "the description is longer than {DESCRIPTION_BYTES_MAX} bytes"
        ));
    }
    if metadata.params.len() > PARAMS_MAX {
        return Err(format!("it has more than {PARAMS_MAX} parameters"));
    }
    let mut names = BTreeSet::new();
    metadata
        .params
        .iter()
        .map(|param| {
            if !names.insert(&*param.name) {
                return Err(format!("parameter {:?} is there twice", param.name));
            }
            check_param(param)
        })
        .collect()
}

/// As many of the names, and as much of each, as a person can read: a component may have a million.
fn shown(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let names = names.into_iter().take(NAMES_SHOWN);
    names.map(|name| beginning(&name)).collect()
}

/// As much of a name as a person can read: a module's own may be a mebibyte.
fn beginning(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

/// As much of a reason as a person can read: names that a component made up are in it.
fn said(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

/// A module's name becomes part of paths and metrics.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if is_plain_name(name, NAME_BYTES_MAX) {
        return Ok(());
    }
    Err(format!(
        "the name {:?} must have 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens",
        beginning(name)
    ))
}

pub(crate) fn check_version(version: &str) -> Result<(), String> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte);
    if (1..=VERSION_BYTES_MAX).contains(&version.len()) && version.bytes().all(is_sound) {
        return Ok(());
    }
    Err(format!(
        "the version {:?} must have 1 to {VERSION_BYTES_MAX} letters, digits, dots, hyphens or +",
        beginning(version)
    ))
}

fn check_param(param: &abi::Param) -> Result<ParamSpec, String> {
    let name = &param.name;
    if !is_plain_name(name, NAME_BYTES_MAX) {
        return Err(format!(
            "the parameter {:?} must be named by lower-case letters, digits and hyphens",
            beginning(name)
        ));
    }
    if param.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(format!(
            "the description of parameter {name:?} is longer than {DESCRIPTION_BYTES_MAX} bytes"
        ));
    }
    let kind = match param.kind {
        abi::ParamKind::Text => ParamKind::Text,
        abi::ParamKind::Integer => ParamKind::Integer,
        abi::ParamKind::Float => ParamKind::Float,
        abi::ParamKind::Boolean => ParamKind::Boolean,
        abi::ParamKind::Duration => ParamKind::Duration,
        abi::ParamKind::Table => ParamKind::Table,
    };
    if let Some(default) = &param.default {
        if param.required {
            return Err(format!(
                "parameter {name:?} is required and has a default as well"
            ));
        }
        params::check_value(kind, default)
            .map_err(|reason| format!("the default of parameter {name:?} {reason}"))?;
    }
    let (default, description) = (param.default.clone(), param.description.clone());
    Ok(ParamSpec {
        name: name.clone(),
        kind,
        required: param.required,
        default,
        description,
    })
}

#[cfg(test)]
mod tests;
