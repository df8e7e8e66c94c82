//! Modules that misbehave on purpose, one file each beside this one; the node's tests upload and run every one of
//! them. What a test should expect stands at the top of each.
//!
//! This file has what those that answer with wrong bytes share: macros that answer a call with bytes the SDK would
//! never write.

/// An output without its count: input index and what follows it.
#[must_use]
pub fn outputs(each: &[(u32, &[u8])]) -> Vec<u8> {
    let mut buffer = u32::try_from(each.len())
        .expect("few outputs")
        .to_le_bytes()
        .to_vec();
    for (index, rest) in each {
        buffer.extend(index.to_le_bytes());
        buffer.extend_from_slice(rest);
    }
    buffer
}

/// The layout "keys": the same key and time 0 for every record.
#[must_use]
pub fn one_key(count: usize) -> Vec<u8> {
    [0, 0, 0, 0, 0, 0, 0, 0, 2, b'k'].repeat(count)
}

/// The record count at the front of a batch.
#[must_use]
pub fn count(input: &[u8]) -> usize {
    u32::from_le_bytes([input[0], input[1], input[2], input[3]]) as usize
}

/// Describes and configures; the macros below add the calls.
#[doc(hidden)]
#[macro_export]
macro_rules! raw_module {
    () => {
        struct Raw;

        impl headwater_guest::Module for Raw {
            fn describe() -> headwater_guest::Metadata {
                headwater_guest::package_metadata!()
            }

            fn configure(_: &headwater_guest::Params) -> Result<Self, headwater_guest::Error> {
                Ok(Self)
            }
        }

        #[allow(unused_imports)]
        use headwater_hostile::{one_key, outputs};

        type Failure = headwater_guest::bindings::services::headwater::module::types::Failure;

        #[allow(dead_code)]
        fn failure(index: u32, message: &str) -> Failure {
            Failure {
                index,
                message: message.into(),
            }
        }
    };
}

/// A filter that answers with what the closure makes of the record count and the buffer.
#[macro_export]
macro_rules! raw_filter {
    (|$count:ident, $input:ident| $answer:block) => {
        headwater_hostile::raw_module!();

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            headwater_guest::export_module!(Raw, filter);

            impl headwater_guest::bindings::filter::exports::headwater::module::filter::Guest for Component {
                fn filter($input: Vec<u8>) -> (Vec<u8>, Vec<Failure>) {
                    let $count = headwater_hostile::count(&$input);
                    Self::call(|_| $answer)
                }
            }
        };
    };
}

/// A map that answers with what the closure makes of the record count and the buffer.
#[macro_export]
macro_rules! raw_mapping {
    (|$count:ident, $input:ident| $answer:block) => {
        headwater_hostile::raw_module!();

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            headwater_guest::export_module!(Raw, mapping);

            impl headwater_guest::bindings::mapping::exports::headwater::module::mapping::Guest for Component {
                fn transform($input: Vec<u8>) -> (Vec<u8>, Vec<Failure>) {
                    let $count = headwater_hostile::count(&$input);
                    Self::call(|_| $answer)
                }
            }
        };
    };
}

/// An aggregate that answers each call with the bytes of an expression and without failures.
#[macro_export]
macro_rules! raw_aggregate {
    (keys: |$count:ident| $keys:expr, fold: |$states:ident| $fold:expr, emit: |$closed:ident| $emit:expr,) => {
        headwater_hostile::raw_module!();

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            headwater_guest::export_module!(Raw, aggregate);

            impl headwater_guest::bindings::aggregate::exports::headwater::module::aggregate::Guest
                for Component
            {
                fn keys(input: Vec<u8>) -> (Vec<u8>, Vec<Failure>) {
                    let $count = headwater_hostile::count(&input);
                    Self::call(|_| ($keys, vec![]))
                }

                fn fold($states: Vec<u8>, _: Vec<u32>, _: Vec<u8>) -> (Vec<u8>, Vec<Failure>) {
                    Self::call(|_| ($fold, vec![]))
                }

                fn emit($closed: Vec<u8>) -> (Vec<u8>, Vec<Failure>) {
                    Self::call(|_| ($emit, vec![]))
                }
            }
        };
    };
}
