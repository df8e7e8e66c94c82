//! The handle on transforms of a node that was built without WebAssembly: it passes on what needs no module, and
//! refuses everything that would run one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::{DeployError, DryRunError, ModuleError, NO_WASM, UploadError};
use super::logs::LogLine;
use super::query::{QueryError, StateQuery, StateView};
use super::request::{DryRun, DryRunReport, ModuleFacts, Parts};
use super::spec::TransformSpec;
use super::status::{RunState, TransformStatus};
use super::store::{Store, StoreError};
use crate::controller::{Change, Controller, ProposeError};
use crate::metadata::{Module, Transform, View};
use crate::sys::task::StillRunning;

/// Modules and transforms of this node. Cheap to clone.
#[derive(Clone)]
pub struct Transforms {
    view: View,
    controller: Controller,
    store: Arc<Store>,
}

impl Transforms {
    /// Opens the module store.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            sys,
            view,
            controller,
            folder,
            ..
        } = parts;
        let store = Arc::new(Store::open(Arc::clone(&sys.disk), &folder, &sys.random)?);
        Ok(Self {
            view,
            controller,
            store,
        })
    }

    /// Nothing runs, so nothing is to be stopped.
    pub async fn stop(&self, _patience: Duration) -> Result<(), StillRunning> {
        Ok(())
    }

    pub async fn validate(&self, _wasm: Bytes) -> Result<ModuleFacts, UploadError> {
        Err(UploadError::Unusable(NO_WASM.to_owned()))
    }

    pub async fn upload(
        &self,
        _wasm: Bytes,
        _name: Option<String>,
        _version: Option<String>,
    ) -> Result<Arc<Module>, UploadError> {
        Err(UploadError::Unusable(NO_WASM.to_owned()))
    }

    /// The component as it was uploaded.
    pub async fn wasm(&self, name: &str, version: &str) -> Result<Vec<u8>, ModuleError> {
        let image = self.view.image();
        let unknown = || ModuleError::Unknown {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        let module = image.module(name, version).ok_or_else(unknown)?;
        self.store
            .get(&module.digest)
            .map_err(|error| ModuleError::Unusable(error.to_string()))
    }

    /// Removes a version that no transform uses.
    pub async fn remove_module(&self, name: &str, version: &str) -> Result<(), ModuleError> {
        let change = Change::RemoveModule {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        Ok(self.controller.propose(change).await.map(drop)?)
    }

    pub async fn deploy(&self, _spec: TransformSpec) -> Result<Arc<Transform>, DeployError> {
        Err(DeployError::Unusable(NO_WASM.to_owned()))
    }

    pub async fn pause(&self, name: &str) -> Result<(), ProposeError> {
        self.set_paused(name, true).await
    }

    pub async fn resume(&self, name: &str) -> Result<(), ProposeError> {
        self.set_paused(name, false).await
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<(), ProposeError> {
        let change = Change::SetTransformPaused {
            name: name.to_owned(),
            paused,
        };
        self.controller.propose(change).await.map(drop)
    }

    /// Removes a transform. Its sinks stay.
    pub async fn remove(&self, name: &str) -> Result<(), ProposeError> {
        self.controller
            .propose(Change::RemoveTransform {
                name: name.to_owned(),
            })
            .await
            .map(drop)
    }

    /// Nothing runs, so nobody has a state.
    pub async fn state(&self, _name: &str, query: StateQuery) -> Result<StateView, QueryError> {
        Err(QueryError::NotRunning(query.partition))
    }

    pub fn status(&self, name: &str) -> Option<TransformStatus> {
        let image = self.view.image();
        let transform = image.transforms.get(name)?;
        let state = if transform.paused {
            RunState::Paused
        } else {
            RunState::Stopped {
                reason: NO_WASM.to_owned(),
            }
        };
        Some(TransformStatus::of(state, Vec::new()))
    }

    pub fn logs(&self, _name: &str) -> Vec<LogLine> {
        Vec::new()
    }

    pub async fn dry_run(&self, _dry_run: DryRun) -> Result<DryRunReport, DryRunError> {
        Err(DryRunError::Unusable(NO_WASM.to_owned()))
    }
}
