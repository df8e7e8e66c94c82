//! Waiting for reassignments, and telling how far they are.
//!
//! Kafka has no way to be told: the cluster is asked again and again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater_sdk::protocol::ids::{NodeId, PartitionIndex};
use headwater_sdk::{Admin, TopicPartition};
use serde_json::{Value, json};

use super::super::common::{Common, note};
use super::super::failure::Failure;
use super::super::table::Table;
use crate::sys::Sys;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until none of these partitions is being moved any more; tells people how many are left.
pub(super) async fn until_moved(admin: &Admin, wanted: &BTreeSet<TopicPartition>) -> Result<(), Failure> {
    let clock = Sys::real(Path::new("")).clock;
    let mut told = None;
    loop {
        let ongoing = admin.list_partition_reassignments().await?;
        let ongoing = ongoing
            .into_iter()
            .map(|moving| at(&moving.topic, moving.partition));
        let left = ongoing.filter(|at| wanted.contains(at)).count();
        if told != Some(left) {
            note(&format!(
                "{} of {} partitions moved",
                wanted.len() - left,
                wanted.len()
            ));
            told = Some(left);
        }
        if left == 0 {
            return Ok(());
        }
        clock.sleep(LOOK).await;
    }
}

/// `headwater cluster reassignments`
pub(super) async fn list(common: &Common, admin: &Admin) -> Result<(), Failure> {
    let ongoing = admin.list_partition_reassignments().await?;
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let shape = ongoing.iter().map(|moving| {
        json!({
            "topic": moving.topic, "partition": moving.partition.0, "replicas": ids(&moving.replicas),
            "adding": ids(&moving.adding), "removing": ids(&moving.removing),
        })
    });
    let value = Value::Array(shape.collect());
    common.answer(&value, |value| {
        let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return "nothing is being moved\n".to_owned();
        }
        let mut table = Table::new(&["topic", ">partition", "replicas", "adding", "removing"]);
        for row in rows {
            table.row([
                row["topic"].as_str().unwrap_or_default().to_owned(),
                row["partition"].to_string(),
                numbers(&row["replicas"]),
                numbers(&row["adding"]),
                numbers(&row["removing"]),
            ]);
        }
        table.text()
    })
}

pub(super) fn at(topic: &str, partition: PartitionIndex) -> TopicPartition {
    TopicPartition {
        topic: Arc::from(topic),
        partition,
    }
}

/// `1,2,3`
pub(super) fn numbers(list: &Value) -> String {
    let numbers = list.as_array().into_iter().flatten().map(ToString::to_string);
    numbers.collect::<Vec<_>>().join(",")
}
