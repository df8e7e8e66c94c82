//! Where things are: the checkout, the folders inside it, the cache that outlives it.
//!
//! It owns those names and nothing else; it creates nothing.

use std::path::PathBuf;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .join("../..")
        .components()
        .fold(PathBuf::new(), |mut path, part| {
            match part {
                std::path::Component::ParentDir => {
                    path.pop();
                }
                other => path.push(other),
            }
            path
        })
}

/// What may be kept between runs and between clones: `$XDG_CACHE_HOME/headwater`, else `$HOME/.cache/headwater`,
/// else a folder inside the checkout's target.
pub(crate) fn cache() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map_or_else(|| root().join("target/cache"), |base| base.join("headwater"))
}

/// Where cargo builds, unless told otherwise.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where `cargo xtask test` builds: shared between clones, so that the second clone finds the dependencies built.
pub(crate) fn shared_target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}
