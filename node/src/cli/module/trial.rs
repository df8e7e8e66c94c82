//! `headwater module test`: a project's own tests, then its component on sample records, in the engine and under the
//! limits it would run with in a broker. No node is needed.
//!
//! Owns how samples are written and the verdict on the whole. It must never touch a cluster.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::process::Command;

use super::MODULE_BYTES_MAX;
use super::build;
use crate::cli::common::{Common, note, pair, read_file};
use crate::cli::failure::Failure;
use crate::cli::{show, units};

const SAMPLES_BYTES_MAX: u64 = 64 << 20;
/// What a project's samples are called, if nothing else is said.
const SAMPLES: &str = "sample.jsonl";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The project's folder, whose tests run first, or a component
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Records to try it on, or - for standard input: a JSON object per line with value, key, timestamp_ms and
    /// headers, each if wanted; what is no text stands for its JSON [default: the project's sample.jsonl]
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Each line of the samples is a value as it stands
    #[arg(long)]
    lines: bool,
    /// A parameter of the module; may be given again
    #[arg(long = "param", short, value_name = "KEY=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// A lookup table and a file of its entries, written as samples are; may be given again
    #[arg(long = "table", value_name = "TABLE=FILE", value_parser = pair)]
    tables: Vec<(String, String)>,
    /// How long a window of an aggregate is [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    window: Option<i64>,
    /// The most memory the module may take
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    memory: Option<u64>,
    /// The most time the module may take for a batch
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    cpu: Option<i64>,
    /// The most output a batch may have
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    output_bytes: Option<u64>,
    /// Leave the project's own tests out
    #[arg(long)]
    skip_tests: bool,
}

/// A record to try, or an entry of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sample {
    timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

pub(super) async fn run(common: &Common, arguments: Arguments) -> Result<(), Failure> {
    let is_project = build::is_project(&arguments.path);
    // What cannot be read is said before anything is built.
    let samples = samples(&arguments, is_project)?;
    let mut tables = BTreeMap::new();
    for (name, file) in &arguments.tables {
        let text = read_file(Path::new(file), SAMPLES_BYTES_MAX as usize)?;
        let entries = parse(&text, false).map_err(|failure| failure.during(file))?;
        tables.insert(name.clone(), entries);
    }
    if is_project && !arguments.skip_tests {
        host_tests(&arguments.path).await?;
    }
    let file = build::component_of(&arguments.path).await?;
    let wasm = read_file(&file, MODULE_BYTES_MAX)?;
    let (answer, broken) = engine::tried(&arguments, wasm, samples, tables).await?;
    common.answer(&answer, shown)?;
    match broken {
        0 => Ok(()),
        1 => Err(Failure::new("the module broke down once").hint(MARKED)),
        times => Err(Failure::new(format!("the module broke down {times} times")).hint(MARKED)),
    }
}

const MARKED: &str =
    "where and why stands behind the !! above; in a broker such a record goes to the dead-letter topic";

fn shown(answer: &Value) -> String {
    let part = |name: &str| answer["module"][name].as_str().unwrap_or("-");
    let (name, version, world) = (part("name"), part("version"), part("world"));
    let article = if world == "aggregate" { "an" } else { "a" };
    format!(
        "{name}@{version}, {article} {world} module\n{}",
        show::tried(answer)
    )
}

/// Runs the project's tests where they need neither Wasm nor a broker. Their words go to standard error.
async fn host_tests(folder: &Path) -> Result<(), Failure> {
    note("cargo test");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .arg("test")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .kill_on_drop(true);
    let status = cargo.status().await;
    let status = status.map_err(|why| {
        Failure::new(format!("cannot start cargo: {why}"))
            .hint("modules in Rust need Rust: https://rustup.rs")
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new("the project's own tests fail")
            .hint("what cargo said is above; --skip-tests tries the component all the same")),
    }
}

fn samples(arguments: &Arguments, is_project: bool) -> Result<Vec<Sample>, Failure> {
    let (name, text) = match &arguments.samples {
        Some(path) if path == Path::new("-") => ("standard input".to_owned(), read_stdin()?),
        Some(path) => (
            path.display().to_string(),
            read_file(path, SAMPLES_BYTES_MAX as usize)?,
        ),
        None if is_project => {
            let path = arguments.path.join(SAMPLES);
            let text = read_file(&path, SAMPLES_BYTES_MAX as usize).map_err(|failure| {
                failure.hint("--samples FILE says which records to try; - is standard input")
            })?;
            (path.display().to_string(), text)
        }
        None => {
            return Err(Failure::usage("which records to try is not said")
                .hint("--samples FILE with a JSON object per line, or - for standard input"));
        }
    };
    parse(&text, arguments.lines).map_err(|failure| failure.during(&name))
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(SAMPLES_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    match text.len() as u64 > SAMPLES_BYTES_MAX {
        true => Err(Failure::new(format!(
            "standard input has more than {SAMPLES_BYTES_MAX} bytes"
        ))),
        false => Ok(text),
    }
}

/// One sample as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    key: Value,
    #[serde(default)]
    value: Value,
    timestamp_ms: Option<i64>,
    #[serde(default)]
    headers: Map<String, Value>,
}

/// Reads a sample per line; empty lines are passed over.
fn parse(text: &[u8], values_only: bool) -> Result<Vec<Sample>, Failure> {
    let lines = text
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty());
    lines
        .map(|(number, line)| {
            if values_only {
                return Ok(Sample {
                    value: Some(line.to_vec()),
                    ..Sample::default()
                });
            }
            let line: Line = serde_json::from_slice(line).map_err(|error| {
                Failure::new(format!("line {}: {error}", number + 1)).hint(
                    "a sample is {\"key\": ..., \"value\": ..., \"timestamp_ms\": ..., \"headers\": {...}}; --lines takes \
                     each line as a value",
                )
            })?;
            Ok(Sample {
                timestamp_ms: line.timestamp_ms,
                key: bytes(line.key),
                value: bytes(line.value),
                headers: line
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name, bytes(value)))
                    .collect(),
            })
        })
        .collect()
}

/// A text is itself, null is none, everything else is its JSON.
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

#[cfg(feature = "wasm")]
mod engine {
    //! The trial itself.

    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{Arguments, Sample};
    use crate::cli::failure::Failure;
    use crate::http::dry_run_json;
    use crate::sys::clock::Clock;
    use crate::sys::task::{Blocking, Tasks};
    use crate::transform::{GivenRecord, LimitsSpec, Offline, OfflineError, OfflineReport, try_offline};

    const STOP_PATIENCE: Duration = Duration::from_secs(5);

    /// What came of it, and how often the module broke down.
    pub(super) async fn tried(
        arguments: &Arguments,
        wasm: Vec<u8>,
        samples: Vec<Sample>,
        tables: BTreeMap<String, Vec<Sample>>,
    ) -> Result<(Value, usize), Failure> {
        let (tasks, clock) = (Tasks::root("module-test", Blocking::Threads), Clock::system());
        let now_ms = clock.unix_ms();
        let given = |samples: Vec<Sample>| samples.into_iter().map(|sample| sample.given(now_ms)).collect();
        let offline = Offline {
            wasm,
            params: arguments.params.iter().cloned().collect(),
            records: given(samples),
            tables: tables
                .into_iter()
                .map(|(name, entries)| (name, given(entries)))
                .collect(),
            window_ms: arguments.window,
            limits: LimitsSpec {
                memory_bytes: arguments.memory,
                cpu_ms_per_batch: arguments.cpu.and_then(|ms| u64::try_from(ms).ok()),
                output_bytes: arguments.output_bytes,
                batch_bytes: None,
            },
        };
        let tried = try_offline(&tasks, &clock, offline).await;
        let stopped = tasks.stop(&clock, STOP_PATIENCE).await;
        stopped.map_err(|running| Failure::new(running.to_string()))?;
        let OfflineReport {
            module,
            report,
            broken,
        } = tried.map_err(refused)?;
        let mut answer = dry_run_json(report);
        answer["module"] = json!({
            "name": module.name, "version": module.version, "world": module.world, "imports": module.imports,
        });
        answer["broken"] = json!(broken);
        Ok((answer, broken))
    }

    fn refused(error: OfflineError) -> Failure {
        let failure = Failure::new(error.to_string());
        let hint = match &error {
            OfflineError::Module(error) => error.hint(),
            OfflineError::Params(_) => Some("--param KEY=VALUE gives one".to_owned()),
            OfflineError::NoTable(table) => Some(format!("--table {table}=FILE gives its entries")),
            OfflineError::Engine(_)
            | OfflineError::Limits(_)
            | OfflineError::Table(_)
            | OfflineError::Records(_)
            | OfflineError::SetUp(_)
            | OfflineError::Unfinished => None,
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    impl Sample {
        fn given(self, now_ms: i64) -> GivenRecord {
            GivenRecord {
                timestamp_ms: self.timestamp_ms.unwrap_or(now_ms),
                key: self.key,
                value: self.value,
                headers: self.headers,
            }
        }
    }
}

#[cfg(not(feature = "wasm"))]
mod engine {
    //! This binary runs no modules.

    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::{Arguments, Sample};
    use crate::cli::failure::Failure;

    pub(super) async fn tried(
        _: &Arguments,
        _: Vec<u8>,
        _: Vec<Sample>,
        _: BTreeMap<String, Vec<Sample>>,
    ) -> Result<(Value, usize), Failure> {
        Err(Failure::new("this binary was built without WebAssembly")
            .hint("test modules with the full build; an edge build runs none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_lines() {
        let text = b"{\"key\":\"ATL\",\"value\":{\"delay\":33},\"headers\":{\"site\":\"a\"}}\r\n\n{\"value\":\"as it is\",\"timestamp_ms\":7}\n{}";
        let samples = parse(text, false).unwrap();
        let texts = |bytes: &Option<Vec<u8>>| {
            bytes
                .as_deref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let values: Vec<_> = samples.iter().map(|sample| texts(&sample.value)).collect();
        assert_eq!(
            values,
            [
                Some("{\"delay\":33}".to_owned()),
                Some("as it is".to_owned()),
                None
            ]
        );
        assert_eq!(texts(&samples[0].key).as_deref(), Some("ATL"));
        assert_eq!(samples[0].headers, [("site".to_owned(), Some(b"a".to_vec()))]);
        assert_eq!(samples[1].timestamp_ms, Some(7));
    }

    #[test]
    fn a_line_as_it_stands() {
        let samples = parse(b"one\n{\"a\":1}\n", true).unwrap();
        let values: Vec<_> = samples.iter().map(|sample| sample.value.as_deref()).collect();
        assert_eq!(values, [Some(&b"one"[..]), Some(b"{\"a\":1}")]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, expected) in [
            ("{}\n{\"valeu\":1}", "line 2: unknown field `valeu`"),
            ("nothing", "line 1: expected"),
        ] {
            let refused = parse(text.as_bytes(), false).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
