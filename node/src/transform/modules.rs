//! The modules of this node: uploads checked and kept, components compiled once and loaded when somebody needs them.
//! It owns the engine, which does not exist before the first module is needed, and knows where code comes from: the
//! binary itself for what ships with it, else the store, else the compiler. Nothing here is on a data path.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;

use super::compiler::{CompileError, Compiler, Turn};
use super::depot::DepotError;
use super::engine::{Engine, EngineError, Trusted};
use super::error::UploadError;
use super::instance::Module;
use super::pack::Pack;
use super::request::ModuleFacts;
use super::store::{Store, StoreError, digest_of};
use super::validate::{self, ValidateError};
use crate::metadata::{self, World};
use crate::sys::Sys;
use crate::sys::clock::Clock;
use crate::sys::disk::Disk;
use crate::sys::task::Tasks;

/// Why a module that is known cannot be run here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the module cannot be compiled: {0}")]
    Compile(#[from] CompileError),
    #[error("the module's compiled code cannot be used: {0}")]
    Code(String),
    #[error("the module is not on this node, and cannot be had from the others: {0}")]
    Depot(#[from] DepotError),
    #[error("loading broke off")]
    Unfinished,
}

/// Modules by digest. Shared by everything that runs them.
pub(crate) struct Modules {
    store: Store,
    pack: OnceLock<Pack>,
    engine: OnceLock<Result<Arc<Engine>, EngineError>>,
    compiler: Compiler,
    /// What somebody runs at the moment: all share its code.
    loaded: Mutex<BTreeMap<String, Weak<Module>>>,
    disk: Arc<dyn Disk>,
    tasks: Tasks,
    clock: Clock,
}

/// An upload that was checked.
pub(crate) struct Checked {
    pub(crate) facts: ModuleFacts,
    pub(crate) digest: String,
    wasm: Bytes,
    /// None: the code is in the binary.
    compiled: Option<Trusted>,
}

/// What a look at the bytes of an upload says.
enum Look {
    Known(ModuleFacts),
    New { world: World, imports: Vec<String> },
}

impl Modules {
    /// What runs here is work of `tasks` and ends with it.
    pub(crate) fn new(store: Store, sys: &Sys, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            store,
            pack: OnceLock::new(),
            engine: OnceLock::new(),
            compiler: Compiler::new(sys.program.clone()),
            loaded: Mutex::default(),
            disk: Arc::clone(&sys.disk),
            tasks,
            clock: sys.clock.clone(),
        })
    }

    /// The engine, started when it is first asked for. May take some milliseconds.
    fn engine(&self) -> Result<Arc<Engine>, EngineError> {
        let start = || Engine::start(&self.tasks, &self.clock).map(Arc::new);
        self.engine.get_or_init(start).clone()
    }

    fn pack(&self) -> &Pack {
        self.pack.get_or_init(|| Pack::of_this_program(&*self.disk))
    }

    /// Runs work with the modules where a thread may block, and where it is in nobody's way.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let this = Arc::clone(self);
        self.tasks
            .background("module", move || work(&this))
            .await
            .map_err(|_| LoadError::Unfinished)
    }

    /// Checks an upload. One that does not ship with the node is compiled, and its `describe` called.
    pub(crate) async fn check(self: &Arc<Self>, wasm: Bytes) -> Result<Checked, UploadError> {
        let bytes = wasm.clone();
        let looked = self.blocking(move |modules| modules.look(&bytes)).await?;
        let (digest, look) = looked?;
        let (world, imports) = match look {
            Look::New { world, imports } => (world, imports),
            Look::Known(facts) => {
                return Ok(Checked {
                    facts,
                    digest,
                    wasm,
                    compiled: None,
                });
            }
        };
        let turn = self.compiler.turn().await;
        let compiled = self.compile(&turn, wasm.clone()).await.map_err(refusal)?;
        drop(turn);
        let described = self.blocking(move |modules| {
            let engine = modules.engine().map_err(no_room)?;
            validate::examine(&engine, &modules.clock, world, imports, compiled)
        });
        let valid = described.await??;
        Ok(Checked {
            facts: valid.facts,
            digest,
            wasm,
            compiled: Some(valid.compiled),
        })
    }

    fn look(&self, wasm: &[u8]) -> Result<(String, Look), ValidateError> {
        let digest = digest_of(wasm);
        if let Some(known) = self.pack().module(&digest) {
            let facts = ModuleFacts::of(known);
            return Ok((digest, Look::Known(facts)));
        }
        let (world, imports) = validate::inspect(wasm)?;
        Ok((digest, Look::New { world, imports }))
    }

    /// Keeps a checked upload, and the code compiled from it.
    pub(crate) async fn keep(self: &Arc<Self>, checked: Checked) -> Result<metadata::Module, LoadError> {
        self.blocking(move |modules| {
            let Checked {
                facts,
                digest,
                wasm,
                compiled,
            } = checked;
            modules.store.put(&digest, &wasm)?;
            if let Some(code) = compiled {
                let engine = modules.engine()?;
                modules
                    .store
                    .put_code(&digest, engine.compatibility(), code.bytes())?;
            }
            Ok(facts.into_module(digest, wasm.len() as u64))
        })
        .await?
    }

    /// The component as it was uploaded.
    pub(crate) fn wasm(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        self.store.get(digest)
    }

    /// Keeps what was said to be the component with this digest. None: it is something else.
    pub(crate) fn take_in(&self, digest: &str, wasm: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        if digest_of(&wasm) != digest {
            return Ok(None);
        }
        self.store.put(digest, &wasm)?;
        Ok(Some(wasm))
    }

    pub(crate) fn forget(&self, digest: &str) -> Result<(), StoreError> {
        self.store.remove(digest)
    }

    /// The module, ready to be instantiated. Compiles it if this engine has not yet.
    pub(crate) async fn load(
        self: &Arc<Self>,
        module: &Arc<metadata::Module>,
    ) -> Result<Arc<Module>, LoadError> {
        if let Some(loaded) = self.loaded_here(module).await? {
            return Ok(loaded);
        }
        let turn = self.compiler.turn().await;
        // Whoever had the turn before may have compiled the same.
        if let Some(loaded) = self.loaded_here(module).await? {
            return Ok(loaded);
        }
        let wanted = Arc::clone(module);
        let wasm = self
            .blocking(move |modules| modules.store.get(&wanted.digest))
            .await?;
        let code = self.compile(&turn, wasm?.into()).await?;
        let wanted = Arc::clone(module);
        self.blocking(move |modules| {
            let engine = modules.engine()?;
            modules
                .store
                .put_code(&wanted.digest, engine.compatibility(), code.bytes())?;
            modules.link(engine, &code, &wanted)
        })
        .await?
    }

    async fn loaded_here(
        self: &Arc<Self>,
        module: &Arc<metadata::Module>,
    ) -> Result<Option<Arc<Module>>, LoadError> {
        let module = Arc::clone(module);
        self.blocking(move |modules| modules.load_here(&module)).await?
    }

    /// The module, if its code is anywhere here.
    fn load_here(&self, module: &metadata::Module) -> Result<Option<Arc<Module>>, LoadError> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.get(&module.digest).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        drop(loaded);
        let engine = self.engine()?;
        if let Some(code) = self.pack().code(&module.digest) {
            match self.link(Arc::clone(&engine), &code, module) {
                Ok(linked) => return Ok(Some(linked)),
                Err(reason) => tracing::info!(
                    module = module.name,
                    %reason,
                    "the code in the binary is not for this machine: the module is compiled here"
                ),
            }
        }
        match self.store.code(&module.digest, engine.compatibility())? {
            Some(code) => self.link(engine, &Trusted::vouch(code), module).map(Some),
            None => Ok(None),
        }
    }

    async fn compile(&self, turn: &Turn<'_>, wasm: Bytes) -> Result<Trusted, LoadError> {
        let engine = self.engine()?;
        // Dropped, it kills the process that compiles: nothing else is half done.
        let compiled = turn.compile(engine, &self.tasks, wasm);
        Ok(self.until_cancelled(compiled).await??)
    }

    /// Waits for something, unless the node stops before it is there.
    pub(crate) async fn until_cancelled<T>(&self, what: impl Future<Output = T>) -> Result<T, LoadError> {
        let cancel = self.tasks.cancelled();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(LoadError::Unfinished),
            done = what => Ok(done),
        }
    }

    /// Loads code, and shares it with everybody who runs the module.
    fn link(
        &self,
        engine: Arc<Engine>,
        code: &Trusted,
        module: &metadata::Module,
    ) -> Result<Arc<Module>, LoadError> {
        let component = engine.load(code);
        let component = component.map_err(|error| LoadError::Code(format!("{error:#}")))?;
        let linked = Module::link(engine, &component, module.world).map_err(LoadError::Code)?;
        let linked = Arc::new(linked);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have loaded it meanwhile: then both use his.
        if let Some(first) = loaded.get(&module.digest).and_then(Weak::upgrade) {
            return Ok(first);
        }
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(module.digest.clone(), Arc::downgrade(&linked));
        Ok(linked)
    }
}

/// What the uploader of a module is told when it was not compiled.
fn refusal(error: LoadError) -> UploadError {
    match error {
        LoadError::Compile(CompileError::NoCompiler(reason)) => {
            UploadError::Refused(ValidateError::NoRoom { reason })
        }
        LoadError::Compile(error) => UploadError::Refused(ValidateError::Compile {
            reason: error.to_string(),
        }),
        LoadError::Engine(error) => UploadError::Refused(no_room(error)),
        LoadError::Store(_) | LoadError::Code(_) | LoadError::Depot(_) | LoadError::Unfinished => {
            error.into()
        }
    }
}

fn no_room(error: EngineError) -> ValidateError {
    ValidateError::NoRoom {
        reason: error.to_string(),
    }
}
