//! What `cargo xtask test` has built or fetched beside the node: guest modules, and packages with data.
//!
//! It only finds them. One that is missing fails the test and says how to get it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;

/// Where `cargo xtask modules` puts what it builds for the target folder of this test.
pub fn modules() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/PROFILE/deps/e2e-HASH -> target/modules
    let target = own
        .ancestors()
        .nth(3)
        .context("a test runs from its target folder")?;
    Ok(target.join("modules"))
}

/// A guest module by its path without the ending: `filter`, `hostile/loop_forever`.
pub fn module(name: &str) -> anyhow::Result<Bytes> {
    let path = modules()?.join(name).with_extension("wasm");
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{}: `cargo xtask modules` builds it", path.display()))?;
    Ok(bytes.into())
}

/// A package that `cargo xtask test` keeps in its cache: `HEADWATER_PACKAGES` names the folder.
pub fn package(file: &str) -> anyhow::Result<PathBuf> {
    let folder = set("HEADWATER_PACKAGES")
        .or_else(|| cache().map(|cache| cache.join("packages")))
        .context("neither HOME nor HEADWATER_PACKAGES is set")?;
    let path = folder.join(file);
    anyhow::ensure!(
        path.exists(),
        "no {}: `cargo xtask test` fetches it",
        path.display()
    );
    Ok(path)
}

/// What is kept between runs, as `cargo xtask` has it.
pub(crate) fn cache() -> Option<PathBuf> {
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    base.map(|base: PathBuf| Path::new(&base).join("headwater"))
}

pub(crate) fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
