//! `headwater cluster elect-leaders`: the preferred replicas lead again.

use headwater_sdk::protocol::ids::PartitionIndex;
use headwater_sdk::protocol::kafka::ErrorCode;
use headwater_sdk::{Admin, Election, Error};
use serde_json::{Value, json};

use super::super::common::Common;
use super::super::failure::Failure;
use super::super::table::Table;
use super::progress::at;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this topic [default: all]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Where nobody leads, let anybody lead who is there: records may be lost
    #[arg(long)]
    unclean: bool,
}

pub(super) async fn run(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let election = if arguments.unclean {
        Election::Unclean
    } else {
        Election::Preferred
    };
    let partitions = match &arguments.topic {
        Some(name) => {
            let topic = admin.describe_topic(name).await?;
            let indexes = (0..topic.partitions.len() as i32).map(PartitionIndex);
            Some(indexes.map(|index| at(name, index)).collect::<Vec<_>>())
        }
        None => None,
    };
    let outcomes = admin.elect_leaders(election, partitions.as_deref()).await?;
    let is_news = |outcome: &Result<(), Error>| {
        let code = outcome.as_ref().err().and_then(Error::code);
        code != Some(ErrorCode::ELECTION_NOT_NEEDED)
    };
    let news = outcomes.iter().filter(|(_, outcome)| is_news(outcome));
    let shape = news.map(|(at, outcome)| {
        json!({
            "topic": &*at.topic, "partition": at.partition.0, "elected": outcome.is_ok(),
            "reason": outcome.as_ref().err().map(ToString::to_string),
        })
    });
    let value = Value::Array(shape.collect());
    common.answer(&value, |value| {
        let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return "every partition is led as it should be\n".to_owned();
        }
        let mut table = Table::new(&["topic", ">partition", "elected", "reason"]);
        for row in rows {
            table.row([
                row["topic"].as_str().unwrap_or_default().to_owned(),
                row["partition"].to_string(),
                if row["elected"] == true { "yes" } else { "no" }.to_owned(),
                row["reason"].as_str().unwrap_or("-").to_owned(),
            ]);
        }
        table.text()
    })
}
