//! `headwater transaction`: list and describe transactions, find those that hang and abort them, by the Kafka protocol: it
//! works on any broker.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::{
    Admin, Client, OpenTransaction, TopicPartition, TransactionDescription, TransactionFilter,
};
use serde_json::{Value, json};

use super::common::{Common, confirm};
use super::failure::Failure;
use super::table::{Table, field, figure, moment};
use super::units;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Name the transactional ids and where their transactions stand
    List {
        /// Only those in this state: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort (several
        /// times: any of them)
        #[arg(long)]
        state: Vec<String>,
        /// Only those that have been open for longer, such as 90s
        #[arg(long, value_parser = units::duration_ms, value_name = "DURATION")]
        open_for: Option<i64>,
    },
    /// Show the producer, the age and the partitions of a transaction
    Describe {
        /// The transactional id
        id: String,
    },
    /// Find transactions that nobody will end: open in a partition for long, while no coordinator knows of them
    FindHanging {
        /// In partitions of this topic; in those of all topics if it is not given
        #[arg(long)]
        topic: Option<String>,
        /// In this partition alone
        #[arg(long, short, value_name = "N", requires = "topic")]
        partition: Option<i32>,
        /// What has been open for longer; no less than brokers allow a transaction
        #[arg(long, value_parser = units::duration_ms, value_name = "DURATION", default_value = "15m")]
        open_for: i64,
    },
    /// Abort a hanging transaction in its partition, by its first offset there
    Abort {
        /// The topic's name
        topic: String,
        /// The partition
        #[arg(long, short, value_name = "N")]
        partition: i32,
        /// Where the transaction begins, as find-hanging shows it
        #[arg(long, value_name = "OFFSET")]
        start_offset: i64,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    if let Command::Abort {
        topic,
        partition,
        start_offset,
        yes: false,
    } = &command
    {
        confirm(&format!(
            "abort the transaction that begins at offset {start_offset} of partition {partition} of {topic}"
        ))?;
    }
    let client = common.client().await?;
    let done = act(&common, &client, command).await;
    client.close().await;
    done
}

async fn act(common: &Common, client: &Client, command: Command) -> Result<(), Failure> {
    let admin = client.admin();
    match command {
        Command::List { state, open_for } => {
            let filter = TransactionFilter {
                states: state,
                open_for: open_for.map(duration),
                ..TransactionFilter::default()
            };
            list(common, &admin, &filter).await
        }
        Command::Describe { id } => {
            let described = shape(&admin.describe_transaction(&id).await?);
            common.answer(&described, shown)
        }
        Command::FindHanging {
            topic,
            partition,
            open_for,
        } => {
            let partitions = partitions(&admin, topic.as_deref(), partition).await?;
            let found = admin.find_hanging_transactions(&partitions, duration(open_for));
            hanging(common, &found.await?)
        }
        Command::Abort {
            topic,
            partition,
            start_offset,
            ..
        } => {
            let partition = PartitionIndex(partition);
            abort(common, &admin, &topic, partition, start_offset).await
        }
    }
}

async fn list(common: &Common, admin: &Admin, filter: &TransactionFilter) -> Result<(), Failure> {
    let listed = admin.list_transactions(filter).await?;
    let ids: Vec<&str> = listed.iter().map(|it| &*it.transactional_id).collect();
    // The list has no more than names and states; those that are gone meanwhile have no more.
    let described: BTreeMap<_, _> = admin.describe_transactions(&ids).await?;
    let rows = listed.iter().map(|it| match described.get(&it.transactional_id) {
        Some(description) => shape(description),
        None => json!({
            "transactional_id": it.transactional_id, "coordinator": it.coordinator.0, "state": it.state,
            "producer_id": it.producer_id.value(),
        }),
    });
    common.answer(&Value::Array(rows.collect()), |rows| {
        let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
        if rows.is_empty() {
            return "no transactions\n".to_owned();
        }
        let mut table = Table::new(&[
            "transactional id",
            "state",
            ">coordinator",
            ">producer",
            ">epoch",
            ">partitions",
            "open since",
        ]);
        for row in rows {
            table.row([
                field(row, "transactional_id"),
                field(row, "state"),
                figure(&row["coordinator"]),
                figure(&row["producer_id"]),
                figure(&row["producer_epoch"]),
                row["partitions"].as_array().map_or(0, Vec::len).to_string(),
                moment(&row["started_ms"]),
            ]);
        }
        table.text()
    })
}

fn shape(it: &TransactionDescription) -> Value {
    let partition = |it: &TopicPartition| json!({ "topic": &*it.topic, "partition": it.partition.0 });
    json!({
        "transactional_id": it.transactional_id, "coordinator": it.coordinator.0, "state": it.state,
        "producer_id": it.producer.id.value(), "producer_epoch": it.producer.epoch.value(),
        "timeout_ms": u64::try_from(it.timeout.as_millis()).unwrap_or(u64::MAX), "started_ms": it.started_ms,
        "partitions": it.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn shown(value: &Value) -> String {
    let mut out = format!(
        "transactional id  {}\nstate             {}\ncoordinator       {}\nproducer          {}\nepoch             {}\n\
         timeout           {} ms\nopen since        {}\n",
        field(value, "transactional_id"),
        field(value, "state"),
        figure(&value["coordinator"]),
        figure(&value["producer_id"]),
        figure(&value["producer_epoch"]),
        figure(&value["timeout_ms"]),
        moment(&value["started_ms"]),
    );
    let partitions = value["partitions"].as_array().filter(|rows| !rows.is_empty());
    if let Some(partitions) = partitions {
        let mut table = Table::new(&["topic", ">partition"]);
        for partition in partitions {
            table.row([field(partition, "topic"), figure(&partition["partition"])]);
        }
        out.push('\n');
        out.push_str(&table.text());
    }
    out
}

/// Where to look for open transactions.
async fn partitions(
    admin: &Admin,
    topic: Option<&str>,
    partition: Option<i32>,
) -> Result<Vec<TopicPartition>, Failure> {
    let topics = match topic {
        Some(name) => vec![admin.describe_topic(name).await?],
        None => admin.list_topics().await?,
    };
    let all = topics.iter().flat_map(|topic| {
        (0..topic.partitions.len()).map(|index| TopicPartition {
            topic: topic.name.clone(),
            partition: PartitionIndex(index as i32),
        })
    });
    match (topic, partition) {
        (Some(name), Some(index)) => Ok(vec![TopicPartition {
            topic: name.into(),
            partition: PartitionIndex(index),
        }]),
        _ => Ok(all.collect()),
    }
}

fn hanging(common: &Common, found: &[OpenTransaction]) -> Result<(), Failure> {
    let shape = |open: &OpenTransaction| {
        json!({
            "topic": &*open.partition.topic, "partition": open.partition.partition.0,
            "producer_id": open.producer.id.value(), "producer_epoch": open.producer.epoch.value(),
            "open_from": open.producer.open_from.map(|offset| offset.0),
            "last_timestamp_ms": open.producer.last_timestamp_ms,
        })
    };
    let value = Value::Array(found.iter().map(shape).collect());
    common.answer(&value, |rows| {
        let rows = rows.as_array().map_or(&[][..], Vec::as_slice);
        if rows.is_empty() {
            return "nothing hangs\n".to_owned();
        }
        let mut table = Table::new(&[
            "topic",
            ">partition",
            ">producer",
            ">epoch",
            ">start offset",
            "last written",
        ]);
        for row in rows {
            table.row([
                field(row, "topic"),
                figure(&row["partition"]),
                figure(&row["producer_id"]),
                figure(&row["producer_epoch"]),
                figure(&row["open_from"]),
                moment(&row["last_timestamp_ms"]),
            ]);
        }
        table.text()
    })
}

async fn abort(
    common: &Common,
    admin: &Admin,
    topic: &str,
    partition: PartitionIndex,
    start_offset: i64,
) -> Result<(), Failure> {
    let place = TopicPartition {
        topic: topic.into(),
        partition,
    };
    let open = admin.open_transactions(std::slice::from_ref(&place)).await?;
    let begins_there =
        |open: &&OpenTransaction| open.producer.open_from.is_some_and(|at| at.0 == start_offset);
    let found = open.iter().find(begins_there).ok_or_else(|| {
        let message = format!("no transaction that begins at offset {start_offset} is open in {place}");
        Failure::new(message).hint("`headwater transaction find-hanging` shows where they begin")
    })?;
    admin.abort_transaction(found).await?;
    let value = json!({
        "topic": topic, "partition": partition.0, "producer_id": found.producer.id.value(),
        "start_offset": start_offset,
    });
    common.answer(&value, |_| format!("aborted in {place}\n"))
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
