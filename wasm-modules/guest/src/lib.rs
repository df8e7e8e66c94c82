//! The Rust SDK for module authors.
#![doc = include_str!("../README.md")]
//!
//! What this crate owns: the guest's side of `headwater:module@1.0.0` (the contract in `wasm-modules/wit`). It reads
//! batches in place and writes answers into one buffer per call; it allocates per call, never per record.

mod batch;
#[doc(hidden)]
pub mod bindings;
pub mod bytes;
mod error;
#[doc(hidden)]
pub mod export;
mod items;
pub mod log;
pub mod lookup;
mod metadata;
mod module;
mod outputs;
mod params;
pub mod state;
pub mod testing;
mod window;
mod wire;

pub use batch::{Batch, Headers, Record, Records};
pub use error::{Error, IntoVerdict};
pub use items::{Items, ItemsBuilder, ItemsIter};
pub use metadata::{Metadata, Param, ParamKind};
pub use module::{Aggregate, Filter, Mapping, Merge, Module};
pub use outputs::{Header, Input, Output, Outputs};
pub use params::{Params, parse_duration_ms};
pub use window::Window;
