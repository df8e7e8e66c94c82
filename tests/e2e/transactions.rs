//! Records copied from topic to topic by somebody else's transactional client, exactly once, while the copier, the coordinator of its
//! transactions and the leader it writes to are killed.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use headwater_sdk::protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_sdk::protocol::primitives::Str;
use headwater_sdk::{Client, Config, NewTopic, PartitionIndex};
use headwater_tests::{Node, PATIENCE, python, read_all, until, within, write_numbers};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::groups::three;

const FROM: &str = "from";
const TO: &str = "to";
const ID: &str = "copier";
const PARTITIONS: i32 = 3;
/// Numbers in each partition.
const COUNT: i64 = 600;

/// A copier; when it ends by itself, another one is started. Dropped, it dies in the middle of whatever it does.
struct Copier {
    copied: watch::Receiver<u64>,
    running: JoinHandle<()>,
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Copier {
    fn start(bootstrap: &str) -> Self {
        let (sender, copied) = watch::channel(0);
        let bootstrap = bootstrap.to_owned();
        let running = tokio::spawn(async move {
            loop {
                let arguments = [&bootstrap, FROM, TO, "copiers", ID];
                let Ok(mut script) = python("e2e/scripts/transactions.py", arguments) else {
                    return;
                };
                while let Ok(Some(line)) = script.line().await {
                    if let Some(count) = line.strip_prefix("copied ").and_then(|it| it.parse::<u64>().ok()) {
                        sender.send_modify(|copied| *copied += count);
                    }
                }
            }
        });
        Self { copied, running }
    }

    /// Waits until it has committed so many records.
    async fn until(&self, count: u64) -> anyhow::Result<()> {
        let mut copied = self.copied.clone();
        let what = format!("{count} records to be copied");
        within(PATIENCE, &what, copied.wait_for(|it| *it >= count)).await??;
        Ok(())
    }
}

/// Which of the nodes coordinates the copier's transactions.
async fn coordinator(client: &Client) -> anyhow::Result<usize> {
    let request = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec![Str::from(ID)],
        ..FindCoordinatorRequest::default()
    };
    until(PATIENCE, "the coordinator of transactions", || async {
        // The one who told it first may be gone.
        client.refresh().await?;
        let answer = client.admin().call(&request).await?;
        let found = answer.coordinators.first().context("one coordinator")?;
        Ok((found.error_code == 0).then_some(usize::try_from(found.node_id - 1)?))
    })
    .await
}

async fn leader(client: &Client) -> anyhow::Result<usize> {
    until(PATIENCE, "somebody to lead", || async {
        let topic = client.admin().describe_topic(TO).await?;
        let leader = topic.partitions[0].leader;
        Ok(leader.and_then(|leader| usize::try_from(leader.0 - 1).ok()))
    })
    .await
}

#[tokio::test]
async fn records_are_copied_once_whoever_is_killed() -> anyhow::Result<()> {
    let (sites, nodes) = three().await?;
    let bootstrap: Vec<String> = nodes.iter().map(Node::bootstrap).collect();
    let bootstrap = bootstrap.join(",");
    let client = Client::connect(Config::new(&bootstrap)?).await?;
    for name in [FROM, TO] {
        let topic = NewTopic {
            replication_factor: Some(3),
            ..NewTopic::new(name, PARTITIONS)
        };
        client.admin().create_topic(&topic).await?;
    }
    write_numbers(&client, FROM, PARTITIONS, 0..COUNT).await?;

    // The next one takes the transactional id over: what the first had open is aborted.
    let first = Copier::start(&bootstrap);
    first.until(200).await?;
    drop(first);
    let copier = Copier::start(&bootstrap);
    copier.until(200).await?;
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    for round in 0..2 {
        let at = match round {
            0 => coordinator(&client).await?,
            _ => leader(&client).await?,
        };
        nodes[at].take().context("it runs")?.kill().await?;
        let so_far = *copier.copied.borrow();
        copier.until(so_far + 100).await?;
        nodes[at] = Some(sites[at].start().await?);
    }
    until(PATIENCE, "everything to be copied", || async {
        let committed = read_all_of_group(&client).await?;
        Ok((committed == i64::from(PARTITIONS) * COUNT).then_some(()))
    })
    .await?;
    drop(copier);
    expect_copies(&client, TO, PARTITIONS, COUNT).await?;
    client.close().await;
    Ok(())
}

/// Each partition has the numbers below `count` once and in order, as one who reads what is committed sees it. What is read
/// ends with a record that is in no transaction: it is written here.
pub(crate) async fn expect_copies(
    client: &Client,
    topic: &str,
    partitions: i32,
    count: i64,
) -> anyhow::Result<()> {
    write_numbers(client, topic, partitions, count..count + 1).await?;
    let mut copies: BTreeMap<PartitionIndex, Vec<i64>> = BTreeMap::new();
    for record in read_all(client, topic).await? {
        let value = record.value.as_ref().context("a value")?;
        let number = std::str::from_utf8(value)?.parse()?;
        copies.entry(record.partition).or_default().push(number);
    }
    for index in (0..partitions).map(PartitionIndex) {
        let found = copies.remove(&index).unwrap_or_default();
        let expected: Vec<i64> = (0..=count).collect();
        ensure!(found == expected, "partition {index:?}: {found:?}");
    }
    Ok(())
}

/// How many records the group has committed, over all partitions.
async fn read_all_of_group(client: &Client) -> anyhow::Result<i64> {
    let committed = crate::groups::committed_of(client, "copiers").await?;
    Ok(committed.values().sum())
}
