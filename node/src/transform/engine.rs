//! The WebAssembly engine of this node: one configuration for everything that runs, the precompiled code on disk,
//! and the ticks that stop a guest which computes for too long.
//! It owns every `Config` (a node that runs what another compiled must agree on it). It ticks only while a guest
//! runs. It must never load compiled code that this node did not write itself.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Inlining, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::host::{self, Host};
use crate::sys::clock::Clock;
use crate::sys::task::{Kind, Tasks};

/// How often a running guest is looked at. A guest is stopped at most one tick after its budget is spent.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// What a guest may put on its stack.
const STACK_BYTES_MAX: usize = 512 << 10;
/// The largest memory that a transform's limits can allow.
pub(crate) const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// How many instances may exist at once: each reserves 4 GiB of addresses (not of memory). The smaller numbers are
/// for machines with small address spaces.
const INSTANCES_MAX: [u32; 4] = [512, 128, 32, 8];
/// What `wit-component` makes of one guest: the module itself and two small ones that connect it.
const CORE_INSTANCES_PER_COMPONENT: u32 = 6;
const TABLE_ELEMENTS_MAX: usize = 100_000;
const INSTANCE_BYTES_MAX: usize = 4 << 20;

/// Why the engine cannot be used on this machine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the WebAssembly engine cannot start: {reason}")]
pub struct EngineError {
    reason: String,
}

/// The engine, the host functions that all guests share, and the ticker.
pub(crate) struct Engine {
    wasm: wasmtime::Engine,
    linker: Linker<Host>,
    ticker: Arc<Ticker>,
    compatibility: String,
}

impl Engine {
    /// Starts the ticker as a task of `tasks`; it ends, and running guests are stopped, with that scope.
    pub(crate) fn start(tasks: &Tasks, clock: &Clock) -> Result<Self, EngineError> {
        Self::with(new_engine(config)?, tasks, clock)
    }

    /// The same, but what it compiles also runs on other machines of this kind.
    pub(crate) fn start_portable(tasks: &Tasks, clock: &Clock) -> Result<Self, EngineError> {
        Self::with(new_engine(portable)?, tasks, clock)
    }

    /// The same, but what it compiles runs on the oldest machine of this kind, where no vector instruction is newer than
    /// the architecture itself.
    #[cfg(test)]
    pub(crate) fn start_plain(tasks: &Tasks, clock: &Clock) -> Result<Self, EngineError> {
        Self::with(new_engine(plain)?, tasks, clock)
    }

    fn with(wasm: wasmtime::Engine, tasks: &Tasks, clock: &Clock) -> Result<Self, EngineError> {
        let mut linker = Linker::new(&wasm);
        host::link(&mut linker).map_err(|error| EngineError {
            reason: error.to_string(),
        })?;
        let ticker = Arc::new(Ticker::default());
        let task = Arc::clone(&ticker).run(wasm.clone(), clock.clone(), tasks.clone());
        // The task watches its scope and is waited for with it.
        drop(tasks.spawn("transform-ticker", Kind::Critical, task));
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        wasm.precompile_compatibility_hash().hash(&mut hash);
        Ok(Self {
            compatibility: format!("{:016x}", hash.finish()),
            wasm,
            linker,
            ticker,
        })
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    pub(crate) fn linker(&self) -> &Linker<Host> {
        &self.linker
    }

    /// Names the version, settings and target that compiled code is made for.
    pub(crate) fn compatibility(&self) -> &str {
        &self.compatibility
    }

    /// Marks that a guest runs, until the guard is dropped.
    pub(crate) fn running(&self) -> Running {
        self.ticker.enter();
        Running(Arc::clone(&self.ticker))
    }

    /// Set once the node stops: a running guest ends at its next tick.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ticker.stopping)
    }

    /// Compiles a component: tens of milliseconds and more, so never on a data path.
    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Trusted, wasmtime::Error> {
        self.wasm.precompile_component(wasm).map(Trusted)
    }

    /// Loads what [`Engine::compile`] made. The caller has checked that these are the very bytes.
    #[allow(unsafe_code, reason = "the only way to load precompiled code")]
    pub(crate) fn load(&self, trusted: &Trusted) -> Result<Component, wasmtime::Error> {
        // SAFETY: `Trusted` is only made of bytes that the compiler of this very program made: just now, here or in a
        // process of its own; or before, and read back with a keyed digest that only this node can compute; or when
        // the program was built, and read from its own file. wasmtime checks version, settings and the machine.
        unsafe { Component::deserialize(&self.wasm, &trusted.0) }
    }
}

/// Compiled code that is known to come from this program's compiler.
pub(crate) struct Trusted(Vec<u8>);

impl Trusted {
    /// Vouches for the bytes: a process of this program has just compiled them, they are a part of this program's file,
    /// or their keyed digest was checked.
    pub(super) fn vouch(compiled: Vec<u8>) -> Self {
        Self(compiled)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Compiles a component for the engine of a node on this machine, in a process that does nothing else.
pub(crate) fn compile_alone(wasm: &[u8]) -> Result<Vec<u8>, String> {
    // It runs nothing.
    let engine = wasmtime::Engine::new(&config(1)).map_err(|error| format!("{error:#}"))?;
    engine
        .precompile_component(wasm)
        .map_err(|error| format!("{error:#}"))
}

fn new_engine(config: fn(u32) -> Config) -> Result<wasmtime::Engine, EngineError> {
    let mut reason = String::new();
    for instances in INSTANCES_MAX {
        match wasmtime::Engine::new(&config(instances)) {
            Ok(engine) => return Ok(engine),
            Err(error) => reason = format!("{error:#}"),
        }
    }
    Err(EngineError { reason })
}

/// The settings of every engine. All but the number of instances decide what compiled code fits.
fn config(instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * CORE_INSTANCES_PER_COMPONENT)
        .total_memories(instances)
        .total_tables(instances * 2)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(1)
        .max_tables_per_component(2)
        .max_memory_size(MEMORY_BYTES_MAX as usize)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .compiler_inlining(Inlining::Yes)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK_BYTES_MAX);
    config
}

/// The same settings for any machine of this architecture.
fn plain(instances: u32) -> Config {
    let mut config = config(instances);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    config.target(&target).expect("the name of this architecture");
    config
}

/// The same settings for any machine that is not older than a decade, instead of for this one.
#[allow(
    unsafe_code,
    reason = "a set of CPU features is named by a flag of the compiler"
)]
fn portable(instances: u32) -> Config {
    let mut config = plain(instances);
    if cfg!(target_arch = "x86_64") {
        // SAFETY: the flag names a set of features, and changes nothing else; a machine without them refuses the code
        // when it is loaded.
        unsafe { config.cranelift_flag_enable("x86-64-v3") };
    }
    config
}

/// Counts the guests that run, and ticks while there are any.
#[derive(Default)]
struct Ticker {
    running: AtomicUsize,
    wake: Notify,
    stopping: Arc<AtomicBool>,
}

impl Ticker {
    fn enter(&self) {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.wake.notify_one();
        }
    }

    async fn run(self: Arc<Self>, engine: wasmtime::Engine, clock: Clock, tasks: Tasks) {
        let cancel = tasks.cancelled();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !self.stopping.load(Ordering::Relaxed) => {
                    self.stopping.store(true, Ordering::SeqCst);
                }
                () = self.wake.notified(), if !self.stopping.load(Ordering::Relaxed) => {}
                else => {}
            }
            while self.running.load(Ordering::SeqCst) > 0 {
                if cancel.is_cancelled() {
                    self.stopping.store(true, Ordering::SeqCst);
                }
                clock.sleep(TICK).await;
                engine.increment_epoch();
            }
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// A guest runs as long as this lives.
pub(crate) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A hash that is the same in every run, for file names. It guards nothing.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
