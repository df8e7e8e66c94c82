//! Wasm transforms: each reads a topic, passes the records through a module, and writes what comes back.
//!
//! Owns modules, their instances and what became of every record given to them. A module is never trusted: what it
//! answers is checked, what it uses is limited, and what it does to itself stalls its own transform alone.

mod answer;
mod bisect;
mod bytes;
mod changelog;
mod input;
mod keyed;
mod letter;
mod logs;
mod outbox;
mod params;
mod table;
mod windows;

#[cfg(feature = "wasm")]
mod abi;
#[cfg(feature = "wasm")]
mod engine;
#[cfg(feature = "wasm")]
mod host;
#[cfg(feature = "wasm")]
mod instance;
#[cfg(all(test, feature = "wasm"))]
mod golden;
#[cfg(all(test, feature = "wasm"))]
mod testing;
#[cfg(feature = "wasm")]
mod validate;
