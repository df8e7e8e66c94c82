//! The modules of this node: uploads checked and kept, components compiled once and loaded when somebody needs them.
//! It owns the engine, which does not exist before the first module is needed. Nothing here is on a data path: it
//! compiles, and waits for the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::engine::{Engine, EngineError, Trusted};
use super::instance::Module;
use super::store::{Store, StoreError};
use super::validate::{self, ValidateError, Validated};
use crate::metadata;
use crate::sys::clock::Clock;
use crate::sys::task::Tasks;

/// Why a module that is known cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the module cannot be compiled: {0}")]
    Compile(String),
    #[error("loading broke off")]
    Unfinished,
}

/// Modules by digest. Shared by everything that runs them.
pub(crate) struct Modules {
    store: Store,
    engine: OnceLock<Result<Arc<Engine>, EngineError>>,
    /// What somebody runs at the moment: all share its code.
    loaded: Mutex<BTreeMap<String, Weak<Module>>>,
    tasks: Tasks,
    clock: Clock,
}

/// An upload that was checked and kept.
pub(crate) struct Kept {
    pub(crate) validated: Validated,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl Modules {
    pub(crate) fn new(store: Store, tasks: Tasks, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            store,
            engine: OnceLock::new(),
            loaded: Mutex::default(),
            tasks,
            clock,
        })
    }

    /// The engine, started when it is first asked for. May take some milliseconds.
    fn engine(&self) -> Result<Arc<Engine>, EngineError> {
        let start = || Engine::start(&self.tasks, &self.clock).map(Arc::new);
        self.engine.get_or_init(start).clone()
    }

    /// Runs work with the modules where a thread may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let this = Arc::clone(self);
        self.tasks
            .blocking("module", move || work(&this))
            .await
            .map_err(|_| LoadError::Unfinished)
    }

    /// Checks an upload. Compiles it, and calls its `describe`.
    pub(crate) fn validate(&self, wasm: &[u8]) -> Result<Validated, ValidateError> {
        let engine = self.engine().map_err(|error| ValidateError::NoRoom {
            reason: error.to_string(),
        })?;
        validate::validate(&engine, &self.clock, wasm)
    }

    /// Keeps a checked upload, and the code compiled from it.
    pub(crate) fn keep(&self, wasm: &[u8], validated: Validated) -> Result<Kept, LoadError> {
        let digest = self.store.put(wasm)?;
        self.store.put_code(
            &digest,
            self.engine()?.compatibility(),
            validated.compiled.bytes(),
        )?;
        Ok(Kept {
            validated,
            digest,
            size: wasm.len() as u64,
        })
    }

    /// The component as it was uploaded.
    pub(crate) fn wasm(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        self.store.get(digest)
    }

    pub(crate) fn forget(&self, digest: &str) -> Result<(), StoreError> {
        self.store.remove(digest)
    }

    /// The module, ready to be instantiated. Compiles it if this engine has not yet.
    pub(crate) fn load(&self, module: &metadata::Module) -> Result<Arc<Module>, LoadError> {
        let known =
            |loaded: &BTreeMap<String, Weak<Module>>| loaded.get(&module.digest).and_then(Weak::upgrade);
        if let Some(loaded) = known(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(loaded);
        }
        let engine = self.engine()?;
        let compile = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
        let code = match self.store.code(&module.digest, engine.compatibility())? {
            Some(code) => Trusted::vouch(code),
            None => {
                let code = Trusted::vouch(
                    engine
                        .compile(&self.store.get(&module.digest)?)
                        .map_err(compile)?,
                );
                self.store
                    .put_code(&module.digest, engine.compatibility(), code.bytes())?;
                code
            }
        };
        let component = engine.load(&code).map_err(compile)?;
        let linked = Module::link(engine, &component, module.world).map_err(LoadError::Compile)?;
        let linked = Arc::new(linked);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have loaded it meanwhile: then both use his.
        if let Some(first) = known(&loaded) {
            return Ok(first);
        }
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(module.digest.clone(), Arc::downgrade(&linked));
        Ok(linked)
    }
}
