//! The last step of building a node: its built-in modules, compiled by the binary itself, are put behind the binary's end.
//!
//! It owns the file that cargo has made once cargo is done with it. It must never leave half a binary: a new one takes the
//! place of the old as a whole, and what cargo keeps for its next build stays as it was.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::step;

/// Puts the compiled modules behind this binary, which is fresh from cargo.
pub(crate) fn append(binary: &Path) -> anyhow::Result<()> {
    let folder = binary.parent().context("a binary has a folder")?.join("packed");
    let name = binary.file_name().context("a binary has a name")?;
    let (kept, half) = (folder.join(name), folder.join("half"));
    let program = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    // Cargo puts the bare binary back at every call; made from the same one, the last result still holds.
    let is_fresh = fs::read(&kept).is_ok_and(|last| last.len() > program.len() && last.starts_with(&program));
    if !is_fresh {
        fs::create_dir_all(&folder)?;
        let mut whole = program;
        whole.extend(compiled(binary)?);
        fs::write(&half, whole).with_context(|| format!("cannot write {}", half.display()))?;
        fs::set_permissions(&half, binary.metadata()?.permissions())?;
        fs::rename(&half, &kept)?;
    }
    // By another name first: a rename takes the place of the old file at once.
    let _ = fs::remove_file(&half);
    fs::hard_link(&kept, &half)?;
    fs::rename(&half, binary).with_context(|| format!("cannot replace {}", binary.display()))
}

/// What the binary makes of the modules inside it.
fn compiled(binary: &Path) -> anyhow::Result<Vec<u8>> {
    step::say("compiling the built-in modules");
    let made = Command::new(binary)
        .arg("pack-modules")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    if !made.status.success() {
        bail!("the built-in modules were not compiled ({})", made.status);
    }
    Ok(made.stdout)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that answers with how often it was asked, and the sum of its bytes so that another one answers
    /// otherwise.
    fn write(path: &Path, more: &str) {
        let count = path.with_extension("count");
        let script = format!(
            "#!/bin/sh\necho asked >> {0}\necho \"modules{more} $(wc -l < {0})\"\n",
            count.display()
        );
        // As cargo does it: a new file in the old one's place.
        let _ = fs::remove_file(path);
        fs::write(path, script).expect("a writable folder");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
    }

    #[test]
    fn modules_are_compiled_once_for_each_binary() {
        let folder = std::env::temp_dir().join(format!("headwater-pack-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        let binary = folder.join("headwater");
        for (more, ending) in [
            ("", "modules 1\n"),
            ("", "modules 1\n"),
            (" of another", "modules of another 2\n"),
        ] {
            write(&binary, more);
            append(&binary).expect("it answers");
            let whole = fs::read_to_string(&binary).expect("it is there");
            assert!(
                whole.starts_with("#!/bin/sh") && whole.ends_with(ending),
                "{whole}"
            );
        }
        fs::remove_dir_all(&folder).expect("our own folder");
    }
}
