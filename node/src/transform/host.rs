//! What a guest sees of the host: lookup tables, keyed state and the log, and the limits on its memory and time.
//! It owns the state of one guest's store. Every argument is the guest's word: it must never trust a length, hold
//! more of a guest's data than the limits allow, or panic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmtime::component::{Linker, Resource, ResourceTable, ResourceType, WasmList};
use wasmtime::{Result, Store, StoreContextMut, UpdateDeadline};

use super::abi::Level;
use super::answer::Items;
use super::bytes::put_bytes;
use super::keyed::KeyedStore;
use super::logs::{self, LogLevel, Logger};
use super::table::Table;
use crate::sys::clock;

/// How many tables one instance may hold open.
const OPEN_TABLES_MAX: usize = 64;
/// Pairs one `scan` may answer with.
const SCAN_PAIRS_MAX: u32 = 10_000;

/// Items that a host function deals with between two looks at the time: the guest's own checks do not run meanwhile.
const ITEMS_PER_LOOK: u32 = 1024;

/// Why the host ended a call that the guest would not have ended itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Interrupted {
    #[error("the call used more CPU time than its limit")]
    OutOfTime,
    #[error("the node is stopping")]
    Stopping,
}

/// The data beside one guest: its limits, and what the host functions reach.
pub(crate) struct Host {
    memory: MemoryLimit,
    meter: Meter,
    resources: ResourceTable,
    tables: Arc<BTreeMap<String, Arc<Table>>>,
    logger: Logger,
    pub(crate) keyed: KeyedStore,
}

impl Host {
    pub(crate) fn new(
        memory_bytes_max: u64,
        stopping: Arc<AtomicBool>,
        tables: Arc<BTreeMap<String, Arc<Table>>>,
        logger: Logger,
        keyed: KeyedStore,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(OPEN_TABLES_MAX);
        Self {
            memory: MemoryLimit {
                bytes_max: memory_bytes_max as usize,
                denied: false,
            },
            meter: Meter {
                begun: Duration::ZERO,
                budget: Duration::ZERO,
                stopping,
            },
            resources,
            tables,
            logger,
            keyed,
        }
    }

    /// Whether the guest has asked for more memory than it may have since the last call began.
    pub(crate) fn was_denied_memory(&self) -> bool {
        self.memory.denied
    }

    /// The last line of the call under way that the module logged as an error.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.logger.last_error()
    }

    /// CPU time that the call under way has taken so far, on the thread that runs it.
    pub(crate) fn used(&self) -> Duration {
        clock::thread_cpu_time().saturating_sub(self.meter.begun)
    }

    /// Ends a call that has used up its time, or goes on while the node stops.
    fn look(&self) -> Result<()> {
        if self.meter.stopping.load(Ordering::Relaxed) {
            return Err(Interrupted::Stopping.into());
        }
        if self.used() >= self.meter.budget {
            return Err(Interrupted::OutOfTime.into());
        }
        Ok(())
    }

    /// A call begins: it may use this much CPU time.
    pub(crate) fn begin_call(&mut self, budget: Duration) {
        self.memory.denied = false;
        self.meter.budget = budget;
        self.meter.begun = clock::thread_cpu_time();
        self.logger.begin_call();
    }
}

/// Puts the limits of `Host` in force in its store.
pub(crate) fn limit(store: &mut Store<Host>, copied_bytes_max: usize) {
    store.limiter(|host| &mut host.memory);
    store.set_hostcall_fuel(copied_bytes_max);
    store.epoch_deadline_callback(|store| {
        store.data().look()?;
        Ok(UpdateDeadline::Continue(1))
    });
}

struct MemoryLimit {
    bytes_max: usize,
    denied: bool,
}

impl wasmtime::ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let is_allowed = desired <= self.bytes_max;
        self.denied |= !is_allowed;
        Ok(is_allowed)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<bool> {
        // The pool bounds tables.
        Ok(true)
    }
}

/// Time is CPU time of the calling thread: a guest is not blamed for a busy machine.
struct Meter {
    begun: Duration,
    budget: Duration,
    stopping: Arc<AtomicBool>,
}

/// A table that a guest has opened.
struct OpenTable(Arc<Table>);

/// Defines every function that a guest may import.
pub(crate) fn link(linker: &mut Linker<Host>) -> Result<()> {
    link_lookup(linker)?;
    link_state(linker)?;
    let mut log = linker.instance("headwater:module/log@1.0.0")?;
    log.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, Host>, (level, message): (Level, String)| {
            let level = match level {
                Level::Debug => LogLevel::Debug,
                Level::Info => LogLevel::Info,
                Level::Warn => LogLevel::Warn,
                Level::Error => LogLevel::Error,
            };
            store.data_mut().logger.guest_line(level, message);
            Ok(())
        },
    )
}

fn link_lookup(linker: &mut Linker<Host>) -> Result<()> {
    let mut lookup = linker.instance("headwater:module/lookup@1.0.0")?;
    lookup.resource("table", ResourceType::host::<OpenTable>(), |mut store, rep| {
        store
            .data_mut()
            .resources
            .delete(Resource::<OpenTable>::new_own(rep))?;
        Ok(())
    })?;
    lookup.func_wrap(
        "[static]table.open",
        |mut store: StoreContextMut<'_, Host>, (mut name,): (String,)| {
            let host = store.data_mut();
            let Some(table) = host.tables.get(&name) else {
                logs::cut(&mut name);
                return Ok((Err(format!("no parameter of kind table names {name:?}")),));
            };
            let open = OpenTable(Arc::clone(table));
            match host.resources.push(open) {
                Ok(resource) => Ok((Ok(resource),)),
                Err(error) => Ok((Err(format!(
                    "{error}: at most {OPEN_TABLES_MAX} tables can be open"
                )),)),
            }
        },
    )?;
    lookup.func_wrap(
        "[method]table.get",
        |store: StoreContextMut<'_, Host>, arguments| {
            let (table, key): (Resource<OpenTable>, WasmList<u8>) = arguments;
            let OpenTable(table) = store.data().resources.get(&table)?;
            Ok((table.read().get(key.as_le_slice(&store)).map(<[u8]>::to_vec),))
        },
    )?;
    lookup.func_wrap(
        "[method]table.get-many",
        |store: StoreContextMut<'_, Host>, arguments| {
            let (table, keys): (Resource<OpenTable>, WasmList<u8>) = arguments;
            let host = store.data();
            let OpenTable(table) = host.resources.get(&table)?;
            let table = table.read();
            answer(host, keys.as_le_slice(&store), |key| table.get(key))
        },
    )
}

fn link_state(linker: &mut Linker<Host>) -> Result<()> {
    let mut state = linker.instance("headwater:module/state@1.0.0")?;
    state.func_wrap(
        "get-many",
        |store: StoreContextMut<'_, Host>, (keys,): (WasmList<u8>,)| {
            let host = store.data();
            answer(host, keys.as_le_slice(&store), |key| host.keyed.get(key))
        },
    )?;
    state.func_wrap(
        "put-many",
        |mut store: StoreContextMut<'_, Host>, (entries,): (WasmList<u8>,)| {
            let entries = read_entries(store.data(), entries.as_le_slice(&store))?;
            store.data_mut().keyed.put_many(entries)?;
            Ok(())
        },
    )?;
    state.func_wrap("scan", |store: StoreContextMut<'_, Host>, arguments| {
        let (start, end, limit): (WasmList<u8>, WasmList<u8>, u32) = arguments;
        let host = store.data();
        let (start, end) = (start.as_le_slice(&store), end.as_le_slice(&store));
        let mut answer = Answer::new(host);
        for (key, value) in host
            .keyed
            .scan(start, end)
            .take(limit.min(SCAN_PAIRS_MAX) as usize)
        {
            answer.push(Some(key))?;
            answer.push(Some(value))?;
        }
        Ok((answer.finish(),))
    })
}

type Entry = (Arc<[u8]>, Option<Arc<[u8]>>);

/// Takes no more out of the guest's memory than the store has room for.
fn read_entries(host: &Host, buffer: &[u8]) -> Result<Vec<Entry>> {
    let mut items = Items::new(buffer)?;
    let mut entries = Vec::new();
    let mut pending_bytes = host.keyed.pending_bytes();
    while let Some(key) = items.next()? {
        let key = key.ok_or_else(|| wasmtime::Error::msg("an entry of put-many has no key"))?;
        let value = items
            .next()?
            .ok_or_else(|| wasmtime::Error::msg("put-many has a key without a value"))?;
        pending_bytes = host
            .keyed
            .with_entry(pending_bytes, key.len() + value.map_or(0, <[u8]>::len))?;
        if (entries.len() as u32).is_multiple_of(ITEMS_PER_LOOK) {
            host.look()?;
        }
        entries.push((key.into(), value.map(Into::into)));
    }
    Ok(entries)
}

/// Answers each key with what `find` finds.
fn answer<'a>(host: &Host, keys: &[u8], find: impl Fn(&[u8]) -> Option<&'a [u8]>) -> Result<(Vec<u8>,)> {
    let mut keys = Items::new(keys)?;
    let mut answer = Answer::new(host);
    while let Some(key) = keys.next()? {
        answer.push(key.and_then(&find))?;
    }
    Ok((answer.finish(),))
}

/// A list of items for the guest, never larger than the guest's memory could hold, and made within its time.
struct Answer<'h> {
    host: &'h Host,
    buffer: Vec<u8>,
    count: u32,
}

impl<'h> Answer<'h> {
    fn new(host: &'h Host) -> Self {
        Self {
            host,
            buffer: vec![0; 4],
            count: 0,
        }
    }

    fn push(&mut self, item: Option<&[u8]>) -> Result<()> {
        put_bytes(&mut self.buffer, item);
        self.count += 1;
        if self.count.is_multiple_of(ITEMS_PER_LOOK) {
            self.host.look()?;
        }
        if self.buffer.len() > self.host.memory.bytes_max {
            return Err(wasmtime::Error::msg(
                "the answer to a host call does not fit the module's memory",
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.buffer[..4].copy_from_slice(&self.count.to_le_bytes());
        self.buffer
    }
}
