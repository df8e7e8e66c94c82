//! The files of the checkout that git tracks or would track, with their text.
//!
//! It owns the listing. It must never look into what is ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::source::Source;

/// One file: its path from the root of the checkout and its text, empty for what is not UTF-8.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) bytes: u64,
    pub(crate) rust: Option<Source>,
}

impl File {
    /// Made by a program from another file, and never edited by hand.
    pub(crate) fn is_generated(&self) -> bool {
        self.text
            .lines()
            .take(5)
            .any(|line| line.contains(concat!("@", "generated")))
            || self.path.contains("/generated/")
            || self.path.contains("/golden/")
    }

    /// Code that never ships: the test crates, the tool, and test modules of the product.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        self.path.starts_with("tests/") || self.path.contains("/tests/") || name == "tests.rs"
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests folder has a parent")
        .to_owned()
}

/// Every file, in order of path.
pub(crate) fn files() -> anyhow::Result<Vec<File>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ])
        .current_dir(root())
        .output()
        .context("tidy needs git")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listing = String::from_utf8(output.stdout)?;
    let mut paths: Vec<&str> = listing.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    // A file that was deleted but is still in the index is no file.
    Ok(paths.into_iter().filter_map(read).collect())
}

fn read(path: &str) -> Option<File> {
    let bytes = std::fs::read(root().join(path)).ok()?;
    let length = bytes.len() as u64;
    let text = String::from_utf8(bytes).unwrap_or_default();
    let rust = path.ends_with(".rs").then(|| Source::scan(&text));
    Some(File {
        path: path.to_owned(),
        text,
        bytes: length,
        rust,
    })
}
