//! `headwater topic`: create, list, describe, alter and delete topics, by the Kafka protocol: it works on any broker.

use std::collections::BTreeMap;

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::protocol::kafka::ErrorCode;
use headwater_sdk::protocol::kafka::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, RequestCursor, TopicRequest,
};
use headwater_sdk::protocol::primitives::Str;
use headwater_sdk::routing::Topic;
use headwater_sdk::{
    ActiveProducer, Admin, Client, ConfigChange, ConfigEntry, ConfigResource, Isolation, NewTopic, OffsetSpec,
};
use serde_json::{Value, json};

use super::cluster::reassign;
use super::common::{Common, confirm, pair};
use super::failure::Failure;
use super::http::segment;
use super::table::{Table, count, figure};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a topic
    Create {
        /// What to call the topic
        name: String,
        /// How many partitions [default: the broker's num.partitions]
        #[arg(long, short, value_name = "N")]
        partitions: Option<i32>,
        /// How many copies of each [default: the broker's default.replication.factor]
        #[arg(long, short, value_name = "N")]
        replication_factor: Option<i16>,
        /// A property such as retention.ms=-1; may be given again
        #[arg(long = "config", short, value_name = "KEY=VALUE", value_parser = pair)]
        configs: Vec<(String, String)>,
        /// Accept a topic of that name as it is
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Name the topics
    List {
        /// Those the broker keeps for itself, too
        #[arg(long)]
        internal: bool,
    },
    /// Show partitions with who leads and who holds them, offsets and properties
    Describe {
        /// The topic's name
        name: String,
        /// Properties that nobody has set, too
        #[arg(long)]
        all: bool,
    },
    /// Change properties, or the number of partitions
    Alter {
        /// The topic's name
        name: String,
        /// Set a property; may be given again
        #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Put a property back to its default; may be given again
        #[arg(long, short, value_name = "KEY")]
        remove: Vec<String>,
        /// Grow to so many partitions; keys may land elsewhere from then on
        #[arg(long, short, value_name = "N")]
        partitions: Option<i32>,
    },
    /// Move the replicas of a topic to other nodes
    Reassign(reassign::Arguments),
    /// Have one node look for damage in its replicas of a topic now, and show what it knows of
    Scrub {
        /// The topic's name
        name: String,
        /// Only show what is known
        #[arg(long)]
        show: bool,
    },
    /// Show the idempotent producers that write to a partition
    Producers {
        /// The topic's name
        name: String,
        /// The partition
        #[arg(long, short, value_name = "N", default_value_t = 0)]
        partition: i32,
    },
    /// Delete topics with everything in them
    Delete {
        /// The topics' names
        #[arg(required = true)]
        names: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    if let Command::Delete { names, yes: false } = &command {
        confirm(&format!("delete {} with all records", names.join(", ")))?;
    }
    if let Command::Scrub { name, show } = &command {
        return scrub(&common, name, *show).await;
    }
    let client = common.client().await?;
    let done = act(&common, &client, command).await;
    client.close().await;
    done
}

async fn act(common: &Common, client: &Client, command: Command) -> Result<(), Failure> {
    let admin = client.admin();
    match command {
        Command::Create {
            name,
            partitions,
            replication_factor,
            configs,
            if_not_exists,
        } => {
            let topic = NewTopic {
                name,
                partitions,
                replication_factor,
                configs: configs.into_iter().collect(),
            };
            create(common, &admin, topic, if_not_exists).await
        }
        Command::List { internal } => list(common, &admin, internal).await,
        Command::Describe { name, all } => describe(common, &admin, &name, all).await,
        Command::Alter {
            name,
            set,
            remove,
            partitions,
        } => {
            alter(&admin, &name, set, remove, partitions).await?;
            describe(common, &admin, &name, false).await
        }
        Command::Scrub { name, show } => scrub(common, &name, show).await,
        Command::Reassign(arguments) => reassign::run(common, &admin, arguments).await,
        Command::Producers { name, partition } => {
            producers(common, &admin, &name, PartitionIndex(partition)).await
        }
        Command::Delete { names, .. } => {
            for name in &names {
                admin.delete_topic(name).await?;
            }
            common.answer(&json!({ "deleted": names }), |_| {
                format!("deleted {}\n", names.join(", "))
            })
        }
    }
}

async fn create(common: &Common, admin: &Admin, topic: NewTopic, if_not_exists: bool) -> Result<(), Failure> {
    match admin.create_topic(&topic).await {
        Ok(_) => {}
        Err(error) if if_not_exists && error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {}
        Err(error) => return Err(error.into()),
    }
    let made = admin.describe_topic(&topic.name).await?;
    let value = json!({ "name": topic.name, "id": made.id.to_string(), "partitions": made.partitions.len() });
    common.answer(&value, |_| {
        let partitions = made.partitions.len();
        let noun = if partitions == 1 {
            "partition"
        } else {
            "partitions"
        };
        format!("{} with {partitions} {noun}\n", topic.name)
    })
}

async fn list(common: &Common, admin: &Admin, internal: bool) -> Result<(), Failure> {
    let mut topics = admin.list_topics().await?;
    topics.retain(|topic| internal || !topic.internal);
    let shape = |topic: &Topic| {
        let copies = topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replicas.len());
        json!({
            "name": &*topic.name, "id": topic.id.to_string(), "internal": topic.internal,
            "partitions": topic.partitions.len(), "replication_factor": copies,
        })
    };
    let value = Value::Array(topics.iter().map(|topic| shape(topic)).collect());
    common.answer(&value, |_| {
        if topics.is_empty() {
            return "no topics\n".to_owned();
        }
        let mut table = Table::new(&["topic", ">partitions", ">replicas"]);
        for topic in &topics {
            let copies = topic
                .partitions
                .first()
                .map_or(0, |partition| partition.replicas.len());
            table.row([
                topic.name.to_string(),
                topic.partitions.len().to_string(),
                copies.to_string(),
            ]);
        }
        table.text()
    })
}

async fn describe(common: &Common, admin: &Admin, name: &str, all: bool) -> Result<(), Failure> {
    let topic = admin.describe_topic(name).await?;
    let begins = offsets(admin, &topic, OffsetSpec::Earliest).await?;
    let ends = offsets(admin, &topic, OffsetSpec::Latest).await?;
    let eligible = eligible(admin, name).await;
    let mut configs = admin
        .describe_configs(&ConfigResource::Topic(name.to_owned()))
        .await?;
    configs.retain(|config| all || !config.is_default);
    let offset = |found: &BTreeMap<i32, i64>, index: usize| found.get(&(index as i32)).copied();
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        json!({
            "partition": index, "leader": partition.leader.map(|node| node.0),
            "leader_epoch": partition.leader_epoch.0,
            "replicas": partition.replicas.iter().map(|node| node.0).collect::<Vec<_>>(),
            "isr": partition.isr.iter().map(|node| node.0).collect::<Vec<_>>(),
            "eligible": eligible.as_ref().map(|found| found.get(&(index as i32)).cloned().unwrap_or_default()),
            "log_start_offset": offset(&begins, index), "high_watermark": offset(&ends, index),
        })
    });
    let value = json!({
        "name": name, "id": topic.id.to_string(), "internal": topic.internal,
        "partitions": partitions.collect::<Vec<_>>(),
        "configs": configs.iter().map(shape).collect::<Vec<_>>(),
    });
    common.answer(&value, described)
}

async fn producers(
    common: &Common,
    admin: &Admin,
    name: &str,
    partition: PartitionIndex,
) -> Result<(), Failure> {
    let producers = admin.describe_producers(name, partition).await?;
    let shape = |producer: &ActiveProducer| {
        json!({
            "producer_id": producer.id.value(), "epoch": producer.epoch.value(),
            "last_sequence": producer.last_sequence, "last_timestamp_ms": producer.last_timestamp_ms,
            "coordinator_epoch": producer.coordinator_epoch, "open_from": producer.open_from.map(|offset| offset.0),
        })
    };
    let value = Value::Array(producers.iter().map(shape).collect());
    common.answer(&value, |value| {
        let mut table = Table::new(&[
            ">producer",
            ">epoch",
            ">last sequence",
            ">last heard of, ms since 1970",
            ">open from",
        ]);
        for producer in value.as_array().into_iter().flatten() {
            let figures = ["producer_id", "epoch", "last_sequence", "last_timestamp_ms"];
            let figures = figures.map(|name| producer[name].to_string());
            table.row(figures.into_iter().chain([figure(&producer["open_from"])]));
        }
        table.text()
    })
}

/// By the node's HTTP: it is about the files of one node.
async fn scrub(common: &Common, name: &str, show: bool) -> Result<(), Failure> {
    let http = common.http()?;
    let path = format!("/topics/{}", segment(name));
    let begun = match show {
        true => Value::Null,
        false => http.post(&format!("{path}/scrub"), &Value::Null).await?,
    };
    let topic = http.get(&path).await?;
    let damaged = topic["partitions"].as_array().into_iter().flatten();
    let damaged = damaged.flat_map(|partition| {
        let found = partition["damaged"].as_array().into_iter().flatten();
        found.map(|range| {
            json!({
                "partition": partition["partition"], "from_offset": range["from_offset"],
                "until_offset": range["until_offset"], "repairable": range["repairable"], "reason": range["reason"],
            })
        })
    });
    let value = json!({
        "node": begun["node"], "scrubbing": begun["partitions"], "damaged": damaged.collect::<Vec<_>>(),
    });
    common.answer(&value, scrubbed)
}

fn scrubbed(value: &Value) -> String {
    let mut out = match value["scrubbing"].as_array() {
        Some(partitions) => format!("node {} reads {} replicas\n", value["node"], partitions.len()),
        None => String::new(),
    };
    let damaged = value["damaged"].as_array().filter(|damaged| !damaged.is_empty());
    let Some(damaged) = damaged else {
        out.push_str("no damage is known\n");
        return out;
    };
    let mut table = Table::new(&[">partition", ">from", ">until", "repairable", "reason"]);
    for range in damaged {
        table.row([
            range["partition"].to_string(),
            range["from_offset"].to_string(),
            range["until_offset"].to_string(),
            range["repairable"].to_string(),
            range["reason"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    out.push_str(&table.text());
    out
}

/// The replicas out of sync that may lead all the same, by partition (KIP-966); None from a broker that cannot tell.
async fn eligible(admin: &Admin, name: &str) -> Option<BTreeMap<i32, Vec<i32>>> {
    let mut found = BTreeMap::new();
    let mut cursor = None;
    loop {
        let request = DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest {
                name: Str::from(name),
                ..TopicRequest::default()
            }],
            cursor,
            ..DescribeTopicPartitionsRequest::default()
        };
        let answer = admin.call(&request).await.ok()?;
        for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
            let eligible = partition.eligible_leader_replicas.unwrap_or_default();
            found.insert(partition.partition_index, eligible);
        }
        let Some(next) = answer.next_cursor else {
            return Some(found);
        };
        cursor = Some(RequestCursor {
            topic_name: next.topic_name,
            partition_index: next.partition_index,
            ..RequestCursor::default()
        });
    }
}

fn shape(config: &ConfigEntry) -> Value {
    json!({
        "name": config.name, "value": config.value, "is_default": config.is_default, "doc": config.documentation,
    })
}

async fn offsets(admin: &Admin, topic: &Topic, place: OffsetSpec) -> Result<BTreeMap<i32, i64>, Failure> {
    let led = topic
        .partitions
        .iter()
        .enumerate()
        .filter(|(_, partition)| partition.leader.is_some());
    let places: Vec<_> = led
        .map(|(index, _)| (PartitionIndex(index as i32), place))
        .collect();
    let found = admin
        .list_offsets(&topic.name, &places, Isolation::ReadUncommitted)
        .await?;
    Ok(found
        .into_iter()
        .filter_map(|(partition, listed)| Some((partition.0, listed.offset?.0)))
        .collect())
}

fn described(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "topic  {}\nid     {}\n\n",
        text(&value["name"]),
        text(&value["id"])
    );
    let mut table = Table::new(&[
        ">partition",
        ">leader",
        ">epoch",
        "replicas",
        "isr",
        "eligible",
        ">start",
        ">end",
        ">records",
    ]);
    for partition in value["partitions"].as_array().into_iter().flatten() {
        // None: a column of its own all the same, so that scripts find those behind it.
        let nodes = |value: &Value| {
            let ids = value.as_array().into_iter().flatten().map(ToString::to_string);
            let ids = ids.collect::<Vec<_>>().join(",");
            if ids.is_empty() { "-".to_owned() } else { ids }
        };
        let (start, end) = (
            partition["log_start_offset"].as_u64(),
            partition["high_watermark"].as_u64(),
        );
        let figure = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let records = start.zip(end).map(|(start, end)| end.saturating_sub(start));
        table.row([
            partition["partition"].to_string(),
            partition["leader"]
                .as_i64()
                .map_or_else(|| "none".to_owned(), |node| node.to_string()),
            partition["leader_epoch"].to_string(),
            nodes(&partition["replicas"]),
            nodes(&partition["isr"]),
            nodes(&partition["eligible"]),
            figure(start),
            figure(end),
            records.map_or_else(|| "-".to_owned(), count),
        ]);
    }
    out.push_str(&table.text());
    let configs = value["configs"].as_array().filter(|configs| !configs.is_empty());
    if let Some(configs) = configs {
        let mut table = Table::new(&["property", "value"]);
        for config in configs {
            table.row([text(&config["name"]), text(&config["value"])]);
        }
        out.push('\n');
        out.push_str(&table.text());
    }
    out
}

async fn alter(
    admin: &Admin,
    name: &str,
    set: Vec<(String, String)>,
    remove: Vec<String>,
    partitions: Option<i32>,
) -> Result<(), Failure> {
    let set = set
        .into_iter()
        .map(|(name, value)| ConfigChange::Set { name, value });
    let changes: Vec<_> = set
        .chain(remove.into_iter().map(|name| ConfigChange::Delete { name }))
        .collect();
    if changes.is_empty() && partitions.is_none() {
        return Err(
            Failure::usage("nothing to change").hint("give --set KEY=VALUE, --remove KEY or --partitions N")
        );
    }
    if !changes.is_empty() {
        admin
            .alter_configs(&ConfigResource::Topic(name.to_owned()), &changes)
            .await?;
    }
    if let Some(count) = partitions {
        admin.create_partitions(name, count).await?;
    }
    Ok(())
}
