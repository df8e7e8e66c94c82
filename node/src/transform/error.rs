//! Why an operation on modules or transforms did not happen. Only the edge turns it into codes of its own.

use super::params::ParamError;
use super::spec::SpecError;
use crate::controller::ProposeError;

#[cfg(feature = "wasm")]
use super::instance::StartError;
#[cfg(feature = "wasm")]
use super::validate::ValidateError;

/// What a node without WebAssembly says to everything that would need it.
#[cfg(not(feature = "wasm"))]
pub(crate) const NO_WASM: &str = "this node was built without WebAssembly";

/// Why a module was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The upload itself: the uploader can mend it.
    #[cfg(feature = "wasm")]
    #[error(transparent)]
    Refused(#[from] ValidateError),
    /// The node: it cannot keep or compile it.
    #[error("the module cannot be taken in: {0}")]
    Unusable(String),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl UploadError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            #[cfg(feature = "wasm")]
            Self::Refused(error) => error.hint(),
            Self::Unusable(_) | Self::Propose(_) => None,
        }
    }

    /// The code that the HTTP API and the command line show.
    pub const fn code(&self) -> &'static str {
        match self {
            #[cfg(feature = "wasm")]
            Self::Refused(error) => error.code(),
            Self::Unusable(_) => "UNUSABLE",
            Self::Propose(ProposeError::Exists { .. }) => "MODULE_EXISTS",
            Self::Propose(_) => "REFUSED",
        }
    }
}

/// Why a module was not handed out or removed.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("module {name} {version} is not known")]
    Unknown { name: String, version: String },
    #[error("the module cannot be used: {0}")]
    Unusable(String),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Why a transform was not deployed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Params(#[from] ParamError),
    /// The module itself refuses to be set up so.
    #[cfg(feature = "wasm")]
    #[error(transparent)]
    SetUp(#[from] StartError),
    #[error("the module cannot be used: {0}")]
    Unusable(String),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Why a module could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("topic {0:?} or its partition is not known here")]
    NoTopic(String),
    #[error(transparent)]
    Windows(#[from] SpecError),
    #[error(transparent)]
    Params(#[from] ParamError),
    #[error("{0}")]
    Table(String),
    #[error("the records cannot be read: {0}")]
    Read(String),
    #[error("{0}")]
    SetUp(String),
    #[error("the module cannot be used: {0}")]
    Unusable(String),
}
