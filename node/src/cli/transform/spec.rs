//! A transform's declaration, from flags, from a TOML or JSON file, or from both: a flag wins over the file.
//!
//! Owns the flags. It must never decide what is valid: the node does, where the topics and modules are.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::cli::common::{pair, read_text};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::units;

const FILE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct SpecArguments {
    /// What to call it
    name: Option<String>,
    /// Read the declaration from a TOML or JSON file; flags win over it
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The module, as NAME or NAME@VERSION (the newest, if no version is said)
    #[arg(long, short, value_name = "MODULE")]
    module: Option<String>,
    /// A parameter of the module; may be given again
    #[arg(long = "param", short, value_name = "KEY=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// The topic to read
    #[arg(long, short, value_name = "TOPIC")]
    source: Option<String>,
    /// A topic to write, the first one by default; may be given again
    #[arg(long = "sink", short = 't', value_name = "TOPIC")]
    sinks: Vec<String>,
    /// Where records go that the module fails on [default: SOURCE.dead-letter]
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
    /// What to do with a record that the module fails on [default: dead-letter]
    #[arg(long, value_parser = ["dead-letter", "skip", "stop", "retry"])]
    on_error: Option<String>,
    /// What a crash may do to outputs [default: exactly-once]
    #[arg(long, value_parser = ["exactly-once", "at-least-once"])]
    delivery: Option<String>,
    /// Which nodes run it [default: any]
    #[arg(long, value_parser = ["any", "edge", "core"])]
    placement: Option<String>,
    /// Where to begin in the source [default: earliest]
    #[arg(long, value_parser = ["earliest", "latest"])]
    start: Option<String>,
    /// How long a window of an aggregate is
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    window: Option<i64>,
    /// How windows are cut [default: hopping with --advance, session with --session-gap, else tumbling]
    #[arg(long, value_parser = ["tumbling", "hopping", "sliding", "session"])]
    window_kind: Option<String>,
    /// From the beginning of one hopping window to that of the next
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    advance: Option<i64>,
    /// The longest time between two records of a key that belong to one session
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    session_gap: Option<i64>,
    /// How far behind the latest event time a record may be and still count
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    lateness: Option<i64>,
    /// Where records go that come too late [default: the way of failed ones]
    #[arg(long, value_name = "TOPIC")]
    late_sink: Option<String>,
    /// Remove entries of the module's state that were not written for so long, by the records' timestamps
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    state_ttl: Option<i64>,
    /// Close all windows when the source has been silent for so long
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    idle_close: Option<i64>,
    /// When a window's result is sent [default: close]
    #[arg(long, value_parser = ["close", "update"])]
    emit: Option<String>,
    /// A second topic, whose records are joined with those of the source before the module is given them
    #[arg(long, value_name = "TOPIC")]
    join: Option<String>,
    /// Which records that meet nothing are sent all the same [default: inner, none of them]
    #[arg(long, value_parser = ["inner", "left", "outer"])]
    join_kind: Option<String>,
    /// How far apart in time records may be that meet [default: the second topic is a table]
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    join_within: Option<i64>,
    /// How late a record may come and still meet others
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    join_grace: Option<i64>,
    /// Where the key stands in values of the source, as a JSON pointer [default: it is the record's own]
    #[arg(long, value_name = "POINTER")]
    left_key: Option<String>,
    /// The same of the second topic
    #[arg(long, value_name = "POINTER")]
    right_key: Option<String>,
    /// A lookup table and the compacted topic that fills it; may be given again
    #[arg(long = "lookup", value_name = "TABLE=TOPIC", value_parser = pair)]
    lookups: Vec<(String, String)>,
    /// The most memory an instance of the module may take
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    memory: Option<u64>,
    /// The most time the module may take for a batch
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms)]
    cpu: Option<i64>,
    /// The most output a batch may have
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    output_bytes: Option<u64>,
}

impl SpecArguments {
    /// The declaration as the API takes it, with the module's version filled in.
    pub(super) async fn spec(&self, http: &Http) -> Result<Value, Failure> {
        let mut spec = self.given()?;
        let module = &spec["module"];
        if module["name"].is_string() && module["version"].is_null() {
            let modules = http.get("/modules").await?;
            let name = module["name"].as_str().unwrap_or_default();
            spec["module"]["version"] = json!(newest(&modules, name)?);
        }
        Ok(spec)
    }

    fn given(&self) -> Result<Value, Failure> {
        let mut spec = match &self.file {
            Some(path) => read_spec(path)?,
            None => Map::new(),
        };
        self.set_windows(&mut spec);
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(name.to_owned(), value);
            }
        };
        let texts = [
            ("name", &self.name),
            ("source", &self.source),
            ("dead_letter", &self.dead_letter),
            ("on_error", &self.on_error),
            ("delivery", &self.delivery),
            ("placement", &self.placement),
            ("start", &self.start),
            ("emit", &self.emit),
            ("late_sink", &self.late_sink),
        ];
        for (name, text) in texts {
            set(name, text.as_ref().map(|text| json!(text)));
        }
        for (name, ms) in [
            ("state_ttl_ms", self.state_ttl),
            ("lateness_ms", self.lateness),
            ("idle_close_ms", self.idle_close),
        ] {
            set(name, ms.map(|ms| json!(ms)));
        }
        set("sinks", (!self.sinks.is_empty()).then(|| json!(self.sinks)));
        set("module", self.module.as_deref().map(module));
        let limits = [
            ("memory_bytes", self.memory.map(|bytes| json!(bytes))),
            ("cpu_ms_per_batch", self.cpu.map(|ms| json!(ms))),
            ("output_bytes", self.output_bytes.map(|bytes| json!(bytes))),
        ];
        merge(
            &mut spec,
            "params",
            self.params.iter().map(|(key, value)| (key.clone(), json!(value))),
        );
        merge(
            &mut spec,
            "lookups",
            self.lookups
                .iter()
                .map(|(key, value)| (key.clone(), json!(value))),
        );
        let limits = limits
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        merge(&mut spec, "limits", limits);
        merge(&mut spec, "join", self.join_settings());
        if let Some(Value::String(text)) = spec.get("module") {
            let module = module(text);
            spec.insert("module".to_owned(), module);
        }
        Ok(Value::Object(spec))
    }

    fn join_settings(&self) -> impl Iterator<Item = (String, Value)> {
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        let given = [
            ("topic", text(&self.join)),
            ("kind", text(&self.join_kind)),
            ("within_ms", self.join_within.map(|ms| json!(ms))),
            ("grace_ms", self.join_grace.map(|ms| json!(ms))),
            ("left_key", text(&self.left_key)),
            ("right_key", text(&self.right_key)),
        ];
        let given = given.into_iter();
        given.filter_map(|(name, value)| Some((name.to_owned(), value?)))
    }

    /// Windows of the file are replaced as a whole.
    fn set_windows(&self, spec: &mut Map<String, Value>) {
        let (name, windows) = match (self.window_of_kind(), self.window) {
            (Some(window), _) => ("window", window),
            (None, Some(ms)) => ("window_ms", json!(ms)),
            (None, None) => return,
        };
        spec.remove("window");
        spec.remove("window_ms");
        spec.insert(name.to_owned(), windows);
    }

    /// The windows that flags ask for, unless `--window` alone does.
    fn window_of_kind(&self) -> Option<Value> {
        let guessed = match (self.advance, self.session_gap) {
            (Some(_), _) => Some("hopping"),
            (None, Some(_)) => Some("session"),
            (None, None) => None,
        };
        let kind = self.window_kind.as_deref().or(guessed)?;
        let lengths = [
            ("size_ms", self.window),
            ("advance_ms", self.advance),
            ("gap_ms", self.session_gap),
        ];
        let lengths = lengths.into_iter();
        let lengths = lengths.filter_map(|(name, ms)| Some((name.to_owned(), json!(ms?))));
        let mut window: Map<String, Value> = lengths.collect();
        window.insert("kind".to_owned(), json!(kind));
        Some(Value::Object(window))
    }
}

/// Adds entries to a table of the spec, made if need be.
fn merge(spec: &mut Map<String, Value>, name: &str, entries: impl Iterator<Item = (String, Value)>) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    let table = spec.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(table) = table {
        table.extend(entries);
    }
}

/// `NAME@VERSION` as the API writes it.
fn module(text: &str) -> Value {
    match text.rsplit_once('@') {
        Some((name, version)) => json!({ "name": name, "version": version }),
        None => json!({ "name": text }),
    }
}

/// The version of a module that was uploaded last.
pub(in crate::cli) fn newest(modules: &Value, name: &str) -> Result<String, Failure> {
    let named = modules
        .as_array()
        .into_iter()
        .flatten()
        .filter(|module| module["name"] == name);
    let newest = named.max_by_key(|module| module["created_ms"].as_i64());
    newest
        .and_then(|module| module["version"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| {
            Failure::new(format!("there is no module {name:?}"))
                .hint("`headwater module list` shows what is there, `headwater module push FILE` adds one")
        })
}

fn read_spec(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = read_text(path, FILE_BYTES_MAX)?;
    let read: Result<Value, String> = match path.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).map_err(|why| why.to_string()),
        false => toml::from_str(&text).map_err(|why| why.to_string()),
    };
    match read {
        Ok(Value::Object(spec)) => Ok(spec),
        Ok(_) => Err(Failure::new(format!(
            "{} holds no table of settings",
            path.display()
        ))),
        Err(why) => Err(Failure::new(format!("{}: {}", path.display(), why.trim()))
            .hint("the file is TOML, or JSON when its name ends in .json")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArguments,
    }

    fn given(line: &str) -> Value {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .expect("a good line")
            .spec
            .given()
            .expect("a good spec")
    }

    #[test]
    fn flags_become_a_declaration() {
        let spec = given(
            "late -m filter@1.2.0 -p where=delay>15 --source flights -t late --window 1h --lookup airports=a --memory 16MiB",
        );
        assert_eq!(
            spec,
            json!({
                "name": "late", "module": { "name": "filter", "version": "1.2.0" }, "params": { "where": "delay>15" },
                "source": "flights", "sinks": ["late"], "window_ms": 3_600_000, "lookups": { "airports": "a" },
                "limits": { "memory_bytes": 16 << 20 },
            })
        );
    }

    #[test]
    fn windows_are_of_the_kind_that_their_lengths_say() {
        let window = |line: &str| {
            let spec = given(&format!("n {line}"));
            (spec["window_ms"].clone(), spec["window"].clone())
        };
        let none = Value::Null;
        for (line, expected) in [
            ("--window 10s", (json!(10_000), none.clone())),
            (
                "--window 10s --advance 2s",
                (
                    none.clone(),
                    json!({ "kind": "hopping", "size_ms": 10_000, "advance_ms": 2_000 }),
                ),
            ),
            (
                "--session-gap 5m",
                (none.clone(), json!({ "kind": "session", "gap_ms": 300_000 })),
            ),
            (
                "--window 10s --window-kind sliding",
                (none, json!({ "kind": "sliding", "size_ms": 10_000 })),
            ),
        ] {
            assert_eq!(window(line), expected, "{line}");
        }
        let spec = given("n --late-sink late --state-ttl 1h");
        assert_eq!(
            (&spec["late_sink"], &spec["state_ttl_ms"]),
            (&json!("late"), &json!(3_600_000))
        );
    }

    #[test]
    fn a_join_is_what_its_flags_say() {
        let join = |line: &str| given(&format!("n {line}"))["join"].clone();
        assert_eq!(join("--source s"), Value::Null);
        assert_eq!(join("--join t"), json!({ "topic": "t" }));
        assert_eq!(
            join("--join t --join-kind left --join-within 1m --join-grace 5s --left-key /a --right-key /b/c"),
            json!({
                "topic": "t", "kind": "left", "within_ms": 60_000, "grace_ms": 5_000, "left_key": "/a", "right_key": "/b/c",
            })
        );
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("spec.toml");
        let text =
            "name = \"a\"\nmodule = \"filter\"\nsource = \"s\"\n[params]\nwhere = \"x\"\nother = \"y\"\n";
        crate::sys::disk::replace(
            &crate::sys::disk::os::OsDisk::new(folder.path()),
            &path,
            text.as_bytes(),
        )
        .expect("the file is written");
        let spec = given(&format!("b --file {} -p where=z", path.display()));
        assert_eq!(spec["name"], "b");
        assert_eq!(spec["module"], json!({ "name": "filter" }));
        assert_eq!(spec["params"], json!({ "where": "z", "other": "y" }));
    }

    #[test]
    fn the_newest_version_is_taken() {
        let modules = json!([
            { "name": "f", "version": "2", "created_ms": 5 }, { "name": "f", "version": "1", "created_ms": 9 },
            { "name": "g", "version": "7", "created_ms": 11 }
        ]);
        assert_eq!(newest(&modules, "f").ok().as_deref(), Some("1"));
        assert!(newest(&modules, "h").is_err());
    }
}
