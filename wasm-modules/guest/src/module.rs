//! The traits an author implements: `Module` and one of `Filter`, `Mapping`, `Aggregate`; and `Merge` besides.
//! The export macros of this crate put them behind the contract.

use crate::batch::{Batch, Record};
use crate::error::Error;
use crate::metadata::Metadata;
use crate::outputs::Outputs;
use crate::params::Params;
use crate::window::Window;

/// What every module has. One value of the type lives in each instance; an instance serves one partition and may be
/// replaced between any two calls, so the value holds what the parameters say and scratch space, never data.
pub trait Module: Sized + 'static {
    /// Answers the same always; reads nothing.
    fn describe() -> Metadata;

    /// Reads the parameters, once per instance.
    ///
    /// # Errors
    /// Why the module cannot run with these parameters. It refuses the deployment and is shown to whoever deploys.
    fn configure(params: &Params) -> Result<Self, Error>;
}

/// Keeps or drops each record. Export it with [`crate::export_filter!`].
pub trait Filter: Module {
    /// Says whether to keep the record.
    ///
    /// # Errors
    /// Why the record cannot be judged: it goes the way of the transform's error policy.
    fn keep(&mut self, record: &Record<'_>) -> Result<bool, Error>;
}

/// Turns each record into none, one or many. Export it with [`crate::export_mapping!`].
pub trait Mapping: Module {
    /// Pushes to `outputs` what becomes of each record, in order; a record that cannot be processed fails there.
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs);
}

/// Folds records into one state per key and window. Export it with [`crate::export_aggregate!`], or with
/// [`crate::export_merging_aggregate!`] if it implements [`Merge`] as well.
///
/// The host groups the records and keeps the encoded states; it may cut the same records into batches in any way, so:
/// - `fold` depends on nothing but the state and the record;
/// - `decode(encode(state))` is the same state, and equal states encode to equal bytes.
pub trait Aggregate: Module {
    /// What is kept per key and window.
    type State;

    /// Writes the record's grouping key to `key` (which is empty) and answers its event time in milliseconds, or
    /// `None` to pass over the record.
    ///
    /// # Errors
    /// Why the record has no key or time: it goes the way of the transform's error policy.
    fn key(&mut self, record: &Record<'_>, key: &mut Vec<u8>) -> Result<Option<i64>, Error>;

    /// The state before any record.
    fn start(&self) -> Self::State;

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// When the bytes are no state of this module, as after an upgrade that changed it. The whole call fails.
    fn decode(&self, bytes: &[u8]) -> Result<Self::State, Error>;

    /// Appends the state to `bytes`.
    fn encode(&self, state: &Self::State, bytes: &mut Vec<u8>);

    /// Takes one record into the state.
    ///
    /// # Errors
    /// Why the record cannot be taken in; the state must then be as it was.
    fn fold(&mut self, state: &mut Self::State, record: &Record<'_>) -> Result<(), Error>;

    /// Sends what there is to say about a window that has closed.
    fn emit(&mut self, window: &Window<'_>, state: Self::State, outputs: &mut Outputs);
}

/// Makes one state of two, which session windows need: a record may join two sessions. Export it with
/// [`crate::export_merging_aggregate!`].
pub trait Merge: Aggregate {
    /// The state of both sessions, `earlier` being of the one that began first.
    ///
    /// # Errors
    /// Why they cannot be one: the record that would have joined them goes the way of the transform's error policy.
    fn merge(&mut self, earlier: Self::State, later: Self::State) -> Result<Self::State, Error>;
}
