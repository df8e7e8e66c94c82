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
    /// Declared under `#[cfg(test)]`, itself or a module above it.
    pub(crate) is_cfg_test: bool,
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
        self.is_cfg_test || self.path.starts_with("tests/") || self.path.contains("/tests/")
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
    let mut files: Vec<File> = paths.into_iter().filter_map(read).collect();
    let below: Vec<String> = files.iter().flat_map(declared_for_tests).collect();
    for file in &mut files {
        file.is_cfg_test = below.iter().any(|stem| {
            let rest = file.path.strip_prefix(stem.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
    }
    Ok(files)
}

/// The modules that a file declares for tests only, as paths without their ending.
pub(crate) fn declared_for_tests(file: &File) -> Vec<String> {
    let Some(source) = &file.rust else {
        return Vec::new();
    };
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let inside = match name {
        "lib.rs" | "main.rs" => folder.to_owned(),
        name => format!("{folder}/{}", name.trim_end_matches(".rs")),
    };
    let declared = source
        .declared_modules()
        .into_iter()
        .filter(|(_, is_test)| *is_test);
    declared.map(|(module, _)| format!("{inside}/{module}")).collect()
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
        is_cfg_test: false,
    })
}
