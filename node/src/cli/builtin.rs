//! The built-in modules that are inside this binary.

use bytes::Bytes;

use super::failure::Failure;

/// `MODULES`: file names and components, as the build script found them.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

/// A built-in module's component.
pub(super) fn component(name: &str) -> Result<Bytes, Failure> {
    let file = format!("{name}.wasm");
    let found = embedded::MODULES.iter().find(|(path, _)| *path == file);
    found
        .map(|(_, component)| Bytes::from_static(component))
        .ok_or_else(|| {
            Failure::new(format!("this binary was built without the module {name}"))
                .hint("`cargo xtask build` builds the modules, then a binary with them inside")
        })
}
