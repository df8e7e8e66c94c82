//! The built-in modules that are inside this binary, and those that the build puts behind its end.

use bytes::Bytes;

use super::failure::Failure;
use crate::transform::builtin_module;

/// The modules that ship with a node.
const NAMES: [&str; 7] = [
    "aggregate",
    "anomaly",
    "dedup",
    "enrich",
    "filter",
    "join",
    "route",
];

/// How many of them are inside this binary.
pub(super) fn count() -> usize {
    NAMES.iter().filter(|name| component(name).is_ok()).count()
}

/// A built-in module's component.
pub(super) fn component(name: &str) -> Result<Bytes, Failure> {
    builtin_module(name).map(Bytes::from_static).ok_or_else(|| {
        Failure::new(format!("this binary was built without the module {name}"))
            .hint("`cargo xtask build` builds the modules, then a binary with them inside")
    })
}

/// Compiles the modules inside this binary, and writes the result to standard output.
#[cfg(feature = "wasm")]
pub(super) fn pack() -> anyhow::Result<()> {
    use std::io::Write as _;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let packed = runtime.block_on(async {
        let sys = crate::sys::Sys::real(std::path::Path::new(""));
        crate::transform::pack_builtin(&sys).await
    });
    let mut output = std::io::stdout().lock();
    output.write_all(&packed.map_err(anyhow::Error::msg)?)?;
    Ok(output.flush()?)
}
