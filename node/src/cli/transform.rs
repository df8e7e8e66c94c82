//! `headwater transform`: deploy modules onto topics, try them on live records, watch, pause and delete them; see what they
//! failed on, and have that written back.

mod letters;
mod spec;
mod state;

use serde_json::{Value, json};

use self::spec::SpecArguments;
pub(super) use self::spec::newest;
use super::common::Common;
use super::failure::Failure;
use super::http::{Http, segment};
use super::show;
use super::table::{self, Table, count};
use super::time;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a module on every record of a topic
    Deploy {
        #[command(flatten)]
        spec: Box<SpecArguments>,
        /// Take the place of the transform of that name, and go on where it is
        #[arg(long)]
        replace: bool,
    },
    /// Show the transforms, how fast and how far behind they are
    List,
    /// Show one transform, partition by partition
    Describe {
        /// The transform's name
        name: String,
    },
    /// Stop at the next batch until it is resumed; nothing is lost
    Pause {
        /// The transform's name
        name: String,
    },
    /// Go on where it was paused
    Resume {
        /// The transform's name
        name: String,
    },
    /// Pass records of the source through the module and show what would come of them; nothing is written
    DryRun {
        #[command(flatten)]
        spec: Box<SpecArguments>,
        #[arg(long, value_name = "N")]
        partition: Option<i32>,
        /// Where to begin: an offset, earliest or latest (the last records)
        #[arg(long, value_name = "WHERE", default_value = "latest")]
        offset: String,
        /// How many records
        #[arg(long, value_name = "N", default_value = "10")]
        limit: u32,
    },
    /// Show what the module keeps by key, as it is committed
    State(state::Arguments),
    /// Show the records that the module failed on, and why
    DeadLetters(letters::ListArguments),
    /// Write dead letters back to the transform's source: one, mended or not, or many at a rate
    Redrive(Box<letters::RedriveArguments>),
    /// Show the redrives that the node remembers since it was started, or cancel one
    Redrives(letters::RedrivesArguments),
    /// Stop it and forget its position and state; what it wrote stays
    Delete {
        /// The transform's name
        name: String,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    let http = common.http()?;
    let path = |name: &str, action: &str| format!("/transforms/{}{action}", segment(name));
    let transform = match command {
        Command::Deploy { spec, replace } => deploy(&http, &spec, replace).await?,
        Command::List => {
            let transforms = http.get("/transforms").await?;
            return common.answer(&transforms, listed);
        }
        Command::Describe { name } => http.get(&path(&name, "")).await?,
        Command::Pause { name } => http.post(&path(&name, "/pause"), &Value::Null).await?,
        Command::Resume { name } => http.post(&path(&name, "/resume"), &Value::Null).await?,
        Command::DryRun {
            spec,
            partition,
            offset,
            limit,
        } => {
            let spec = spec.spec(&http).await?;
            let answer = http
                .post(
                    "/transforms/dry-run",
                    &try_on(&http, &spec, partition, &offset, limit).await?,
                )
                .await?;
            return common.answer(&answer, show::tried);
        }
        Command::State(arguments) => return state::show(&common, &http, &arguments).await,
        Command::DeadLetters(arguments) => return letters::list(&common, &http, &arguments).await,
        Command::Redrive(arguments) => return letters::redrive(&common, &http, &arguments).await,
        Command::Redrives(arguments) => return letters::redrives(&common, &http, &arguments).await,
        Command::Delete { name } => {
            http.delete(&path(&name, "")).await?;
            return common.answer(&json!({ "deleted": name }), |_| {
                format!("deleted transform {name}\n")
            });
        }
    };
    common.answer(&transform, described)
}

async fn deploy(http: &Http, arguments: &SpecArguments, replace: bool) -> Result<Value, Failure> {
    let spec = arguments.spec(http).await?;
    let Some(name) = spec["name"].as_str().filter(|name| !name.is_empty()) else {
        return Err(Failure::usage("the transform has no name").hint("give NAME, or `name` in the spec file"));
    };
    if replace && http.get(&format!("/transforms/{}", segment(name))).await.is_ok() {
        return http.put(&format!("/transforms/{}", segment(name)), &spec).await;
    }
    http.post("/transforms", &spec).await
}

/// What the API wants to know for a dry run: the parts of a spec that decide what comes of a record.
async fn try_on(
    http: &Http,
    spec: &Value,
    partition: Option<i32>,
    offset: &str,
    limit: u32,
) -> Result<Value, Failure> {
    let offset = match offset {
        // The newest ones are what it takes by itself.
        "latest" => None,
        "earliest" => Some(start_of(http, spec["source"].as_str().unwrap_or_default(), partition).await?),
        offset => Some(offset.parse::<i64>().map_err(|_| {
            Failure::usage(format!("{offset:?} is no place to begin")).hint("an offset, earliest or latest")
        })?),
    };
    let mut body = tried_parts(spec);
    body["limit"] = json!(limit);
    for (name, value) in [
        ("partition", partition.map(|partition| json!(partition))),
        ("offset", offset.map(|at| json!(at))),
    ] {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    Ok(body)
}

fn tried_parts(spec: &Value) -> Value {
    let names = ["module", "params", "source", "lookups", "window_ms", "window"];
    let parts = names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), spec.get(name)?.clone())));
    Value::Object(parts.collect())
}

/// Where a topic's records begin, in the partition or in any.
async fn start_of(http: &Http, topic: &str, partition: Option<i32>) -> Result<i64, Failure> {
    let topic = http.get(&format!("/topics/{}", segment(topic))).await?;
    let partitions = topic["partitions"].as_array().into_iter().flatten();
    let meant = partitions.filter(|found| partition.is_none_or(|partition| found["partition"] == partition));
    Ok(meant
        .filter_map(|found| found["log_start_offset"].as_i64())
        .min()
        .unwrap_or(0))
}

fn listed(transforms: &Value) -> String {
    let mut table = Table::new(&[
        "transform",
        "module",
        "source",
        "sinks",
        "state",
        ">in/s",
        ">lag",
        ">failed",
        "last error",
    ]);
    for transform in transforms.as_array().into_iter().flatten() {
        let text = |name: &str| table::field(transform, name);
        let totals = &transform["totals"];
        table.row([
            text("name"),
            module_of(transform),
            text("source"),
            sinks_of(transform),
            text("state"),
            format!("{:.0}", totals["records_per_second"].as_f64().unwrap_or(0.0)),
            count(totals["lag"].as_u64().unwrap_or(0)),
            count(totals["failed"].as_u64().unwrap_or(0)),
            transform["last_error"]["message"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
        ]);
    }
    table.text()
}

fn module_of(transform: &Value) -> String {
    let part = |name: &str| transform["module"][name].as_str().unwrap_or("-");
    format!("{}@{}", part("name"), part("version"))
}

fn sinks_of(transform: &Value) -> String {
    let sinks = transform["sinks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    sinks.collect::<Vec<_>>().join(",")
}

fn described(transform: &Value) -> String {
    let text = |name: &str| table::field(transform, name);
    let reason = transform["reason"].as_str().map(|reason| format!(": {reason}"));
    let mut out = format!(
        "transform   {}, revision {}\nstate       {}\nmodule      {}\nfrom, to    {} -> {}\ndead letter {} (on error: {})\n\
         delivery    {}\nruns at     {}\n",
        text("name"),
        transform["revision"],
        text("state") + &reason.unwrap_or_default(),
        module_of(transform),
        text("source"),
        sinks_of(transform),
        text("dead_letter"),
        text("on_error"),
        text("delivery"),
        text("placement"),
    );
    for (name, value) in transform["params"].as_object().into_iter().flatten() {
        out.push_str(&format!(
            "parameter   {name} = {}\n",
            value.as_str().unwrap_or_default()
        ));
    }
    for (table, topic) in transform["lookups"].as_object().into_iter().flatten() {
        out.push_str(&format!(
            "table       {table} from {}\n",
            topic.as_str().unwrap_or_default()
        ));
    }
    if let Some(error) = transform["last_error"].as_object() {
        let at = error
            .get("at_ms")
            .and_then(Value::as_i64)
            .map_or_else(String::new, time::format);
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        out.push_str(&format!("last error  {message} ({at})\n"));
    }
    let figures = ["records_in", "records_out", "dropped", "failed", "late", "lag"];
    let mut table = Table::new(&[
        ">partition",
        "state",
        ">position",
        ">in",
        ">out",
        ">failed",
        ">late",
        ">lag",
    ]);
    for partition in transform["partitions"].as_array().into_iter().flatten() {
        let figure = |name: &str| count(partition[name].as_u64().unwrap_or(0));
        table.row([
            partition["partition"].to_string(),
            partition["state"].as_str().unwrap_or("-").to_owned(),
            partition["position"].to_string(),
            figure("records_in"),
            figure("records_out"),
            figure("failed"),
            figure("late"),
            figure("lag"),
        ]);
    }
    let totals = figures.map(|name| {
        let value = transform["totals"][name].as_u64().unwrap_or(0);
        format!("{} {}", count(value), name.replace('_', " "))
    });
    out.push_str(&format!("totals      {}\n\n{}", totals.join(", "), table.text()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_takes_what_decides_the_outcome() {
        let spec = json!({ "name": "x", "module": { "name": "filter", "version": "1" }, "source": "s", "sinks": ["t"] });
        let expected = json!({ "module": { "name": "filter", "version": "1" }, "source": "s" });
        assert_eq!(tried_parts(&spec), expected);
    }

    #[test]
    fn a_transform_is_shown_with_its_lag() {
        let transform = json!({
            "name": "late", "module": { "name": "filter", "version": "1.0.0" }, "source": "flights", "sinks": ["late"],
            "state": "retrying", "reason": "the sink is offline", "revision": 1, "params": { "where": "delay > 15" },
            "totals": { "records_in": 10_000, "lag": 1_500, "records_per_second": 12.4 },
            "partitions": [{ "partition": 0, "state": "running", "position": 10_000, "lag": 1_500 }]
        });
        let shown = described(&transform);
        for part in [
            "retrying: the sink is offline",
            "filter@1.0.0",
            "where = delay > 15",
            "1,500",
            "10,000 records in",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(listed(&json!([transform])).contains("flights"));
    }
}
