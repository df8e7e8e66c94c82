//! One guest: a component loaded once (`Module`), and an instance of it that is called with a batch at a time.
//! It owns the calls and what their failures mean. A call blocks its thread and is made on a thread that may block.
//! An instance that trapped, or whose answer broke the contract, must never be called again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Func, InstancePre, Lift, Lower,
};
use wasmtime::{FrameInfo, Store, Trap, WasmBacktrace};

use super::abi;
use super::answer::{AnswerError, Failure, Failures};
use super::engine::{Engine, Running};
use super::host::{self, Host, Interrupted};
use super::keyed::{KeyedStore, TooMuchState};
use super::logs::{self, Logger};
use super::table::Table;
use crate::metadata::World;

/// What failures and their messages may take beside the answer itself.
const FAILURES_BYTES_MAX: usize = 4 << 20;
/// How much of a trap's backtrace is shown.
const FRAMES_MAX: usize = 4;

pub(crate) const MODULE_INTERFACE: &str = "headwater:module/module@1.0.0";

/// The interface that makes a component a module of this world.
pub(crate) const fn interface(world: World) -> &'static str {
    match world {
        World::Filter => "headwater:module/filter@1.0.0",
        World::Map => "headwater:module/mapping@1.0.0",
        World::Aggregate => "headwater:module/aggregate@1.0.0",
    }
}

/// The interface of an aggregate that can make one accumulator of two.
const MERGING_INTERFACE: &str = "headwater:module/merging@1.0.0";
/// The places of an aggregate's calls.
const FOLD: usize = 1;
const EMIT: usize = 2;
const MERGE: usize = 3;

/// The functions of a world, in the order of their places.
const fn functions(world: World) -> &'static [&'static str] {
    match world {
        World::Filter => &["filter"],
        World::Map => &["transform"],
        World::Aggregate => &["keys", "fold", "emit", "merge"],
    }
}

/// Why a call gave no usable answer. The instance is of no more use after any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the module used more than its {limit_ms} ms of CPU time for one batch")]
    Timeout { limit_ms: u64 },
    #[error("the module needed more than its {limit_bytes} bytes of memory, then trapped: {trap}")]
    Memory { limit_bytes: u64, trap: String },
    #[error("the module trapped: {trap}")]
    Trap { trap: String },
    #[error("the module's answer is larger than {limit_bytes} bytes")]
    AnswerTooLarge { limit_bytes: u64 },
    #[error("the records that the module's answer makes are larger than {limit_bytes} bytes")]
    RecordsTooLarge { limit_bytes: u64 },
    #[error("the module broke the contract: {0}")]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    State(#[from] TooMuchState),
    #[error("the node is stopping")]
    Stopping,
}

impl CallError {
    /// One word for it, as dead letters and metrics have it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Memory { .. } => "memory",
            Self::Trap { .. } => "trap",
            Self::AnswerTooLarge { .. } | Self::RecordsTooLarge { .. } => "output-too-large",
            Self::Answer(_) => "bad-answer",
            Self::State(_) => "state",
            Self::Stopping => "stopping",
        }
    }
}

/// Why there is no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Not the module's fault: too many instances exist on this node.
    #[error("no instance can be made: {reason}")]
    Instantiate { reason: String },
    #[error("the module's functions are not those of its world: {reason}")]
    Signature { reason: String },
    #[error("the module failed while it was set up: {0}")]
    Failed(#[from] CallError),
    /// What the module itself says against its parameters.
    #[error("the module refuses its parameters: {message}")]
    Refused { message: String },
}

/// A component, linked and ready to be instantiated.
pub(crate) struct Module {
    engine: Arc<Engine>,
    pre: InstancePre<Host>,
    world: World,
    describe: ComponentExportIndex,
    configure: ComponentExportIndex,
    calls: [Option<ComponentExportIndex>; 4],
}

impl Module {
    /// Links the component. Fails with a reason when its functions are not those of the world.
    pub(crate) fn link(engine: Arc<Engine>, component: &Component, world: World) -> Result<Self, String> {
        let pre = engine
            .linker()
            .instantiate_pre(component)
            .map_err(|error| format!("{error:#}"))?;
        let find = |interface: &str, name: &str| {
            let instance = component.get_export_index(None, interface);
            let instance = instance.ok_or_else(|| format!("interface {interface} is not exported"))?;
            let function = component.get_export_index(Some(&instance), name);
            function.ok_or_else(|| format!("{interface} has no function {name}"))
        };
        let mut calls = [None; 4];
        for (call, name) in calls.iter_mut().zip(functions(world)).take(MERGE) {
            *call = Some(find(interface(world), name)?);
        }
        let merges = component.get_export_index(None, MERGING_INTERFACE).is_some();
        if world == World::Aggregate && merges {
            calls[MERGE] = Some(find(MERGING_INTERFACE, functions(world)[MERGE])?);
        }
        let describe = find(MODULE_INTERFACE, "describe")?;
        let configure = find(MODULE_INTERFACE, "configure")?;
        Ok(Self {
            engine,
            pre,
            world,
            describe,
            configure,
            calls,
        })
    }

    pub(crate) fn world(&self) -> World {
        self.world
    }

    /// Whether it can make one accumulator of two, which sessions need.
    pub(crate) fn can_merge(&self) -> bool {
        self.calls[MERGE].is_some()
    }
}

/// What an instance may use, and what it is given.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) memory_bytes_max: u64,
    pub(crate) cpu_per_call: Duration,
    pub(crate) answer_bytes_max: u64,
    /// Complete and checked.
    pub(crate) params: Vec<(String, String)>,
    /// The tables that may be opened, by the name the module knows.
    pub(crate) tables: Arc<BTreeMap<String, Arc<Table>>>,
    pub(crate) logger: Logger,
}

type Answered = (Vec<u8>, Vec<abi::Failure>);

/// One guest in its own memory.
///
/// - It belongs to one partition of one transform and is called by one thread at a time.
pub(crate) struct Instance {
    store: Store<Host>,
    engine: Arc<Engine>,
    setup: Setup,
    /// In the order of the world's functions; looked up once.
    calls: [Option<Func>; 4],
    cpu: Duration,
}

/// Why an instance could not be made, and the keyed store as it was committed.
pub(crate) struct NotStarted {
    pub(crate) error: StartError,
    pub(crate) keyed: KeyedStore,
}

impl Instance {
    /// Makes an instance and configures it. On failure the keyed store comes back.
    pub(crate) fn start(module: &Module, setup: Setup, keyed: KeyedStore) -> Result<Self, Box<NotStarted>> {
        let mut instance = Self::blank(module, setup, keyed);
        match instance.set_up(module) {
            Ok(()) => Ok(instance),
            Err(error) => Err(Box::new(NotStarted {
                error,
                keyed: instance.into_keyed(),
            })),
        }
    }

    /// Asks a module what it is, in an instance that is thrown away.
    pub(crate) fn describe(module: &Module, setup: Setup) -> Result<abi::Metadata, StartError> {
        let mut this = Self::blank(module, setup, KeyedStore::new(0));
        let instance = this.instantiate(module)?;
        this.find_calls(module, &instance)?;
        let describe = this.function(&instance, &module.describe)?;
        let (metadata,) = this.call::<(), (abi::Metadata,)>(describe, ())?;
        Ok(metadata)
    }

    fn blank(module: &Module, setup: Setup, keyed: KeyedStore) -> Self {
        let engine = Arc::clone(&module.engine);
        let (tables, logger) = (Arc::clone(&setup.tables), setup.logger.clone());
        let host = Host::new(setup.memory_bytes_max, engine.stopping(), tables, logger, keyed);
        let mut store = Store::new(engine.wasm(), host);
        host::limit(&mut store, setup.answer_bytes_max as usize + FAILURES_BYTES_MAX);
        Self {
            store,
            engine,
            setup,
            calls: [None; 4],
            cpu: Duration::ZERO,
        }
    }

    /// Looks the world's functions up, and sees to it that they can be called.
    fn find_calls(
        &mut self,
        module: &Module,
        instance: &wasmtime::component::Instance,
    ) -> Result<(), StartError> {
        for (call, index) in module.calls.iter().enumerate() {
            let Some(index) = index else { continue };
            let function = self.function(instance, index)?;
            let is_fold = module.world == World::Aggregate && call == FOLD;
            let checked = if is_fold {
                function
                    .typed::<(&[u8], &[u32], &[u8]), (Answered,)>(&self.store)
                    .map(drop)
            } else {
                function.typed::<(&[u8],), (Answered,)>(&self.store).map(drop)
            };
            checked.map_err(|error| StartError::Signature {
                reason: format!("{}: {error:#}", functions(module.world)[call]),
            })?;
            self.calls[call] = Some(function);
        }
        Ok(())
    }

    fn set_up(&mut self, module: &Module) -> Result<(), StartError> {
        let instance = self.instantiate(module)?;
        self.find_calls(module, &instance)?;
        let configure = self.function(&instance, &module.configure)?;
        let params = std::mem::take(&mut self.setup.params);
        let answer = self.call::<(&[(String, String)],), (Result<(), String>,)>(configure, (&params[..],));
        self.setup.params = params;
        let (configured,) = answer?;
        configured.map_err(|mut message| {
            logs::cut(&mut message);
            StartError::Refused { message }
        })
    }

    fn instantiate(&mut self, module: &Module) -> Result<wasmtime::component::Instance, StartError> {
        let running = self.begin()?;
        let instance = module.pre.instantiate(&mut self.store);
        drop(running);
        instance.map_err(|error| {
            if error.is::<wasmtime::PoolConcurrencyLimitError>() {
                StartError::Instantiate {
                    reason: format!("{error:#}"),
                }
            } else {
                StartError::Failed(self.explain(&error))
            }
        })
    }

    fn function(
        &mut self,
        instance: &wasmtime::component::Instance,
        index: &ComponentExportIndex,
    ) -> Result<Func, StartError> {
        let function = instance.get_func(&mut self.store, index);
        function.ok_or_else(|| StartError::Signature {
            reason: "an export is not a function".to_owned(),
        })
    }

    /// One verdict per record of `batch`.
    pub(crate) fn filter(&mut self, batch: &[u8], records: u32) -> Result<(Vec<u8>, Failures), CallError> {
        let (verdicts, failures) = self.call_with(0, batch)?;
        self.checked(verdicts, failures, records)
    }

    /// The outputs for `batch`, not yet checked beyond their size.
    pub(crate) fn transform(&mut self, batch: &[u8], records: u32) -> Result<(Vec<u8>, Failures), CallError> {
        let (outputs, failures) = self.call_with(0, batch)?;
        self.checked(outputs, failures, records)
    }

    /// Event time and key of every record of `batch`, not yet checked beyond their size.
    pub(crate) fn keys(&mut self, batch: &[u8], records: u32) -> Result<(Vec<u8>, Failures), CallError> {
        let (keys, failures) = self.call_with(0, batch)?;
        self.checked(keys, failures, records)
    }

    /// The new accumulators, not yet checked beyond their size.
    pub(crate) fn fold(
        &mut self,
        states: &[u8],
        groups: &[u32],
        batch: &[u8],
    ) -> Result<(Vec<u8>, Failures), CallError> {
        let function = self.calls[FOLD].expect("only aggregates are folded, and they have the function");
        let arguments = (states, groups, batch);
        let ((states, failures),) = self.call::<(&[u8], &[u32], &[u8]), (Answered,)>(function, arguments)?;
        self.checked(states, failures, groups.len() as u32)
    }

    /// The outputs for windows that closed, not yet checked beyond their size.
    pub(crate) fn emit(&mut self, closed: &[u8], windows: u32) -> Result<(Vec<u8>, Failures), CallError> {
        let (outputs, failures) = self.call_with(EMIT, closed)?;
        self.checked(outputs, failures, windows)
    }

    /// One accumulator for each of so many pairs, not yet checked beyond their size.
    pub(crate) fn merge(&mut self, states: &[u8], pairs: u32) -> Result<(Vec<u8>, Failures), CallError> {
        let (merged, failures) = self.call_with(MERGE, states)?;
        self.checked(merged, failures, pairs)
    }

    /// CPU time of all calls since this was asked last.
    pub(crate) fn take_cpu(&mut self) -> Duration {
        std::mem::take(&mut self.cpu)
    }

    /// What the module keeps through `state`.
    pub(crate) fn keyed(&mut self) -> &mut KeyedStore {
        &mut self.store.data_mut().keyed
    }

    /// The same, to look at.
    pub(crate) fn keyed_now(&self) -> &KeyedStore {
        &self.store.data().keyed
    }

    /// Ends the instance; what it wrote and nobody committed is forgotten.
    pub(crate) fn into_keyed(self) -> KeyedStore {
        let mut keyed = self.store.into_data().keyed;
        keyed.roll_back();
        keyed
    }

    fn call_with(&mut self, call: usize, buffer: &[u8]) -> Result<Answered, CallError> {
        let function = self.calls[call].expect("the caller knows the module's world");
        let (answered,) = self.call::<(&[u8],), (Answered,)>(function, (buffer,))?;
        Ok(answered)
    }

    fn checked(
        &self,
        answer: Vec<u8>,
        failures: Vec<abi::Failure>,
        inputs: u32,
    ) -> Result<(Vec<u8>, Failures), CallError> {
        if answer.len() as u64 > self.setup.answer_bytes_max {
            return Err(CallError::AnswerTooLarge {
                limit_bytes: self.setup.answer_bytes_max,
            });
        }
        let failures = failures.into_iter().map(|failure| Failure {
            index: failure.index,
            message: failure.message,
        });
        Ok((answer, Failures::check(failures.collect(), inputs)?))
    }

    fn begin(&mut self) -> Result<Running, CallError> {
        // In this order: a ticker that is about to end sees the guest, or the guest sees that it is about to end.
        let running = self.engine.running();
        if self.engine.stopping().load(Ordering::SeqCst) {
            return Err(CallError::Stopping);
        }
        self.store.data_mut().begin_call(self.setup.cpu_per_call);
        self.store.set_epoch_deadline(1);
        Ok(running)
    }

    fn call<P, R>(&mut self, function: Func, params: P) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let running = self.begin()?;
        let answer = function
            .typed::<P, R>(&self.store)
            .and_then(|typed| typed.call(&mut self.store, params));
        drop(running);
        self.cpu += self.store.data().used();
        answer.map_err(|error| self.explain(&error))
    }

    /// Says what happened in words for the module's author.
    fn explain(&self, error: &wasmtime::Error) -> CallError {
        match error.downcast_ref::<Interrupted>() {
            Some(Interrupted::OutOfTime) => {
                return CallError::Timeout {
                    limit_ms: self.setup.cpu_per_call.as_millis() as u64,
                };
            }
            Some(Interrupted::Stopping) => return CallError::Stopping,
            None => {}
        }
        if let Some(too_much) = error.downcast_ref::<TooMuchState>() {
            return (*too_much).into();
        }
        // The type of this error is not public; a test holds its words.
        if error
            .root_cause()
            .to_string()
            .contains("fuel allocated for hostcalls")
        {
            return CallError::AnswerTooLarge {
                limit_bytes: self.setup.answer_bytes_max,
            };
        }
        let trap = describe_trap(error, self.store.data().last_error());
        if self.store.data().was_denied_memory() {
            return CallError::Memory {
                limit_bytes: self.setup.memory_bytes_max,
                trap,
            };
        }
        CallError::Trap { trap }
    }
}

/// What the module said last, the cause, and the innermost functions that have names.
fn describe_trap(error: &wasmtime::Error, last_error: Option<&str>) -> String {
    if let Some(said) = last_error {
        return said.to_owned();
    }
    let mut text = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => error.root_cause().to_string(),
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        let names = backtrace
            .frames()
            .iter()
            .filter_map(FrameInfo::func_name)
            .take(FRAMES_MAX);
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            text = format!("{text} (in {})", names.join(", called by "));
        }
    }
    logs::cut(&mut text);
    text
}

#[cfg(test)]
mod tests;
