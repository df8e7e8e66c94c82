//! `cargo xtask codegen`: writes the Kafka messages of the protocol crate, from Kafka's own definitions.
//!
//! Owns which release of Kafka is followed, which APIs are taken, and where the files go. It needs Maven and
//! a JDK; a build of the project never does, since what is generated is committed and the definitions are
//! not.
//!
//! - `cargo xtask codegen` writes the Rust files.
//! - `--golden` writes the golden vectors too, as Kafka's Java classes serialise them.
//! - `--check` writes nothing, and fails if any file differs from what would be written.

mod fill;
mod index;
mod message;
mod rust;
mod schema;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use message::{Api, GENERATED};
use schema::Message;

const KAFKA_CLIENTS: &str = "org.apache.kafka:kafka-clients:4.3.0";
/// The Java classes log through it; nothing is logged.
const SLF4J: &str = "org.slf4j:slf4j-api:1.7.36";

const MESSAGES_DIR: &str = "sdk/protocol/src/kafka";
const FILLERS_DIR: &str = "sdk/protocol/tests/golden/fill";
const VECTORS_DIR: &str = "tests/golden/kafka";

/// APIs of brokers that are left out: streams groups.
const LEFT_OUT: [&str; 3] = ["StreamsGroupHeartbeat", "StreamsGroupDescribe", "Envelope"];
/// APIs that Kafka's brokers do not listen to and ours do.
const ADDED: [&str; 1] = ["AlterPartition"];

/// Generated files by their path from the repository's root.
type Files = BTreeMap<PathBuf, String>;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (mut golden, mut check) = (false, false);
    for argument in arguments {
        match argument.as_str() {
            "--golden" => golden = true,
            "--check" => check = true,
            other => bail!("unknown argument {other:?}; known are --golden and --check"),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let kafka = Kafka::fetch(&root)?;
    let apis = kafka.apis()?;
    let mut files = rust_files(&kafka, &apis, &root)?;
    if golden || check {
        files.extend(kafka.vectors(&apis)?);
    }
    if check {
        compare(&root, &files)
    } else {
        write(&root, &files)
    }
}

fn rust_files(kafka: &Kafka, apis: &[Api], root: &Path) -> Result<Files> {
    let headers = [
        kafka.message("RequestHeader", None)?,
        kafka.message("ResponseHeader", None)?,
    ];
    let messages = Path::new(MESSAGES_DIR);
    let fillers = Path::new(FILLERS_DIR);
    let mut files = Files::from([
        (messages.with_extension("rs"), index::modules_file(apis)),
        (messages.join("api_key.rs"), index::api_key_file(apis)),
        (
            messages.join("error_code.rs"),
            index::error_code_file(&kafka.java("ErrorCodes.java", &[])?)?,
        ),
        (messages.join("header.rs"), message::headers_file(&headers)),
        (fillers.join("header.rs"), fill::headers_file(&headers)),
        (fillers.with_extension("rs"), fill::modules_file(apis, &headers)),
    ]);
    for api in apis {
        files.insert(messages.join(format!("{}.rs", api.module)), api.file());
        files.insert(fillers.join(format!("{}.rs", api.module)), fill::file(api));
    }
    for (path, text) in &mut files {
        *text = formatted(root, text).with_context(|| path.display().to_string())?;
    }
    Ok(files)
}

/// The published Kafka classes and definitions, on this machine.
struct Kafka {
    libraries: PathBuf,
    definitions: PathBuf,
    scratch: PathBuf,
    sources: PathBuf,
}

impl Kafka {
    fn fetch(root: &Path) -> Result<Self> {
        let scratch = root.join("target/codegen");
        let libraries = scratch.join("libraries");
        for artifact in [KAFKA_CLIENTS, SLF4J] {
            let jar = libraries.join(jar_name(artifact));
            if jar.exists() {
                continue;
            }
            output(Command::new("mvn").args(["-q", "-B", "dependency:copy"]).args([
                format!("-Dartifact={artifact}"),
                format!("-DoutputDirectory={}", libraries.display()),
            ]))?;
            ensure!(jar.exists(), "maven gave no {}", jar.display());
        }
        let jar = libraries.join(jar_name(KAFKA_CLIENTS));
        let unpacked = scratch.join("definitions");
        fs::create_dir_all(&unpacked)?;
        output(
            Command::new("jar")
                .current_dir(&unpacked)
                .arg("xf")
                .arg(&jar)
                .arg("common/message"),
        )?;
        Ok(Self {
            libraries,
            definitions: unpacked.join("common/message"),
            scratch,
            sources: root.join("deploy/xtask/src/codegen"),
        })
    }

    /// The chosen APIs in ascending order of their keys.
    fn apis(&self) -> Result<Vec<Api>> {
        let mut apis = Vec::new();
        for entry in fs::read_dir(&self.definitions)? {
            let file = entry?.file_name().into_string().unwrap_or_default();
            let Some(name) = file.strip_suffix("Request.json") else {
                continue;
            };
            let text = fs::read_to_string(self.definitions.join(&file))?;
            let on_brokers = text
                .lines()
                .any(|line| line.contains("\"listeners\"") && line.contains("\"broker\""));
            if LEFT_OUT.contains(&name) || !(on_brokers || ADDED.contains(&name)) {
                continue;
            }
            let request = self.message(&format!("{name}Request"), None)?;
            let response = self.message(&format!("{name}Response"), Some(request.versions))?;
            apis.push(Api::new(request, response)?);
        }
        apis.sort_by_key(|api| api.key);
        Ok(apis)
    }

    fn message(&self, name: &str, versions: Option<schema::Versions>) -> Result<Message> {
        let path = self.definitions.join(format!("{name}.json"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Message::parse(&text, versions).with_context(|| name.to_owned())
    }

    /// Runs one of the Java programs beside this file's modules.
    fn java(&self, program: &str, arguments: &[String]) -> Result<String> {
        let classpath = format!("{}/*", self.libraries.display());
        let source = self.sources.join(program);
        output(
            Command::new("java")
                .args(["-cp", &classpath])
                .arg(source)
                .args(arguments),
        )
    }

    /// The golden vectors: what the Java classes make of values that the tests can make as well.
    fn vectors(&self, apis: &[Api]) -> Result<Files> {
        let out = self.scratch.join("vectors");
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        fs::create_dir_all(&out)?;
        let mut arguments = vec![out.display().to_string()];
        for api in apis {
            let versions = api.request.versions;
            arguments.push(format!(
                "{}:{}:{}:{}",
                api.module, api.key, versions.low, versions.high
            ));
        }
        self.java("Golden.java", &arguments)?;
        let mut files = Files::new();
        for name in apis.iter().map(|api| api.module.as_str()).chain(["header"]) {
            let name = format!("{name}.txt");
            let text = fs::read_to_string(out.join(&name)).with_context(|| name.clone())?;
            files.insert(Path::new(VECTORS_DIR).join(name), text);
        }
        Ok(files)
    }
}

fn jar_name(artifact: &str) -> String {
    let mut parts = artifact.split(':').skip(1);
    let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{name}-{version}.jar")
}

fn write(root: &Path, files: &Files) -> Result<()> {
    for stale in stale(root, files)? {
        fs::remove_file(&stale)?;
    }
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("every file has a folder")?)?;
        // Unchanged files keep their time, and their users need no rebuild.
        if fs::read_to_string(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        fs::write(&path, text)?;
    }
    Ok(())
}

fn compare(root: &Path, files: &Files) -> Result<()> {
    let mut drifted = stale(root, files)?;
    for (path, text) in files {
        let path = root.join(path);
        if fs::read_to_string(&path).ok().as_ref() != Some(text) {
            drifted.push(path);
        }
    }
    let names: Vec<_> = drifted.iter().map(|path| path.display().to_string()).collect();
    ensure!(
        names.is_empty(),
        "not what `cargo xtask codegen --golden` writes:\n{}",
        names.join("\n")
    );
    Ok(())
}

/// Files that were generated once and would not be now.
fn stale(root: &Path, files: &Files) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for folder in [MESSAGES_DIR, FILLERS_DIR] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            let known = files.contains_key(path.strip_prefix(root)?);
            if !known && path.is_file() && fs::read_to_string(&path)?.contains(GENERATED) {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}

fn formatted(root: &Path, text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .arg("--config-path")
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting rustfmt")?;
    rustfmt
        .stdin
        .take()
        .context("rustfmt has an input")?
        .write_all(text.as_bytes())?;
    let done = rustfmt.wait_with_output()?;
    ensure!(done.status.success(), "rustfmt refused:\n{text}");
    Ok(String::from_utf8(done.stdout)?)
}

fn output(command: &mut Command) -> Result<String> {
    let done = command
        .output()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{:?} failed:\n{errors}",
        command.get_program()
    );
    Ok(String::from_utf8(done.stdout)?)
}
