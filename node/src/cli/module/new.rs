//! `headwater module new`: a project that builds anywhere, with the guest SDK's sources beside it.
//!
//! Owns the templates and what is embedded for them. It must never write over anything.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::sys::disk::{Disk, Open, os::OsDisk};

/// The guest SDK and the contract as this binary was built with: `SDK`, paths below `wasm-modules` and their bytes.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/guest.rs"));
}

/// Where the SDK's sources go, inside the project.
const SDK_FOLDER: &str = "headwater";

/// What a module does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum World {
    Filter,
    Map,
    Aggregate,
}

impl World {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Aggregate => "aggregate",
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::Filter => include_str!("templates/filter.rs.txt"),
            Self::Map => include_str!("templates/map.rs.txt"),
            Self::Aggregate => include_str!("templates/aggregate.rs.txt"),
        }
    }
}

/// Writes the project; answers where it is.
pub(super) fn write(name: &str, world: World) -> Result<PathBuf, Failure> {
    check_name(name)?;
    let folder = PathBuf::from(name);
    let disk = OsDisk::new(Path::new(""));
    if disk.list(&folder).is_ok() {
        return Err(
            Failure::new(format!("{name} is there already")).hint("choose another name, or remove it")
        );
    }
    for (path, content) in files(name, world) {
        let path = folder.join(path);
        put(&disk, &path, content.as_bytes())
            .map_err(|why| Failure::new(format!("cannot write {}: {why}", path.display())))?;
    }
    Ok(folder)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_plain && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.len() <= 64 {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} is no name for a module"))
        .hint("lower-case letters, digits and dashes, a letter first, such as late-flights"))
}

/// Every file of a project, by its path inside it.
fn files(name: &str, world: World) -> Vec<(String, String)> {
    let fill = |template: &str| template.replace("{name}", name).replace("{world}", world.name());
    let mut files = vec![
        (
            "Cargo.toml".to_owned(),
            fill(include_str!("templates/cargo.toml.txt")),
        ),
        ("src/lib.rs".to_owned(), fill(world.source())),
        (
            "README.md".to_owned(),
            fill(include_str!("templates/readme.md.txt")),
        ),
        (
            "sample.jsonl".to_owned(),
            include_str!("templates/sample.jsonl.txt").to_owned(),
        ),
        (".gitignore".to_owned(), "/target\n".to_owned()),
        (format!("{SDK_FOLDER}/Cargo.toml"), sdk_manifest()),
    ];
    let sdk = embedded::SDK.iter().filter(|(path, _)| *path != "Cargo.toml");
    files.extend(sdk.map(|(path, bytes)| {
        let text = std::str::from_utf8(bytes).expect("the SDK's sources are UTF-8, as the build checked");
        (format!("{SDK_FOLDER}/{path}"), text.to_owned())
    }));
    files
}

/// The manifest of the workspace that the SDK comes from, without the members that are left out.
fn sdk_manifest() -> String {
    let manifest = embedded::SDK
        .iter()
        .find(|(path, _)| *path == "Cargo.toml")
        .map(|(_, bytes)| *bytes);
    let manifest = manifest
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or_default();
    let mut table: toml::Table =
        toml::from_str(manifest).expect("cargo reads the same manifest at every build");
    let is_sdk = |value: &toml::Value, key: &str| {
        value
            .get(key)
            .unwrap_or(value)
            .as_str()
            .is_some_and(|path| path.starts_with("guest"))
    };
    if let Some(workspace) = table.get_mut("workspace").and_then(toml::Value::as_table_mut) {
        if let Some(members) = workspace.get_mut("members").and_then(toml::Value::as_array_mut) {
            members.retain(|member| is_sdk(member, ""));
        }
        if let Some(dependencies) = workspace
            .get_mut("dependencies")
            .and_then(toml::Value::as_table_mut)
        {
            dependencies.retain(|_, value| value.get("path").is_none() || is_sdk(value, "path"));
        }
    }
    // Profiles count in the project's own manifest only.
    table.remove("profile");
    format!("# The guest SDK, as `headwater module new` wrote it. Replace it as a whole.\n{table}")
}

fn put(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    disk.create_folder(path.parent().unwrap_or_else(|| Path::new("")))?;
    let file = disk.open(path, Open::CreateNew)?;
    file.write_at(0, &mut [IoSlice::new(content)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_the_sdk_it_names() {
        for world in [World::Filter, World::Map, World::Aggregate] {
            let files = files("late-flights", world);
            let text = |path: &str| {
                files
                    .iter()
                    .find(|(name, _)| name == path)
                    .map(|(_, text)| text.as_str())
            };
            let manifest: toml::Table = toml::from_str(text("Cargo.toml").unwrap()).unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("late-flights"));
            let sdk = manifest["dependencies"]["headwater-guest"]["path"]
                .as_str()
                .unwrap();
            assert!(
                text(&format!("{sdk}/src/lib.rs")).is_some(),
                "the SDK is where the manifest says"
            );
            assert!(text("headwater/wit/module.wit").is_some());
            let sdk: toml::Table = toml::from_str(text("headwater/Cargo.toml").unwrap()).unwrap();
            for member in sdk["workspace"]["members"].as_array().unwrap() {
                let path = format!("headwater/{}/Cargo.toml", member.as_str().unwrap());
                assert!(text(&path).is_some(), "{path}");
            }
            assert!(!text("src/lib.rs").unwrap().contains("{name}"));
        }
    }

    #[test]
    fn names_are_those_of_packages() {
        for name in ["", "Late", "1st", "a/b", "a_b", "../a"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("late-flights-2").is_ok());
    }
}
