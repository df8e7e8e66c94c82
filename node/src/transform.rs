//! Wasm transforms: each reads a topic, passes the records through a module, and writes what comes back.
//!
//! Owns modules, their instances and what became of every record given to them. A module is never trusted: what it
//! answers is checked, what it uses is limited, and what it does to itself stalls its own transform alone.
//!
//! ```text
//! service    the handle: upload, deploy, status, dry run
//! deploy     the reconciler: metadata -> pipelines         plan (pure), launch
//! pipeline   one transform on one partition: read, work, append, commit
//! offline    a component tried where no node runs
//! outside    the door to the cluster: partitions anywhere, transactions      transact (exactly once), state_log
//! worker     the synchronous heart: ranges of records -> guest -> outputs, state      bisect, windows, keyed, join (pure)
//! conduct    how a module behaves, and what of the machine it gets for that (pure)
//! instance   one guest: calls and what their failures mean      engine, host, abi, validate
//! dead_letters   what failed: shown, mended, written back to its source
//! modules    where a module's code comes from      pack (the binary), store, compiler (a process of its own)
//! ```

mod bytes;
mod dead_letters;
mod embedded;
mod error;
mod logs;
mod outside;
mod params;
mod query;
mod request;
mod spec;
mod status;
mod store;

#[cfg(feature = "wasm")]
mod abi;
#[cfg(feature = "wasm")]
mod answer;
#[cfg(feature = "wasm")]
mod bisect;
#[cfg(feature = "wasm")]
mod builtin;
#[cfg(feature = "wasm")]
mod changelog;
#[cfg(feature = "wasm")]
mod compiler;
#[cfg(feature = "wasm")]
mod conduct;
#[cfg(feature = "wasm")]
mod deploy;
#[cfg(feature = "wasm")]
mod depot;
#[cfg(feature = "wasm")]
mod dry_run;
#[cfg(feature = "wasm")]
mod engine;
#[cfg(feature = "wasm")]
mod fold;
#[cfg(test)]
#[cfg(feature = "wasm")]
mod fuzz;
#[cfg(test)]
#[cfg(feature = "wasm")]
mod golden;
#[cfg(feature = "wasm")]
mod host;
#[cfg(feature = "wasm")]
mod input;
#[cfg(feature = "wasm")]
mod instance;
#[cfg(feature = "wasm")]
mod join;
#[cfg(feature = "wasm")]
mod keyed;
#[cfg(feature = "wasm")]
mod launch;
#[cfg(feature = "wasm")]
mod letter;
#[cfg(feature = "wasm")]
mod lookup;
#[cfg(feature = "wasm")]
mod modules;
#[cfg(feature = "wasm")]
mod offline;
#[cfg(feature = "wasm")]
mod outbox;
#[cfg(feature = "wasm")]
mod pack;
#[cfg(feature = "wasm")]
mod pipeline;
#[cfg(feature = "wasm")]
mod plan;
#[cfg(not(feature = "wasm"))]
mod refuse;
#[cfg(feature = "wasm")]
mod service;
#[cfg(feature = "wasm")]
mod sinks;
#[cfg(feature = "wasm")]
mod stamp;
#[cfg(feature = "wasm")]
mod state_log;
#[cfg(feature = "wasm")]
mod table;
#[cfg(feature = "wasm")]
mod taken_up;
#[cfg(test)]
#[cfg(feature = "wasm")]
mod testing;
#[cfg(test)]
#[cfg(feature = "wasm")]
mod tests;
#[cfg(feature = "wasm")]
mod transact;
#[cfg(feature = "wasm")]
mod validate;
#[cfg(feature = "wasm")]
mod windows;
#[cfg(feature = "wasm")]
mod worker;

#[cfg(feature = "wasm")]
pub use compiler::{CompileError, compile_stdin};
pub use dead_letters::{
    Again, Cursor, CursorError, DeadLetter, DeadLetters, Edit, Filter, Group, LetterError, LetterHeader,
    Many, Mark, Mode, Order, PAGE_MAX, Page, PageQuery, Parts as LetterParts, Passed, Place, Redrive,
    RedriveState, Refusal, Round, SUMMARY_OFFSETS_MAX, Shelved, Span, Stretch, Summary,
};
pub use embedded::builtin_module;
pub use error::{DeployError, DryRunError, ModuleError, UploadError};
#[cfg(feature = "wasm")]
pub use instance::{CallError, StartError};
pub use logs::{LogLevel, LogLine};
#[cfg(feature = "wasm")]
pub use offline::{GivenRecord, Offline, OfflineError, OfflineReport, try_offline};
pub use outside::{Outside, OutsideError, Read, Sending, Write, Writer};
#[cfg(feature = "wasm")]
pub use pack::pack_builtin;
pub use params::ParamError;
pub use query::{ENTRIES_MAX, Keys, QueryError, StateQuery, StateView};
#[cfg(not(feature = "wasm"))]
pub use refuse::Transforms;
pub use request::{DryRun, DryRunReport, Fate, ModuleFacts, OwnedHeader, Parts, Sample, Tried, WouldSend};
#[cfg(feature = "wasm")]
pub use service::Transforms;
pub use spec::{JoinSpec, LimitsSpec, SpecError, TransformSpec, WindowKind, WindowSpec};
pub use status::{LastError, PartitionStatus, RunState, Totals, TransformStatus};
pub use store::StoreError;
#[cfg(feature = "wasm")]
pub use validate::ValidateError;

/// The largest module that is taken in: Python's interpreter is 18 MB.
pub const MODULE_BYTES_MAX: usize = 32 << 20;
