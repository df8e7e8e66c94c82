//! The SDK against a real node: both transports, a node that is killed, a network that changes or is cut.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_sdk::{
    Client, Config, ConfigChange, ConfigResource, Consumer, ConsumerConfig, Deliveries, Isolation, NewTopic,
    Offset, OffsetSpec, PartitionIndex, ProducerConfig, Record, Start, TopicProducer, Transport, Trust,
};
use headwater_tests::{Cable, Node, PATIENCE, Site, within};

const TOPIC: &str = "numbers";

async fn connect(addresses: &str) -> anyhow::Result<Client> {
    let mut config = Config::new(addresses)?.with_trust(Trust::SkipVerification);
    // A network that is gone is noticed soon, so that the test ends soon.
    config.quic.keep_alive = Duration::from_millis(300);
    config.quic.idle_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(2);
    Ok(Client::connect(config).await?)
}

fn addresses(node: &Node) -> [String; 2] {
    [
        node.addresses.tcp.to_string(),
        format!("quic://{}", node.addresses.quic),
    ]
}

/// Sends the numbers of a range, each under itself as key.
async fn send(topic: &TopicProducer, numbers: std::ops::Range<u64>) -> anyhow::Result<Deliveries> {
    let texts: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let records: Vec<_> = texts.iter().map(|text| Record::value(text).key(text)).collect();
    Ok(topic.send_all(&records).await?)
}

/// Reads `count` records and checks that they are the numbers from 0, each once, rising in each partition.
async fn check(consumer: &mut Consumer, count: u64) -> anyhow::Result<()> {
    let mut last: BTreeMap<PartitionIndex, (Offset, u64)> = BTreeMap::new();
    let mut seen = vec![false; usize::try_from(count)?];
    for _ in 0..count {
        let record = within(PATIENCE, "the next record", consumer.next()).await??;
        let value = record.value.as_deref().context("every record has a value")?;
        let number: u64 = std::str::from_utf8(value)?.parse()?;
        let place = seen
            .get_mut(usize::try_from(number)?)
            .context("a number nobody sent")?;
        ensure!(!std::mem::replace(place, true), "{number} came twice");
        if let Some((offset, before)) = last.insert(record.partition, (record.offset, number)) {
            ensure!(
                record.offset == offset.plus(1),
                "offset {} follows {offset}",
                record.offset
            );
            ensure!(number > before, "{number} follows {before}");
        }
    }
    ensure!(
        consumer.try_next_batch()?.is_none(),
        "there is more than was sent"
    );
    Ok(())
}

#[tokio::test]
async fn records_and_settings_go_both_ways_over_both_transports() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    for (turn, address) in addresses(&node).iter().enumerate() {
        let client = connect(address).await?;
        let name = format!("{TOPIC}-{turn}");
        let admin = client.admin();
        admin
            .create_topic(&NewTopic::new(&name, 2).with("retention.ms", "3600000"))
            .await?;
        admin.create_partitions(&name, 3).await?;
        ensure!(admin.describe_topic(&name).await?.partitions.len() == 3);
        let resource = ConfigResource::Topic(name.clone());
        let change = ConfigChange::Set {
            name: "retention.bytes".into(),
            value: "123456789".into(),
        };
        admin.alter_configs(&resource, &[change]).await?;
        let configs = admin.describe_configs(&resource).await?;
        let value = |key: &str| {
            configs
                .iter()
                .find(|entry| entry.name == key)
                .and_then(|entry| entry.value.clone())
        };
        ensure!(value("retention.ms").as_deref() == Some("3600000"));
        ensure!(value("retention.bytes").as_deref() == Some("123456789"));

        let producer = client.producer(ProducerConfig::default())?;
        let topic = producer.topic(&name).await?;
        within(PATIENCE, "deliveries", send(&topic, 0..20_000).await?.all()).await??;
        producer.close().await;
        let mut consumer = client.consumer(ConsumerConfig::default())?;
        consumer.assign_all(&name, Start::Earliest).await?;
        check(&mut consumer, 20_000).await?;

        let zero = PartitionIndex(0);
        let places = [(zero, OffsetSpec::Latest)];
        let listed = admin
            .list_offsets(&name, &places, Isolation::ReadCommitted)
            .await?;
        let end = listed[&zero].offset.context("a partition has an end")?;
        ensure!(consumer.position(&name, zero) == Some(end), "{end}");
        let (_, epoch_end) = admin
            .epoch_end(&name, zero, headwater_protocol::ids::LeaderEpoch(0))
            .await?;
        ensure!(epoch_end == end, "{epoch_end} is not {end}");
        let begin = admin.delete_records(&name, &[(zero, Offset(5))]).await?;
        ensure!(begin[&zero] == Offset(5), "{begin:?}");
        consumer.seek(&name, zero, Start::Offset(Offset(0))).await?;
        let first = within(PATIENCE, "the first record left", consumer.next()).await??;
        ensure!(
            first.offset == Offset(5),
            "the policy leads to what is left, not to {}",
            first.offset
        );
        consumer.close().await;
        admin.delete_topic(&name).await?;
        client.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_node_loses_and_repeats_nothing() -> anyhow::Result<()> {
    const ROUNDS: u64 = 5;
    const EACH: u64 = 4000;
    let site = Site::new()?;
    let mut node = site.start().await?;
    for turn in 0..2 {
        let client = connect(&addresses(&node)[turn]).await?;
        let name = format!("{TOPIC}-{turn}");
        client.admin().create_topic(&NewTopic::new(&name, 3)).await?;
        let producer = client.producer(ProducerConfig {
            batch_bytes: 4096,
            ..ProducerConfig::default()
        })?;
        let topic = producer.topic(&name).await?;
        let mut consumer = client.consumer(ConsumerConfig::default())?;
        consumer.assign_all(&name, Start::Earliest).await?;
        let mut deliveries = Vec::new();
        for round in 0..ROUNDS {
            deliveries.push(send(&topic, round * EACH..(round + 1) * EACH).await?);
            // Some of them are acknowledged by now, some are under way.
            node.kill().await?;
            node = site.start().await?;
        }
        for delivered in deliveries {
            within(PATIENCE, "deliveries", delivered.all()).await??;
        }
        check(&mut consumer, ROUNDS * EACH).await?;
    }
    Ok(())
}

#[tokio::test]
async fn requests_survive_a_change_of_address() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let client = connect(&addresses(&node)[1]).await?;
    client.admin().create_topic(&NewTopic::new(TOPIC, 3)).await?;
    let producer = client.producer(ProducerConfig::default())?;
    let topic = producer.topic(TOPIC).await?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(TOPIC, Start::Earliest).await?;
    for round in 0..20 {
        let delivered = send(&topic, round * 500..(round + 1) * 500).await?;
        client.rebind()?;
        within(PATIENCE, "deliveries", delivered.all()).await??;
    }
    check(&mut consumer, 20 * 500).await
}

#[tokio::test]
async fn tcp_takes_over_when_udp_is_cut_in_the_middle() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let cable = Cable::to(node.addresses.quic).await?;
    node.terminate().await?;
    // The node names the cable as its address, so that all of QUIC goes through it.
    let site = site
        .argument("--advertise-quic")
        .argument(cable.address.to_string());
    let node = site.start().await?;

    let client = connect(&format!("quic://{},{}", cable.address, node.addresses.tcp)).await?;
    ensure!(client.transport() == Transport::Quic);
    client.admin().create_topic(&NewTopic::new(TOPIC, 3)).await?;
    let producer = client.producer(ProducerConfig {
        batch_bytes: 4096,
        ..ProducerConfig::default()
    })?;
    let topic = producer.topic(TOPIC).await?;
    let mut consumer = client.consumer(ConsumerConfig::default())?;
    consumer.assign_all(TOPIC, Start::Earliest).await?;
    let before = send(&topic, 0..5000).await?;
    cable.cut();
    let after = send(&topic, 5000..10_000).await?;
    within(PATIENCE, "deliveries before the cut", before.all()).await??;
    within(PATIENCE, "deliveries after the cut", after.all()).await??;
    check(&mut consumer, 10_000).await?;
    ensure!(client.transport() == Transport::Tcp);
    Ok(())
}

#[tokio::test]
async fn a_stranger_s_certificate_is_refused() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let config = Config::new(&addresses(&node)[1])?.with_trust(Trust::Fingerprint("00".repeat(32)));
    let Err(refused) = Client::connect(config).await else {
        anyhow::bail!("any certificate will do")
    };
    ensure!(
        refused.to_string().contains(&node.addresses.quic.to_string()),
        "{refused}"
    );
    Ok(())
}
