//! Declares one parameter twice and with an odd name. Expect: the upload is refused.
use headwater_guest::{
    Error, Filter, Metadata, Module, Param, ParamKind, Params, Record, export_filter, package_metadata,
};

struct Odd;

impl Module for Odd {
    fn describe() -> Metadata {
        package_metadata!()
            .param(Param::new("No Such Name!", ParamKind::Text, ""))
            .param(Param::new("twin", ParamKind::Text, ""))
            .param(Param::new("twin", ParamKind::Integer, ""))
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
