//! Panics in `describe`. Expect: the upload is refused.
use headwater_guest::{Error, Filter, Metadata, Module, Params, Record, export_filter};

struct Odd;

impl Module for Odd {
    fn describe() -> Metadata {
        panic!("I would rather not say")
    }

    fn configure(_: &Params) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Filter for Odd {
    fn keep(&mut self, _: &Record<'_>) -> Result<bool, Error> {
        Ok(true)
    }
}

export_filter!(Odd);
