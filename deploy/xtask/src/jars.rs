//! Jars of Apache Kafka, and of what runs on it, by Maven; our own Java compiled against them.
//!
//! It owns the version that is the newest to us. Nothing of it goes into the checkout: whoever calls says where it lies.

use std::path::{Path, PathBuf};

use crate::{place, step, tools};

/// Kafka's newest version.
pub(crate) const NEWEST: &str = "4.4.0";
/// The newest version of Kafka Connect of which there are file connectors: both must be of one version.
pub(crate) const NEWEST_CONNECT: &str = "4.3.1";

/// Copies what the POM of a folder names, with all it needs, to where it is wanted; answers that place.
pub(crate) fn fetch(pom: &str, to: PathBuf, version: &str) -> anyhow::Result<PathBuf> {
    fetch_of(pom, to, "kafka", version)
}

/// The same where the POM names something else than Kafka by that version.
pub(crate) fn fetch_of(pom: &str, to: PathBuf, what: &str, version: &str) -> anyhow::Result<PathBuf> {
    tools::debian(&[("default-jdk-headless", "javac"), ("maven", "mvn")])?;
    let (wanted, into) = (
        format!("-D{what}.version={version}"),
        format!("-DoutputDirectory={}", to.display()),
    );
    let copy = ["-q", "-B", "dependency:copy-dependencies", &wanted, &into];
    step::run(&format!("{pom} {version}"), &mut step::program("mvn", pom, &copy))?;
    Ok(to)
}

/// Compiles the Java files of some folders; answers the class path of what came out, with the libraries.
pub(crate) fn compiled(libraries: &Path, sources: &[&str]) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for folder in sources {
        for file in std::fs::read_dir(place::root().join(folder))? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "java") {
                files.push(path);
            }
        }
    }
    let path = libraries.join("*").display().to_string();
    let to = libraries.join("classes").display().to_string();
    let options = ["-nowarn", "-proc:none", "-d", &to, "-cp", &path];
    let mut compiler = step::program("javac", "", &options);
    step::run("javac", compiler.args(files))?;
    Ok(format!("{path}:{to}"))
}
