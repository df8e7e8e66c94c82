//! `headwater cluster quorum`, `add-voter`, `remove-voter`: who agrees on the metadata.

use headwater_sdk::protocol::ids::NodeId;
use headwater_sdk::{Admin, QuorumReplica};
use serde_json::{Value, json};

use super::super::common::Common;
use super::super::failure::Failure;
use super::super::table::{Table, figure};

/// Shows the quorum.
pub(super) async fn show(common: &Common, admin: &Admin) -> Result<(), Failure> {
    let quorum = admin.describe_quorum().await?;
    let shape = |replica: &QuorumReplica| {
        json!({
            "node": replica.node.0, "directory": replica.directory.to_string(),
            "log_end": replica.log_end.map(|end| end.0),
            "lag": replica.log_end.map(|end| (quorum.high_watermark.0 - end.0).max(0)),
        })
    };
    let shapes = |replicas: &[QuorumReplica]| replicas.iter().map(shape).collect::<Vec<_>>();
    let value = json!({
        "leader": quorum.leader.map(|node| node.0), "leader_epoch": quorum.leader_epoch,
        "high_watermark": quorum.high_watermark.0, "voters": shapes(&quorum.voters),
        "observers": shapes(&quorum.observers),
    });
    common.answer(&value, shown)
}

fn shown(value: &Value) -> String {
    let mut out = format!(
        "leader     {}\nepoch      {}\nwatermark  {}\n\n",
        figure(&value["leader"]),
        value["leader_epoch"],
        value["high_watermark"]
    );
    let mut table = Table::new(&[">node", "part", ">log end", ">lag"]);
    for (list, part) in [("voters", "voter"), ("observers", "observer")] {
        for member in value[list].as_array().into_iter().flatten() {
            table.row([
                member["node"].to_string(),
                part.to_owned(),
                figure(&member["log_end"]),
                figure(&member["lag"]),
            ]);
        }
    }
    out.push_str(&table.text());
    out
}

/// Gives a vote, and shows the quorum then.
pub(super) async fn add(common: &Common, admin: &Admin, node: NodeId) -> Result<(), Failure> {
    admin.add_voter(node).await?;
    show(common, admin).await
}

/// Takes a vote away, and shows the quorum then.
pub(super) async fn remove(common: &Common, admin: &Admin, node: NodeId) -> Result<(), Failure> {
    admin.remove_voter(node).await?;
    show(common, admin).await
}
