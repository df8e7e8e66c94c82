//! `headwater link`: what flows between a site and its core, and how far it is.

use serde_json::{Value, json};

use super::common::Common;
use super::failure::Failure;
use super::http::segment;
use super::table::{self, Table, bytes, count};
use super::{time, units};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// On the core: declare what a site's link carries
    Create {
        /// The site at the other end
        #[arg(long, value_name = "NAME")]
        site: String,
        /// What to call the link [default: the site's name]
        name: Option<String>,
        #[command(flatten)]
        flow: FlowArguments,
    },
    /// Show the links and their backlog
    List,
    /// Show one link, partition by partition
    Describe {
        /// The link's name
        name: String,
    },
    /// Stop copying until it is resumed; nothing is lost
    Pause {
        /// The link's name
        name: String,
    },
    /// Go on where copying stopped
    Resume {
        /// The link's name
        name: String,
    },
    /// Forget the link; what was copied stays
    Delete {
        /// The link's name
        name: String,
    },
}

/// One flow, as flags say it.
#[derive(Debug, clap::Args)]
pub(super) struct FlowArguments {
    /// Topics to copy, `*` for any characters; may be given again
    #[arg(long, value_name = "PATTERN")]
    topics: Vec<String>,
    /// Which way records go: up is from the edge to the core
    #[arg(long, value_parser = ["up", "down"], default_value = "up")]
    direction: String,
    /// Put before a topic's name at the copy
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// What happens to records that were never copied and that the source would delete
    #[arg(long, value_parser = ["hold", "mark-gap"], default_value = "hold")]
    on_gap: String,
    /// How much the source holds back for a copy that is offline, for each partition
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    hold_bytes: Option<u64>,
}

impl FlowArguments {
    /// The flow, if topics were named.
    pub(super) fn spec(&self) -> Option<Value> {
        let mut flow = json!({
            "direction": self.direction, "mode": "mirror", "topics": self.topics, "prefix": self.prefix,
            "on_gap": self.on_gap,
        });
        if let Some(hold_bytes) = self.hold_bytes {
            flow["hold_bytes"] = json!(hold_bytes);
        }
        (!self.topics.is_empty()).then_some(flow)
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    let http = common.http()?;
    let path = |name: &str, action: &str| format!("/links/{}{action}", segment(name));
    let link = match command {
        Command::Create { site, name, flow } => {
            let Some(flow) = flow.spec() else {
                return Err(Failure::usage("a link needs something to carry")
                    .hint("--topics 'PATTERN'; '*' is everything"));
            };
            http.post("/links", &json!({ "name": name, "site": site, "flows": [flow] }))
                .await?
        }
        Command::List => {
            let links = http.get("/links").await?;
            return common.answer(&links, listed);
        }
        Command::Describe { name } => http.get(&path(&name, "")).await?,
        Command::Pause { name } => http.post(&path(&name, "/pause"), &Value::Null).await?,
        Command::Resume { name } => http.post(&path(&name, "/resume"), &Value::Null).await?,
        Command::Delete { name } => {
            http.delete(&path(&name, "")).await?;
            return common.answer(&json!({ "deleted": name }), |_| format!("deleted link {name}\n"));
        }
    };
    common.answer(&link, described)
}

fn partitions(link: &Value) -> impl Iterator<Item = &Value> {
    let flows = link["flows"].as_array().into_iter().flatten();
    flows.flat_map(|flow| flow["partitions"].as_array().into_iter().flatten())
}

fn listed(links: &Value) -> String {
    let mut table = Table::new(&[
        "link",
        "site",
        "role",
        "state",
        "last seen",
        ">partitions",
        ">backlog",
        "error",
    ]);
    for link in links.as_array().into_iter().flatten() {
        let text = |name: &str| table::field(link, name);
        let backlog = partitions(link)
            .filter_map(|partition| partition["backlog_records"].as_u64())
            .sum();
        table.row([
            text("name"),
            text("site"),
            text("role"),
            text("state"),
            table::moment(&link["last_seen_ms"]),
            partitions(link).count().to_string(),
            count(backlog),
            text("error"),
        ]);
    }
    table.text()
}

fn described(link: &Value) -> String {
    let text = |name: &str| table::field(link, name);
    let figure = |name: &str| link[name].as_u64().unwrap_or(0);
    let mut out = format!(
        "link       {} to site {}, this is the {} side\n",
        text("name"),
        text("site"),
        text("role")
    );
    let since = time::format(link["since_ms"].as_i64().unwrap_or(0));
    out.push_str(&format!(
        "state      {} since {since}, {} reconnects\n",
        text("state"),
        figure("reconnects")
    ));
    if let Some(error) = link["error"].as_str() {
        out.push_str(&format!("error      {error}\n"));
    }
    out.push_str(&format!(
        "traffic    {} sent, {} received, {} of records\n",
        bytes(figure("bytes_sent")),
        bytes(figure("bytes_received")),
        bytes(figure("payload_bytes")),
    ));
    for flow in link["flows"].as_array().into_iter().flatten() {
        let topics = flow["topics"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        out.push_str(&format!(
            "flow       {} {} of {}, prefix {:?}, on a gap {}\n",
            flow["direction"].as_str().unwrap_or("-"),
            flow["mode"].as_str().unwrap_or("-"),
            topics.collect::<Vec<_>>().join(", "),
            flow["prefix"].as_str().unwrap_or(""),
            flow["on_gap"].as_str().unwrap_or("-"),
        ));
    }
    let mut table = Table::new(&[
        "topic",
        "copy",
        ">partition",
        ">end",
        ">copied",
        ">backlog",
        "state",
        "detail",
    ]);
    for partition in partitions(link) {
        let text = |name: &str| partition[name].as_str().unwrap_or("").to_owned();
        table.row([
            text("topic"),
            text("copy"),
            partition["partition"].to_string(),
            partition["source_end"].to_string(),
            partition["copied"].to_string(),
            count(partition["backlog_records"].as_u64().unwrap_or(0)),
            text("state"),
            text("detail"),
        ]);
    }
    out.push('\n');
    out.push_str(&table.text());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_shown_with_its_backlog() {
        let link = json!({
            "name": "harbour", "site": "harbour", "role": "core", "state": "connected", "since_ms": 0, "reconnects": 2,
            "bytes_sent": 10, "bytes_received": 2_000_000, "payload_bytes": 1_900_000, "error": null,
            "flows": [{
                "direction": "up", "mode": "mirror", "topics": ["a*"], "prefix": "harbour.", "on_gap": "hold",
                "partitions": [{
                    "topic": "a1", "copy": "harbour.a1", "partition": 0, "source_end": 5000, "copied": 3766,
                    "backlog_records": 1234, "state": "catching-up", "detail": null
                }]
            }]
        });
        let shown = described(&link);
        for part in [
            "this is the core side",
            "2.0 MB received",
            "up mirror of a*",
            "1,234",
            "catching-up",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(listed(&json!([link])).contains("1,234"));
    }
}
