//! Describes itself with eight mebibytes. Expect: the upload is refused.
use headwater_guest::{Error, Filter, Metadata, Module, Params, Record, export_filter};

struct Odd;

impl Module for Odd {
    fn describe() -> Metadata {
        Metadata::new(
            &"n".repeat(4 << 20),
            env!("CARGO_PKG_VERSION"),
            &"d".repeat(4 << 20),
        )
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
