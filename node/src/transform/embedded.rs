//! The modules inside the binary, as components. It owns that list, which is as long as what `cargo xtask modules` had built
//! when the node was compiled.

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// Every module: its file name without the ending, and the component.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let stem = |file: &'static str| file.strip_suffix(".wasm").unwrap_or(file);
    MODULES.iter().map(move |(file, wasm)| (stem(file), *wasm))
}

/// The component of a module, if it is inside.
pub fn builtin_module(name: &str) -> Option<&'static [u8]> {
    all().find_map(|(known, wasm)| (known == name).then_some(wasm))
}
