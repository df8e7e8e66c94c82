//! Puts the built web UI into the binary when it is there. Without it the node builds all the same, and says at `/` what
//! is missing: a plain `cargo build` needs cargo alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR for build scripts"));
    let dist = root.join("../web-ui/dist");
    let files = if env::var_os("CARGO_FEATURE_UI").is_some() { files_below(&dist)? } else { Vec::new() };
    write_list(&out.join("ui.rs"), &dist, &files)
}

/// Writes `FILES`: every file by its path below `folder`, with its bytes.
fn write_list(to: &Path, folder: &Path, files: &[PathBuf]) -> io::Result<()> {
    let mut list = format!("static FILES: [(&str, &[u8]); {}] = [\n", files.len());
    for file in files {
        let name = file.strip_prefix(folder).expect("it was found below the folder").to_string_lossy();
        let path = fs::canonicalize(file)?;
        writeln!(list, "    ({:?}, include_bytes!({:?})),", name.replace('\\', "/"), path).expect("a string takes it");
    }
    list.push_str("];\n");
    fs::write(to, list)
}

/// Every file below `folder`, in order; none when there is no folder. Cargo is told to look again when it changes.
fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        } else {
            println!("cargo::rerun-if-changed={}", path.display());
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
