//! Dead letters on the command line: listed, counted, written back to their source.
//!
//! Owns the flags and what is printed of letters and redrives. Which letters there are and what may be done with them, the
//! node says.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cli::common::{Common, Format, note, read_file};
use crate::cli::failure::Failure;
use crate::cli::http::{Http, segment};
use crate::cli::show::data;
use crate::cli::table::{self, Table, count, moment};
use crate::cli::time;
use crate::sys::clock::Clock;

/// As much as a request to the API may hold, with room for base64.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// How often a redrive is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How many looks lie between two lines of progress.
const LOOKS_PER_LINE: u32 = 10;

/// Which letters are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Only those of this reason, such as rejected or trap
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only those of this version of the module
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Only those from this partition of the source
    #[arg(long, value_name = "N")]
    source_partition: Option<i32>,
    /// Only those that failed then or later: 2001-01-01T17:00:00Z, or @ and milliseconds
    #[arg(long, value_name = "TIME", value_parser = moment_of)]
    since: Option<i64>,
    /// Only those that failed before
    #[arg(long, value_name = "TIME", value_parser = moment_of)]
    until: Option<i64>,
}

impl Which {
    fn filter(&self) -> Map<String, Value> {
        let all = [
            ("reason", self.reason.as_ref().map(|it| json!(it))),
            ("version", self.version.as_ref().map(|it| json!(it))),
            ("source_partition", self.source_partition.map(|it| json!(it))),
            ("since_ms", self.since.map(|it| json!(it))),
            ("until_ms", self.until.map(|it| json!(it))),
        ];
        let given = all
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        given.collect()
    }
}

fn moment_of(text: &str) -> Result<i64, String> {
    let ms = text.strip_prefix('@').and_then(|ms| ms.parse().ok());
    ms.or_else(|| time::parse(text))
        .ok_or_else(|| "expected a time as 2001-01-01T17:00:00Z, or @MILLISECONDS".to_owned())
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArguments {
    /// The transform's name
    name: String,
    #[command(flatten)]
    which: Which,
    /// Only those in this partition of the dead-letter topic
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Begin at this offset of the dead-letter topic and go up [default: the newest first]
    #[arg(long, value_name = "OFFSET")]
    from_offset: Option<i64>,
    /// How many letters
    #[arg(long, short = 'n', value_name = "N", default_value = "20")]
    limit: usize,
    /// How many there are of each reason and version, in place of the letters
    #[arg(long, conflicts_with_all = [
        "reason", "version", "source_partition", "since", "until", "partition", "from_offset", "limit",
    ])]
    summary: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RedriveArguments {
    /// The transform's name
    name: String,
    #[command(flatten)]
    which: Which,
    /// Only those in this partition of the dead-letter topic
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// One letter, at this offset of --partition (0 if that is not said)
    #[arg(long, value_name = "OFFSET", conflicts_with_all = [
        "reason", "version", "source_partition", "since", "until", "from_offset", "until_offset", "limit", "rate",
    ])]
    offset: Option<i64>,
    /// Write this file's bytes as the value of the one letter
    #[arg(long, value_name = "FILE", requires = "offset")]
    value_file: Option<PathBuf>,
    /// Write this key for the one letter
    #[arg(long, value_name = "TEXT", requires = "offset")]
    key: Option<String>,
    /// From this offset of the dead-letter topic on
    #[arg(long, value_name = "OFFSET")]
    from_offset: Option<i64>,
    /// Before this offset of the dead-letter topic [default: its end]
    #[arg(long, value_name = "OFFSET")]
    until_offset: Option<i64>,
    /// No more than so many
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
    /// Records per second
    #[arg(long, value_name = "N", default_value = "100")]
    rate: u32,
    /// Also those that were written back already
    #[arg(long)]
    again: bool,
    /// Write nothing; say how many would be
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RedrivesArguments {
    /// The transform's name
    name: String,
    /// Cancel the redrive with this id
    #[arg(long, value_name = "ID")]
    cancel: Option<String>,
}

pub(super) async fn list(common: &Common, http: &Http, arguments: &ListArguments) -> Result<(), Failure> {
    let path = format!("/transforms/{}/dead-letters", segment(&arguments.name));
    if arguments.summary {
        let summary = http.get(&format!("{path}/summary")).await?;
        return common.answer(&summary, summed);
    }
    let (mut letters, mut next) = (Vec::new(), None);
    // A page may be short where the node had far to look.
    loop {
        let left = arguments.limit.saturating_sub(letters.len());
        let page = http
            .get(&format!("{path}?{}", arguments.query(left, next.as_deref())))
            .await?;
        letters.extend(page["letters"].as_array().into_iter().flatten().cloned());
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() || letters.len() >= arguments.limit {
            break;
        }
    }
    let answer = json!({ "letters": letters, "next": next });
    common.answer(&answer, listed)
}

impl ListArguments {
    fn query(&self, limit: usize, cursor: Option<&str>) -> String {
        let mut all = self.which.filter();
        let more = [
            ("partition", self.partition.map(|it| json!(it))),
            ("offset", self.from_offset.map(|it| json!(it))),
            ("limit", Some(json!(limit.clamp(1, 500)))),
            ("cursor", cursor.map(|it| json!(it))),
        ];
        all.extend(
            more.into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?))),
        );
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), segment);
        let pairs = all.iter().map(|(name, value)| format!("{name}={}", text(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

pub(super) async fn redrive(
    common: &Common,
    http: &Http,
    arguments: &RedriveArguments,
) -> Result<(), Failure> {
    let name = segment(&arguments.name);
    let begun = http
        .post(
            &format!("/transforms/{name}/dead-letters/redrive"),
            &arguments.body()?,
        )
        .await?;
    let id = begun["id"].as_str().unwrap_or_default().to_owned();
    let redrive = match begun["state"].as_str() {
        Some("running") => ended(common, http, &format!("/transforms/{name}/redrives/{id}"), begun).await?,
        _ => begun,
    };
    common.answer(&redrive, |redrive| format!("{}\n", told(redrive)))?;
    match redrive["error"].as_str() {
        Some(error) => Err(Failure::new(format!("redrive {id} has failed: {error}")).hint(
            "what was written before stays written; begin anew when the cause is gone, that is passed over",
        )),
        None => Ok(()),
    }
}

impl RedriveArguments {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = json!({ "again": self.again, "dry_run": self.dry_run });
        if let Some(offset) = self.offset {
            body["letter"] = json!({ "partition": self.partition.unwrap_or(0), "offset": offset });
            let mut edit = Map::new();
            if let Some(path) = &self.value_file {
                let bytes = read_file(path, VALUE_BYTES_MAX)?;
                edit.insert("value".to_owned(), plain(&bytes));
            }
            if let Some(key) = &self.key {
                edit.insert("key".to_owned(), plain(key.as_bytes()));
            }
            if !edit.is_empty() {
                body["edit"] = Value::Object(edit);
            }
            return Ok(body);
        }
        body["filter"] = Value::Object(self.which.filter());
        body["rate"] = json!(self.rate);
        let more = [
            ("partition", self.partition.map(|it| json!(it))),
            ("from_offset", self.from_offset.map(|it| json!(it))),
            ("until_offset", self.until_offset.map(|it| json!(it))),
            ("limit", self.limit.map(|it| json!(it))),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        Ok(body)
    }
}

fn plain(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "utf8": text }),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Watches a redrive to its end. Whoever interrupts this leaves it running on the node.
async fn ended(common: &Common, http: &Http, path: &str, begun: Value) -> Result<Value, Failure> {
    let clock = Clock::system();
    let (mut redrive, mut looks) = (begun, 0_u32);
    while redrive["state"] == "running" {
        if common.format() == Format::Text && looks.is_multiple_of(LOOKS_PER_LINE) {
            note(&told(&redrive));
        }
        looks += 1;
        clock.sleep(LOOK).await;
        redrive = http.get(path).await?;
    }
    Ok(redrive)
}

pub(super) async fn redrives(
    common: &Common,
    http: &Http,
    arguments: &RedrivesArguments,
) -> Result<(), Failure> {
    let path = format!("/transforms/{}/redrives", segment(&arguments.name));
    match &arguments.cancel {
        Some(id) => {
            let ended = http.delete(&format!("{path}/{}", segment(id))).await?;
            common.answer(&ended, |redrive| format!("{}\n", told(redrive)))
        }
        None => common.answer(&http.get(&path).await?, |redrives| {
            let all = redrives.as_array().into_iter().flatten();
            all.map(|redrive| format!("{}\n", told(redrive))).collect()
        }),
    }
}

fn listed(answer: &Value) -> String {
    let mut table = Table::new(&[
        ">partition",
        ">offset",
        "failed",
        "reason",
        "module",
        "origin",
        ">rounds",
        "redriven",
        "key",
        "message",
    ]);
    for letter in answer["letters"].as_array().into_iter().flatten() {
        let text = |name: &str| table::field(letter, name);
        let origin = &letter["origin"];
        let redriven = match &letter["redriven"] {
            Value::Null => String::new(),
            mark => moment(&mark["at_ms"]),
        };
        table.row([
            letter["partition"].to_string(),
            letter["offset"].to_string(),
            moment(&letter["failed_ms"]),
            text("reason"),
            module(letter),
            format!(
                "{}-{}@{}",
                origin["topic"].as_str().unwrap_or("-"),
                origin["partition"],
                origin["offset"]
            ),
            letter["history"].as_array().map_or(0, Vec::len).to_string(),
            redriven,
            data(&letter["key"]).unwrap_or_default(),
            text("message"),
        ]);
    }
    table.text()
}

fn module(of: &Value) -> String {
    let part = |name: &str| of["module"][name].as_str().unwrap_or("-");
    format!("{}@{}", part("name"), part("version"))
}

fn summed(summary: &Value) -> String {
    let mut table = Table::new(&[
        "reason",
        "module",
        ">letters",
        ">redriven",
        "first",
        "last",
        "message",
    ]);
    let figure = |of: &Value, name: &str| of[name].as_u64().unwrap_or(0);
    for group in summary["groups"].as_array().into_iter().flatten() {
        table.row([
            table::field(group, "reason"),
            module(group),
            count(figure(group, "count")),
            count(figure(group, "redriven")),
            moment(&group["first_failed_ms"]),
            moment(&group["last_failed_ms"]),
            table::field(group, "message"),
        ]);
    }
    let mut out = table.text();
    for range in summary["scanned"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "looked through partition {}, offsets {} to {}; there is {} to {}\n",
            range["partition"],
            range["from_offset"],
            range["until_offset"],
            range["log_start_offset"],
            range["end_offset"],
        ));
    }
    let (ungrouped, others) = (figure(summary, "ungrouped"), figure(summary, "others"));
    if ungrouped + others > 0 {
        out.push_str(&format!(
            "{} letters of further groups, {} records that are no letters of this transform\n",
            count(ungrouped),
            count(others)
        ));
    }
    out
}

/// A redrive in a line, and a line more for each reason that letters were passed over for.
fn told(redrive: &Value) -> String {
    let is_dry = redrive["dry_run"] == true;
    let ranges = redrive["ranges"].as_array().into_iter().flatten().map(|range| {
        format!(
            "partition {} at {} of {} to {}",
            range["partition"], range["position"], range["from_offset"], range["until_offset"]
        )
    });
    let mut out = format!(
        "redrive {} {}: {} {}; {}",
        table::field(redrive, "id"),
        table::field(redrive, "state"),
        count(redrive["redriven"].as_u64().unwrap_or(0)),
        if is_dry {
            "would be written (dry run)"
        } else {
            "written"
        },
        ranges.collect::<Vec<_>>().join(", "),
    );
    for passed in redrive["passed"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "\n  {} passed over, the first at {} of partition {}: {}",
            count(passed["count"].as_u64().unwrap_or(0)),
            passed["first"]["offset"],
            passed["first"]["partition"],
            table::field(passed, "message"),
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct List {
        #[command(flatten)]
        arguments: ListArguments,
    }

    #[derive(Debug, clap::Parser)]
    struct Redrive {
        #[command(flatten)]
        arguments: RedriveArguments,
    }

    fn redrive(arguments: &[&str]) -> Option<Value> {
        let all = ["redrive", "clean"].iter().chain(arguments);
        Redrive::try_parse_from(all).ok()?.arguments.body().ok()
    }

    #[test]
    fn one_letter_or_many_are_asked_for() {
        let one = json!({
            "again": false, "dry_run": true, "letter": { "partition": 2, "offset": 7 }, "edit": { "key": { "utf8": "k" } },
        });
        let arguments = ["--partition", "2", "--offset", "7", "--key", "k", "--dry-run"];
        assert_eq!(redrive(&arguments), Some(one));
        let many = json!({
            "again": true, "dry_run": false, "filter": { "reason": "trap", "since_ms": 5 }, "rate": 10, "limit": 3,
        });
        let arguments = [
            "--reason", "trap", "--since", "@5", "--rate", "10", "--limit", "3", "--again",
        ];
        assert_eq!(redrive(&arguments), Some(many));
        assert_eq!(redrive(&["--offset", "7", "--reason", "trap"]), None);
        assert_eq!(redrive(&["--value-file", "x"]), None, "of which letter?");
    }

    #[test]
    fn a_list_asks_for_what_was_said() {
        let query = |arguments: &[&str]| {
            let all = ["dead-letters", "clean"].iter().chain(arguments);
            List::try_parse_from(all)
                .map(|it| it.arguments.query(20, Some("0:5")))
                .ok()
        };
        assert_eq!(
            query(&["--version", "1.0 b", "--from-offset", "9"]).as_deref(),
            Some("cursor=0%3A5&limit=20&offset=9&version=1.0%20b")
        );
        assert_eq!(query(&["--summary", "--reason", "trap"]), None);
    }

    #[test]
    fn letters_and_redrives_are_shown() {
        let letter = json!({
            "partition": 0, "offset": 12, "failed_ms": 0, "reason": "trap", "message": "it broke",
            "module": { "name": "filter", "version": "1.0.0" }, "origin": { "topic": "raw", "partition": 3, "offset": 7 },
            "key": { "utf8": "k" }, "history": [{}], "redriven": { "at_ms": 0 },
        });
        let shown = listed(&json!({ "letters": [letter] }));
        for part in ["raw-3@7", "filter@1.0.0", "1970-01-01T00:00:00Z", "it broke"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let redrive = json!({
            "id": "ab", "state": "done", "redriven": 1_200, "dry_run": false,
            "ranges": [{ "partition": 0, "from_offset": 5, "until_offset": 9, "position": 9 }],
            "passed": [{ "message": "it is a window", "count": 2, "first": { "partition": 0, "offset": 6 } }],
        });
        assert_eq!(
            told(&redrive),
            "redrive ab done: 1,200 written; partition 0 at 9 of 5 to 9\n  2 passed over, the first at 6 of partition 0: \
             it is a window"
        );
        let summary = json!({
            "groups": [{ "reason": "trap", "module": { "name": "f", "version": "2" }, "count": 7, "redriven": 1 }],
            "scanned": [{ "partition": 0, "from_offset": 5, "until_offset": 9, "log_start_offset": 0, "end_offset": 9 }],
            "others": 3,
        });
        let shown = summed(&summary);
        for part in [
            "f@2",
            "offsets 5 to 9; there is 0 to 9",
            "3 records that are no letters",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
