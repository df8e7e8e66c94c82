//! Refuses every configuration. Expect: the deployment is refused with the message.
use headwater_guest::{Error, Filter, Metadata, Module, Params, Record, export_filter, package_metadata};

struct Odd;

impl Module for Odd {
    fn describe() -> Metadata {
        package_metadata!()
    }

    fn configure(_: &Params) -> Result<Self, Error> {
        Err(Error::new("the moon is not full"))
    }
}

impl Filter for Odd {
    fn keep(&mut self, _: &Record<'_>) -> Result<bool, Error> {
        Ok(true)
    }
}

export_filter!(Odd);
