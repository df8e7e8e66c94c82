//! Never comes back from `describe`. Expect: the upload is refused after the CPU limit.
use headwater_guest::{Error, Filter, Metadata, Module, Params, Record, export_filter, package_metadata};

struct Odd;

impl Module for Odd {
    fn describe() -> Metadata {
        let mut metadata = package_metadata!();
        loop {
            metadata = std::hint::black_box(metadata);
        }
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
