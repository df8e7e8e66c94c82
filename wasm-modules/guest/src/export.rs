//! Puts an author's traits behind the contract: the export macros, and the calls they and `testing` share.
//! It owns the buffers of one call. Everything here is hidden from the docs except the macros.

use std::sync::Once;

use crate::batch::Batch;
use crate::bindings::services::headwater::module::types::Failure;
use crate::error::Error;
use crate::items::{Items, ItemsBuilder};
use crate::metadata::{Metadata, ParamKind};
use crate::module::{Aggregate, Filter, Mapping, Merge, Module};
use crate::outputs::Outputs;
use crate::params::Params;
use crate::window::closed_windows;
use crate::wire::put_bytes;

const DROP: u8 = 0;
const KEEP: u8 = 1;
const FAILED: u8 = 2;
const NO_GROUP: u32 = u32::MAX;

/// Makes an instance. From now on a panic writes its message to the node's log before it traps.
///
/// # Errors
/// What `Params::new` or the module refuses.
pub fn configure<M: Module>(given: Vec<(String, String)>) -> Result<M, Error> {
    static HOOK: Once = Once::new();
    if cfg!(target_arch = "wasm32") {
        HOOK.call_once(|| {
            std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
        });
    }
    M::configure(&Params::new(given, &M::describe())?)
}

/// The call `filter`.
pub fn filter<M: Filter>(module: &mut M, input: &[u8]) -> (Vec<u8>, Vec<Failure>) {
    let batch = Batch::new(input);
    let mut verdicts = Vec::with_capacity(batch.len());
    let mut failures = Vec::new();
    for record in &batch {
        verdicts.push(match module.keep(&record) {
            Ok(true) => KEEP,
            Ok(false) => DROP,
            Err(error) => {
                failures.push(Failure {
                    index: record.index(),
                    message: error.into_message(),
                });
                FAILED
            }
        });
    }
    (verdicts, failures)
}

/// The call `transform`.
pub fn transform<M: Mapping>(module: &mut M, input: &[u8]) -> (Vec<u8>, Vec<Failure>) {
    let mut outputs = Outputs::with_capacity(input.len() + input.len() / 4);
    module.transform(&Batch::new(input), &mut outputs);
    outputs.finish()
}

/// The call `keys`.
pub fn keys<M: Aggregate>(module: &mut M, input: &[u8]) -> (Vec<u8>, Vec<Failure>) {
    let batch = Batch::new(input);
    let mut keys = Vec::with_capacity(batch.len() * 24);
    let mut failures = Vec::new();
    let mut key = Vec::new();
    for record in &batch {
        key.clear();
        let time_ms = module.key(&record, &mut key).unwrap_or_else(|error| {
            failures.push(Failure {
                index: record.index(),
                message: error.into_message(),
            });
            None
        });
        keys.extend_from_slice(&time_ms.unwrap_or(0).to_le_bytes());
        put_bytes(&mut keys, time_ms.map(|_| key.as_slice()));
    }
    (keys, failures)
}

/// The call `fold`.
pub fn fold<M: Aggregate>(
    module: &mut M,
    states: Vec<u8>,
    groups: &[u32],
    input: &[u8],
) -> (Vec<u8>, Vec<Failure>) {
    let batch = Batch::new(input);
    assert_eq!(
        groups.len(),
        batch.len(),
        "the host must send a group for every record"
    );
    let size = states.len();
    // None: a group without a state whose records have all failed so far.
    let mut states: Vec<Option<M::State>> = Items::new(states)
        .iter()
        .map(|state| {
            state.map(|bytes| {
                module
                    .decode(bytes)
                    .unwrap_or_else(|error| panic!("cannot read the state: {error}"))
            })
        })
        .collect();
    let mut failures = Vec::new();
    for (record, &group) in batch.records().zip(groups) {
        if group == NO_GROUP {
            continue;
        }
        let slot = &mut states[group as usize];
        let folded = match slot {
            Some(state) => module.fold(state, &record),
            None => {
                let mut state = module.start();
                module.fold(&mut state, &record).map(|()| *slot = Some(state))
            }
        };
        if let Err(error) = folded {
            failures.push(Failure {
                index: record.index(),
                message: error.into_message(),
            });
        }
    }
    let mut folded = ItemsBuilder::with_capacity(size.max(states.len() * 32));
    let mut bytes = Vec::new();
    for state in &states {
        bytes.clear();
        if let Some(state) = state {
            module.encode(state, &mut bytes);
        }
        folded.push(state.as_ref().map(|_| bytes.as_slice()));
    }
    (folded.finish(), failures)
}

/// The call `emit`.
pub fn emit<M: Aggregate>(module: &mut M, closed: &[u8]) -> (Vec<u8>, Vec<Failure>) {
    let mut outputs = Outputs::with_capacity(closed.len() * 2);
    for (window, state) in closed_windows(closed) {
        match module.decode(state) {
            Ok(state) => module.emit(&window, state, &mut outputs),
            Err(error) => outputs.fail(&window, error),
        }
    }
    outputs.finish()
}

/// The call `merge`.
pub fn merge<M: Merge>(module: &mut M, states: Vec<u8>) -> (Vec<u8>, Vec<Failure>) {
    let mut merged = ItemsBuilder::with_capacity(states.len());
    let mut failures = Vec::new();
    let states = Items::new(states);
    let mut states = states.iter();
    let mut bytes = Vec::new();
    let mut index = 0;
    while let Some(earlier) = states.next() {
        let later = states.next().flatten();
        let [earlier, later] = [earlier, later].map(|state| {
            let bytes = state.expect("the host must send two states for every pair");
            let read = module.decode(bytes);
            read.unwrap_or_else(|error| panic!("cannot read the state: {error}"))
        });
        bytes.clear();
        match module.merge(earlier, later) {
            Ok(state) => module.encode(&state, &mut bytes),
            Err(error) => failures.push(Failure {
                index,
                message: error.into_message(),
            }),
        }
        merged.push(Some(&bytes));
        index += 1;
    }
    (merged.finish(), failures)
}

/// Exports the interface `module` and keeps the instance. Not for authors: the macros below use it.
#[doc(hidden)]
#[macro_export]
macro_rules! export_module {
    ($module:ty, $world:ident) => {
        struct Component;

        ::std::thread_local! {
            static INSTANCE: ::core::cell::RefCell<::core::option::Option<$module>> =
                const { ::core::cell::RefCell::new(::core::option::Option::None) };
        }

        impl Component {
            fn call<T>(call: impl FnOnce(&mut $module) -> T) -> T {
                INSTANCE.with_borrow_mut(|instance| {
                    call(instance.as_mut().expect("the host must call configure before anything else"))
                })
            }
        }

        impl $crate::bindings::$world::exports::headwater::module::module::Guest for Component {
            fn describe() -> $crate::bindings::$world::exports::headwater::module::module::Metadata {
                use $crate::bindings::$world::exports::headwater::module::module as contract;
                $crate::export::describe::<$module, _, _>(
                    |name, kind, required, default, description| contract::Param {
                        name,
                        kind: match kind {
                            $crate::ParamKind::Text => contract::ParamKind::Text,
                            $crate::ParamKind::Integer => contract::ParamKind::Integer,
                            $crate::ParamKind::Float => contract::ParamKind::Float,
                            $crate::ParamKind::Boolean => contract::ParamKind::Boolean,
                            $crate::ParamKind::Duration => contract::ParamKind::Duration,
                            $crate::ParamKind::Table => contract::ParamKind::Table,
                        },
                        required,
                        default,
                        description,
                    },
                    |name, version, description, params| contract::Metadata { name, version, description, params },
                )
            }

            fn configure(
                params: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
            ) -> ::core::result::Result<(), ::std::string::String> {
                let module = $crate::export::configure::<$module>(params).map_err(|error| error.to_string())?;
                INSTANCE.set(::core::option::Option::Some(module));
                ::core::result::Result::Ok(())
            }
        }

        $crate::bindings::$world::export!(Component with_types_in $crate::bindings::$world);
    };
}

/// Takes the metadata apart for a world's own types, which are the same but for their path.
#[doc(hidden)]
pub fn describe<M: Module, P, D>(
    param: impl Fn(String, ParamKind, bool, Option<String>, String) -> P,
    metadata: impl FnOnce(String, String, String, Vec<P>) -> D,
) -> D {
    let Metadata {
        name,
        version,
        description,
        params,
    } = M::describe();
    let params = params
        .into_iter()
        .map(|each| {
            param(
                each.name,
                each.kind,
                each.required,
                each.default,
                each.description,
            )
        })
        .collect();
    metadata(name, version, description, params)
}

/// Exports a type that implements [`Filter`](crate::Filter) as a `filter-module`. Once per crate; nothing outside Wasm.
#[macro_export]
macro_rules! export_filter {
    ($module:ty) => {
        // Outside Wasm nothing calls the module but tests; it is checked all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            let _ = $crate::export::configure::<$module>;
            let _ = $crate::export::filter::<$module>;
        };

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::bindings::filter::exports::headwater::module::filter as contract;

            $crate::export_module!($module, filter);

            impl contract::Guest for Component {
                fn filter(
                    input: ::std::vec::Vec<u8>,
                ) -> (::std::vec::Vec<u8>, ::std::vec::Vec<contract::Failure>) {
                    Self::call(|module| $crate::export::filter(module, &input))
                }
            }
        };
    };
}

/// Exports a type that implements [`Mapping`](crate::Mapping) as a `map-module`. Once per crate; nothing outside Wasm.
#[macro_export]
macro_rules! export_mapping {
    ($module:ty) => {
        // Outside Wasm nothing calls the module but tests; it is checked all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            let _ = $crate::export::configure::<$module>;
            let _ = $crate::export::transform::<$module>;
        };

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::bindings::mapping::exports::headwater::module::mapping as contract;

            $crate::export_module!($module, mapping);

            impl contract::Guest for Component {
                fn transform(
                    input: ::std::vec::Vec<u8>,
                ) -> (::std::vec::Vec<u8>, ::std::vec::Vec<contract::Failure>) {
                    Self::call(|module| $crate::export::transform(module, &input))
                }
            }
        };
    };
}

/// Exports a type that implements [`Aggregate`](crate::Aggregate) as an `aggregate-module`. Once per crate; nothing
/// outside Wasm.
#[macro_export]
macro_rules! export_aggregate {
    ($module:ty) => {
        // Outside Wasm nothing calls the module but tests; it is checked all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            let _ = $crate::export::configure::<$module>;
            let _ = $crate::export::keys::<$module>;
            let _ = $crate::export::fold::<$module>;
            let _ = $crate::export::emit::<$module>;
        };

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            $crate::export_aggregate_of!($module, aggregate);
        };
    };
}

/// Exports a type that implements [`Aggregate`](crate::Aggregate) and [`Merge`](crate::Merge) as a
/// `merging-aggregate-module`. Once per crate; nothing outside Wasm.
#[macro_export]
macro_rules! export_merging_aggregate {
    ($module:ty) => {
        // Outside Wasm nothing calls the module but tests; it is checked all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            let _ = $crate::export::configure::<$module>;
            let _ = $crate::export::keys::<$module>;
            let _ = $crate::export::fold::<$module>;
            let _ = $crate::export::emit::<$module>;
            let _ = $crate::export::merge::<$module>;
        };

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            use $crate::bindings::merging::exports::headwater::module::merging;

            $crate::export_aggregate_of!($module, merging);

            impl merging::Guest for Component {
                fn merge(
                    states: ::std::vec::Vec<u8>,
                ) -> (::std::vec::Vec<u8>, ::std::vec::Vec<merging::Failure>) {
                    Self::call(|module| $crate::export::merge(module, states))
                }
            }
        };
    };
}

/// Exports the interfaces `module` and `aggregate`. Not for authors: the macros above use it.
#[doc(hidden)]
#[macro_export]
macro_rules! export_aggregate_of {
    ($module:ty, $world:ident) => {
        use $crate::bindings::$world::exports::headwater::module::aggregate as contract;

        $crate::export_module!($module, $world);

        impl contract::Guest for Component {
            fn keys(input: ::std::vec::Vec<u8>) -> (::std::vec::Vec<u8>, ::std::vec::Vec<contract::Failure>) {
                Self::call(|module| $crate::export::keys(module, &input))
            }

            fn fold(
                states: ::std::vec::Vec<u8>,
                groups: ::std::vec::Vec<u32>,
                input: ::std::vec::Vec<u8>,
            ) -> (::std::vec::Vec<u8>, ::std::vec::Vec<contract::Failure>) {
                Self::call(|module| $crate::export::fold(module, states, &groups, &input))
            }

            fn emit(
                closed: ::std::vec::Vec<u8>,
            ) -> (::std::vec::Vec<u8>, ::std::vec::Vec<contract::Failure>) {
                Self::call(|module| $crate::export::emit(module, &closed))
            }
        }
    };
}

/// Makes a whole filter module of one closure from a record to `bool` or `Result<bool, Error>`. Name, version and
/// description are the package's. Once per crate.
#[macro_export]
macro_rules! filter {
    ($keep:expr) => {
        struct ClosureFilter;

        impl $crate::Module for ClosureFilter {
            fn describe() -> $crate::Metadata {
                $crate::package_metadata!()
            }

            fn configure(_: &$crate::Params) -> ::core::result::Result<Self, $crate::Error> {
                ::core::result::Result::Ok(Self)
            }
        }

        impl $crate::Filter for ClosureFilter {
            fn keep(&mut self, record: &$crate::Record<'_>) -> ::core::result::Result<bool, $crate::Error> {
                fn judge<V: $crate::IntoVerdict>(
                    keep: impl Fn(&$crate::Record<'_>) -> V,
                    record: &$crate::Record<'_>,
                ) -> ::core::result::Result<bool, $crate::Error> {
                    keep(record).into_verdict()
                }
                judge($keep, record)
            }
        }

        $crate::export_filter!(ClosureFilter);
    };
}
