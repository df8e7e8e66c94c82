//! Panics in `configure`. Expect: the deployment is refused with the panic's message.
use headwater_guest::{Error, Filter, Metadata, Module, Params, Record, export_filter, package_metadata};

struct Odd;

impl Module for Odd {
    fn describe() -> Metadata {
        package_metadata!()
    }

    fn configure(_: &Params) -> Result<Self, Error> {
        panic!("no instance today")
    }
}

impl Filter for Odd {
    fn keep(&mut self, _: &Record<'_>) -> Result<bool, Error> {
        Ok(true)
    }
}

export_filter!(Odd);
