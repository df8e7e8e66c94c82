//! Records copied from topic to topic by the SDK's transactions over QUIC, exactly once, while the copier is killed in the
//! middle, another one takes its transactional id over, and the node is killed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_sdk::{
    Batch, Client, Config, ConsumerConfig, GroupConfig, GroupMetadata, Isolation, NewTopic, PartitionIndex,
    Producer, ProducerConfig, Record, TransactionError, Trust,
};
use headwater_tests::{Node, PATIENCE, Site, client, until, within, write_numbers};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::transactions::expect_copies;

const FROM: &str = "from";
const TO: &str = "to";
const GROUP: &str = "copiers";
const ID: &str = "copier";
const PARTITIONS: i32 = 3;
/// Numbers in each partition.
const COUNT: i64 = 400;
/// Written together, so that a transaction has no more.
const TOGETHER: i64 = 10;

/// A copier with threads of its own. It copies as much as it is allowed to, and then waits in the middle of a transaction.
struct Copier {
    runtime: Option<Runtime>,
    allowed: watch::Sender<u64>,
    seen: watch::Receiver<Seen>,
}

/// What is seen of a copier.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// It has the transactional id.
    has_begun: bool,
    /// It has written records that it has not committed.
    waits: bool,
    copied: u64,
    ended: Option<String>,
}

/// A copier's side of it.
struct Reins {
    allowed: watch::Receiver<u64>,
    seen: watch::Sender<Seen>,
}

impl Drop for Copier {
    /// As if its process were killed: nobody says good-bye.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Copier {
    fn start(node: &Node, allowed: u64) -> anyhow::Result<Self> {
        let address = format!("quic://{}", node.addresses.quic);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (allow, allowed) = watch::channel(allowed);
        let (tell, seen) = watch::channel(Seen::default());
        runtime.spawn(async move {
            let mut reins = Reins { allowed, seen: tell };
            let Err(why) = copy(&address, &mut reins).await;
            reins
                .seen
                .send_modify(|seen| seen.ended = Some(format!("{why:#}")));
        });
        Ok(Self {
            runtime: Some(runtime),
            allowed: allow,
            seen,
        })
    }

    async fn until(&self, what: &str, is_so: impl FnMut(&Seen) -> bool) -> anyhow::Result<()> {
        let mut seen = self.seen.clone();
        let waited = within(PATIENCE, what, seen.wait_for(is_so)).await;
        waited.with_context(|| format!("{:?}", *self.seen.borrow()))??;
        Ok(())
    }
}

async fn copy(address: &str, reins: &mut Reins) -> anyhow::Result<Infallible> {
    let config = Config::new(address)?.with_trust(Trust::SkipVerification);
    let client = Client::connect(config).await?;
    let producer = client.producer(ProducerConfig {
        transactional_id: Some(ID.to_owned()),
        // It waits for the test, and for the node while that is down.
        transaction_timeout: Duration::from_secs(600),
        ..ProducerConfig::default()
    })?;
    producer.begin().await?;
    producer.abort().await?;
    reins.seen.send_modify(|seen| seen.has_begun = true);
    let mut consumer = client.group_consumer(GroupConfig {
        auto_commit: None,
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(200),
        consumer: ConsumerConfig {
            isolation: Isolation::ReadCommitted,
            ..ConsumerConfig::default()
        },
        ..GroupConfig::new(GROUP, [FROM])
    })?;
    let mut number = 0_u64;
    loop {
        let batch = consumer.next_batch().await?;
        let reader = consumer.group_metadata();
        producer.begin().await?;
        number += 1;
        // Every fifth is given up when all of it is written.
        match transfer(&producer, &batch, &reader, number.is_multiple_of(5), reins).await {
            Ok(count) => reins.seen.send_modify(|seen| seen.copied += count),
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(_) => {
                producer.abort().await?;
                consumer.rewind().await?;
            }
        }
    }
}

async fn transfer(
    producer: &Producer,
    batch: &Batch,
    reader: &GroupMetadata,
    gives_up: bool,
    reins: &mut Reins,
) -> Result<u64, TransactionError> {
    let broken = |why: &dyn std::fmt::Display| TransactionError::MustAbort {
        cause: why.to_string(),
    };
    let mut count = 0;
    for record in batch.records().map_err(|why| broken(&why))?.iter() {
        let record = record.map_err(|why| broken(&why))?;
        let copy = Record::value(record.value.unwrap_or_default()).partition(batch.partition());
        producer.send(TO, copy).await?;
        count += 1;
    }
    let read = BTreeMap::from([(batch.topic_partition().clone(), batch.next_offset())]);
    producer.send_offsets(reader, &read).await?;
    let copied = reins.seen.borrow().copied;
    if copied >= *reins.allowed.borrow() {
        producer.flush().await;
        reins.seen.send_modify(|seen| seen.waits = true);
        let more = reins.allowed.wait_for(|allowed| *allowed > copied).await;
        more.map_err(|why| broken(&why))?;
        reins.seen.send_modify(|seen| seen.waits = false);
    }
    if gives_up {
        producer.flush().await;
        return Err(broken(&"on purpose"));
    }
    producer.commit().await?;
    Ok(count)
}

#[tokio::test]
async fn records_are_copied_once_whoever_is_killed_or_fenced() -> anyhow::Result<()> {
    let site = Site::new()?;
    let mut node = site.start().await?;
    let client = client(&node).await?;
    for name in [FROM, TO] {
        client
            .admin()
            .create_topic(&NewTopic::new(name, PARTITIONS))
            .await?;
    }
    for first in (0..COUNT).step_by(usize::try_from(TOGETHER)?) {
        write_numbers(&client, FROM, PARTITIONS, first..first + TOGETHER).await?;
    }

    // The next one takes over: what the first had open is aborted.
    let first = Copier::start(&node, 150)?;
    first.until("the first to copy", |seen| seen.waits).await?;
    drop(first);
    let second = Copier::start(&node, 150)?;
    second.until("the second to copy", |seen| seen.waits).await?;
    let third = Copier::start(&node, 150)?;
    third.until("the third to begin", |seen| seen.has_begun).await?;
    second.allowed.send_replace(u64::MAX);
    second
        .until("the second to be fenced", |seen| seen.ended.is_some())
        .await?;
    let why = second.seen.borrow().ended.clone();
    ensure!(
        why.as_deref().is_some_and(|why| why.contains("was fenced")),
        "{why:?}"
    );
    drop(second);
    third.until("the third to copy", |seen| seen.waits).await?;
    node.kill().await?;
    node = site.start().await?;
    third.allowed.send_replace(u64::MAX);
    until(PATIENCE, "everything to be copied", || async {
        let committed = crate::groups::committed_of(&client, GROUP).await?;
        Ok((committed.values().sum::<i64>() == i64::from(PARTITIONS) * COUNT).then_some(()))
    })
    .await?;
    drop(third);

    expect_copies(&client, TO, PARTITIONS, COUNT).await?;
    client.close().await;
    node.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn the_admin_tells_of_transactions_and_ends_them() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    for address in [node.bootstrap(), format!("quic://{}", node.addresses.quic)] {
        let config = Config::new(&address)?.with_trust(Trust::SkipVerification);
        let client = Client::connect(config).await?;
        let admin = client.admin();
        let id = format!("of {address}");
        let topic = format!("topic-{}", address.starts_with("quic"));
        admin.create_topic(&NewTopic::new(&topic, 2)).await?;
        let producer = client.producer(ProducerConfig {
            transactional_id: Some(id.clone()),
            ..ProducerConfig::default()
        })?;
        producer.begin().await?;
        let record = Record::value("x").partition(PartitionIndex(1));
        producer.send(&topic, record).await?;
        producer.flush().await;
        let described = admin.describe_transaction(&id).await?;
        ensure!(
            described.state == "Ongoing" && described.partitions.len() == 1,
            "{described:?}"
        );
        let filter = headwater_sdk::TransactionFilter {
            states: vec!["Ongoing".to_owned()],
            producer_ids: vec![described.producer.id],
            ..Default::default()
        };
        let listed = admin.list_transactions(&filter).await?;
        ensure!(
            listed.len() == 1 && listed[0].transactional_id == id,
            "{listed:?}"
        );
        let places: Vec<_> = described.partitions.iter().cloned().collect();
        let open = admin.open_transactions(&places).await?;
        ensure!(
            open.len() == 1 && open[0].producer.id == described.producer.id,
            "{open:?}"
        );
        let hanging = admin.find_hanging_transactions(&places, Duration::ZERO).await?;
        ensure!(hanging.is_empty(), "its coordinator knows it: {hanging:?}");
        // Whoever produced under the name is out, and what he had open is aborted.
        admin.fence_producers(&[&id]).await?;
        let fenced = producer.commit().await;
        ensure!(
            fenced.as_ref().is_err_and(TransactionError::is_fenced),
            "{fenced:?}"
        );
        until(PATIENCE, "the transaction to be ended", || async {
            Ok(admin.open_transactions(&places).await?.is_empty().then_some(()))
        })
        .await?;
        let unknown = admin.describe_transaction("nobody").await;
        ensure!(unknown.is_err(), "{unknown:?}");
        client.close().await;
    }
    Ok(())
}
