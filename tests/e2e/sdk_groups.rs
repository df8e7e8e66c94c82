//! The SDK's group consumers against real nodes: members come, go, die and dawdle, beside each other and beside other
//! people's; nothing is missed, and what was committed stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use headwater_sdk::{
    Assignor, Client, Config, GroupConfig, GroupConsumer, NewTopic, Offset, PartitionIndex, ProducerConfig,
    Record, TopicPartition, Trust,
};
use headwater_tests::{
    Node, PATIENCE, Random, Running, Site, headwater, headwater_running, python, until, within, write_numbers,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const TOPIC: &str = "shared";
const GROUP: &str = "readers";
const PARTITIONS: i32 = 6;

async fn connect(addresses: &str) -> anyhow::Result<Client> {
    let config = Config::new(addresses)?.with_trust(Trust::SkipVerification);
    Ok(Client::connect(config).await?)
}

fn config() -> GroupConfig {
    GroupConfig {
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(200),
        rebalance_timeout: Duration::from_secs(20),
        auto_commit: Some(Duration::from_millis(100)),
        ..GroupConfig::new(GROUP, [TOPIC])
    }
}

/// By partition: how often each offset was handed out.
type Read = BTreeMap<i32, BTreeMap<i64, usize>>;

/// A member that reads in a task of its own.
struct Member {
    owns: watch::Receiver<BTreeSet<i32>>,
    close: oneshot::Sender<()>,
    reading: JoinHandle<anyhow::Result<()>>,
}

impl Member {
    async fn start(addresses: &str, config: GroupConfig, read: &Arc<Mutex<Read>>) -> anyhow::Result<Self> {
        let client = connect(addresses).await?;
        let mut consumer = client.group_consumer(config)?;
        let (told, owns) = watch::channel(BTreeSet::new());
        let (close, mut stop) = oneshot::channel();
        let read = Arc::clone(read);
        let reading = tokio::spawn(async move {
            loop {
                let owned = consumer.assignment().map(|it| it.partition.0).collect();
                told.send_if_modified(|owns| std::mem::replace(owns, owned) != *owns);
                tokio::select! {
                    _ = &mut stop => break,
                    // Partitions come and go though no record comes.
                    next = tokio::time::timeout(Duration::from_millis(50), consumer.next()) => {
                        let Ok(record) = next else { continue };
                        let record = record?;
                        let mut read = read.lock().expect("no test panics while it notes a record");
                        let of_partition = read.entry(record.partition.0).or_default();
                        *of_partition.entry(record.offset.0).or_default() += 1;
                    }
                }
            }
            consumer.close().await?;
            client.close().await;
            Ok(())
        });
        Ok(Self { owns, close, reading })
    }

    async fn until_owns(&self, what: &str, is_so: impl Fn(&BTreeSet<i32>) -> bool) -> anyhow::Result<()> {
        let mut owns = self.owns.clone();
        let heard = within(PATIENCE, what, owns.wait_for(|owns| is_so(owns))).await;
        heard.with_context(|| format!("it has {:?}", self.owns.borrow()))??;
        Ok(())
    }

    /// Leaves the group in good order.
    async fn close(self) -> anyhow::Result<()> {
        // It may have ended with an error, which is told below.
        let _ = self.close.send(());
        within(PATIENCE, "a member to leave", self.reading).await??
    }

    /// Is dropped wherever it is, and commits nothing.
    fn abandon(self) {
        self.reading.abort();
    }
}

/// Writes the numbers of a range to each partition.
async fn produce(client: &Client, numbers: std::ops::Range<i64>) -> anyhow::Result<()> {
    write_numbers(client, TOPIC, PARTITIONS, numbers).await
}

/// Waits until every record up to `each` was handed out.
async fn until_read(read: &Arc<Mutex<Read>>, each: i64) -> anyhow::Result<()> {
    until(PATIENCE, "every record to be read", || async {
        let read = read.lock().expect("no test panics while it notes a record");
        for partition in 0..PARTITIONS {
            let offsets = read.get(&partition);
            let missing = (0..each).find(|it| offsets.is_none_or(|offsets| !offsets.contains_key(it)));
            ensure!(missing.is_none(), "{missing:?} of partition {partition}");
        }
        Ok(Some(()))
    })
    .await
}

async fn until_committed(client: &Client, each: i64) -> anyhow::Result<()> {
    until(PATIENCE, "everything that was read to be committed", || async {
        let committed = client.admin().group_offsets(GROUP).await?;
        let offsets: Vec<i64> = committed.values().map(|it| it.offset.0).collect();
        ensure!(offsets == vec![each; usize::try_from(PARTITIONS)?], "{offsets:?}");
        Ok(Some(()))
    })
    .await
}

/// How many records were handed out more than once.
fn repeated(read: &Arc<Mutex<Read>>) -> usize {
    let read = read.lock().expect("no test panics while it notes a record");
    let counts = read.values().flat_map(BTreeMap::values);
    counts.filter(|count| **count > 1).count()
}

fn all() -> BTreeSet<i32> {
    (0..PARTITIONS).collect()
}

async fn node_with_topic(site: &Site) -> anyhow::Result<Node> {
    let node = site.start().await?;
    node.create_topic(TOPIC, u32::try_from(PARTITIONS)?, &[]).await?;
    Ok(node)
}

/// Members that go in good order hand over what they have without a gap and without a repetition.
async fn members_hand_over(assignor: Assignor, transport: &str) -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = node_with_topic(&site).await?;
    let address = match transport {
        "quic" => format!("quic://{}", node.addresses.quic),
        _ => node.bootstrap(),
    };
    let client = connect(&address).await?;
    let read = Arc::default();
    let config = || GroupConfig {
        assignors: vec![assignor],
        ..config()
    };
    produce(&client, 0..100).await?;
    let first = Member::start(&address, config(), &read).await?;
    first
        .until_owns("the first to own all", |owns| *owns == all())
        .await?;
    let second = Member::start(&address, config(), &read).await?;
    second
        .until_owns("the second to own half", |owns| owns.len() == 3)
        .await?;
    first
        .until_owns("the first to own half", |owns| owns.len() == 3)
        .await?;
    let (one, other) = (first.owns.borrow().clone(), second.owns.borrow().clone());
    ensure!(one.is_disjoint(&other), "{one:?} {other:?}");
    produce(&client, 100..200).await?;
    until_read(&read, 200).await?;
    until_committed(&client, 200).await?;
    first.close().await?;
    second
        .until_owns("the second to own all", |owns| *owns == all())
        .await?;
    produce(&client, 200..300).await?;
    until_read(&read, 300).await?;
    second.close().await?;
    let left = client.admin().describe_group(GROUP).await?;
    ensure!(left.state == "Empty" && left.members.is_empty(), "{left:?}");
    until_committed(&client, 300).await?;
    ensure!(repeated(&read) == 0, "{} came again", repeated(&read));
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn cooperative_members_hand_over_over_quic() -> anyhow::Result<()> {
    members_hand_over(Assignor::CooperativeSticky, "quic").await
}

#[tokio::test]
async fn members_by_range_hand_over_over_tcp() -> anyhow::Result<()> {
    members_hand_over(Assignor::Range, "tcp").await
}

/// Says what a member of another client owns.
async fn hear(running: &mut Running) -> anyhow::Result<Option<BTreeSet<i32>>> {
    let line = running.line().await?.context("it has ended")?;
    let owns = line.strip_prefix("owns ").map(|owns| {
        owns.split(',')
            .filter_map(|partition| partition.parse().ok())
            .collect()
    });
    Ok(owns)
}

#[tokio::test]
async fn members_of_other_clients_share_with_ours() -> anyhow::Result<()> {
    for (library, strategy, assignor) in [
        ("confluent-kafka", "range", Assignor::Range),
        (
            "confluent-kafka",
            "cooperative-sticky",
            Assignor::CooperativeSticky,
        ),
        ("confluent-kafka", "roundrobin", Assignor::RoundRobin),
        ("kafka-python", "range", Assignor::Range),
    ] {
        let site = Site::new()?;
        let node = node_with_topic(&site).await?;
        let bootstrap = node.bootstrap();
        let client = connect(&bootstrap).await?;
        let read = Arc::default();
        let config = GroupConfig {
            assignors: vec![assignor],
            ..config()
        };
        produce(&client, 0..10).await?;
        // Ours leads the group once, and follows once.
        let ours = Member::start(&bootstrap, config.clone(), &read).await?;
        ours.until_owns("ours to own all", |owns| *owns == all()).await?;
        let arguments = [library, bootstrap.as_str(), TOPIC, GROUP, strategy];
        let mut theirs = python("e2e/scripts/groups.py", arguments)?;
        ours.until_owns("ours to own half", |owns| owns.len() == 3)
            .await?;
        let half = within(PATIENCE, "theirs to own half", async {
            loop {
                if let Some(owns) = hear(&mut theirs).await?.filter(|owns| owns.len() == 3) {
                    return anyhow::Ok(owns);
                }
            }
        });
        let half = half
            .await
            .and_then(|half| half)
            .with_context(|| format!("{library} {strategy}"))?;
        ensure!(half.is_disjoint(&ours.owns.borrow()), "{half:?}");
        ours.close().await?;
        let everything = within(PATIENCE, "theirs to own all", async {
            while hear(&mut theirs).await? != Some(all()) {}
            anyhow::Ok(())
        });
        everything
            .await
            .and_then(|done| done)
            .with_context(|| format!("{library} {strategy}"))?;
        let ours = Member::start(&bootstrap, config, &read).await?;
        ours.until_owns("ours to own half again", |owns| owns.len() == 3)
            .await?;
        ours.close().await?;
        drop(theirs);
        client.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_group_lives_through_the_death_of_its_node_and_of_members() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = node_with_topic(&site).await?;
    let bootstrap = node.bootstrap();
    let client = connect(&bootstrap).await?;
    let read = Arc::default();
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(Member::start(&bootstrap, config(), &read).await?);
    }
    for member in &members {
        member
            .until_owns("each to own a third", |owns| owns.len() == 2)
            .await?;
    }
    produce(&client, 0..100).await?;
    until_committed(&client, 100).await?;
    node.kill().await?;
    let node = site.start().await?;
    produce(&client, 100..200).await?;
    until_read(&read, 200).await?;
    until_committed(&client, 200).await?;
    ensure!(repeated(&read) == 0, "what was committed does not come again");
    members.pop().context("the third")?.abandon();
    for member in &members {
        member
            .until_owns("each to own half", |owns| owns.len() == 3)
            .await?;
    }
    produce(&client, 200..300).await?;
    until_read(&read, 300).await?;
    until_committed(&client, 300).await?;
    for member in members {
        member.close().await?;
    }
    client.close().await;
    node.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn a_static_member_that_comes_back_takes_up_what_it_had() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = node_with_topic(&site).await?;
    let address = format!("quic://{}", node.addresses.quic);
    let client = connect(&address).await?;
    let read = Arc::default();
    let named = |name: &str| GroupConfig {
        instance_id: Some(name.to_owned()),
        session_timeout: Duration::from_secs(60),
        ..config()
    };
    let first = Member::start(&address, named("one"), &read).await?;
    let second = Member::start(&address, named("two"), &read).await?;
    for member in [&first, &second] {
        member
            .until_owns("each to own half", |owns| owns.len() == 3)
            .await?;
    }
    let (before, mut others) = (first.owns.borrow().clone(), second.owns.clone());
    others.mark_unchanged();
    first.close().await?;
    let again = Member::start(&address, named("one"), &read).await?;
    again
        .until_owns("it to have what it had", |owns| *owns == before)
        .await?;
    ensure!(!others.has_changed()?, "nothing has moved: {:?}", others.borrow());
    produce(&client, 0..10).await?;
    until_read(&read, 10).await?;
    // Another process under the same name takes its place, and it is told so.
    let usurper = Member::start(&address, named("one"), &read).await?;
    usurper
        .until_owns("it to have what it had", |owns| *owns == before)
        .await?;
    let fenced = within(PATIENCE, "the former one to be told", again.reading).await?;
    let fenced = fenced?;
    let told = format!("{:#}", fenced.expect_err("it is fenced"));
    ensure!(told.contains("FENCED_INSTANCE_ID"), "{told}");
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn one_that_dawdles_is_out_and_comes_back_and_commits_nothing_of_others() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = node_with_topic(&site).await?;
    let bootstrap = node.bootstrap();
    let client = connect(&bootstrap).await?;
    produce(&client, 0..100).await?;
    for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
        let group = format!("{GROUP}-{assignor:?}");
        let read = Arc::default();
        let config = GroupConfig {
            group: group.clone(),
            rebalance_timeout: Duration::from_secs(1),
            assignors: vec![assignor],
            ..config()
        };
        let mut dawdler = client.group_consumer(config.clone())?;
        within(PATIENCE, "the first record", dawdler.next()).await??;
        // It does not call again, for longer than it said.
        let other = Member::start(&bootstrap, config, &read).await?;
        other
            .until_owns("the other to own all", |owns| *owns == all())
            .await?;
        until_read(&read, 100).await?;
        within(PATIENCE, "what the other commits", async {
            loop {
                let committed = client.admin().group_offsets(&group).await?;
                if committed.len() == 6 && committed.values().all(|it| it.offset.0 == 100) {
                    return anyhow::Ok(());
                }
                tokio::task::yield_now().await;
            }
        })
        .await??;
        // Nothing of what it had is its own any more.
        let late = TopicPartition {
            topic: TOPIC.into(),
            partition: PartitionIndex(0),
        };
        let late = BTreeMap::from([(late, Offset(1))]);
        let _ = within(PATIENCE, "a late commit", dawdler.commit_offsets(&late)).await?;
        let committed = client.admin().group_offsets(&group).await?;
        ensure!(
            committed.values().all(|it| it.offset.0 == 100),
            "{assignor:?}: a late commit counts: {committed:?}"
        );
        let back = until_shared(&mut dawdler, &other).await;
        back.with_context(|| format!("{assignor:?}"))?;
        dawdler.close().await?;
        other.close().await?;
        ensure!(repeated(&read) == 0, "{assignor:?}: it began where the other was");
    }
    client.close().await;
    Ok(())
}

/// Reads on until both have half.
async fn until_shared(dawdler: &mut GroupConsumer, other: &Member) -> anyhow::Result<()> {
    within(PATIENCE, "both to own half", async {
        while dawdler.assignment().count() != 3 || other.owns.borrow().len() != 3 {
            match tokio::time::timeout(Duration::from_millis(50), dawdler.next()).await {
                Ok(record) => anyhow::bail!("{:?} came again", record?.offset),
                Err(_) => continue,
            }
        }
        Ok(())
    })
    .await?
}

#[tokio::test]
async fn whoever_comes_and_goes_every_record_is_read_and_nothing_is_committed_unread() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = node_with_topic(&site).await?;
    let addresses = [node.bootstrap(), format!("quic://{}", node.addresses.quic)];
    let client = connect(&addresses[0]).await?;
    let read: Arc<Mutex<Read>> = Arc::default();
    let mut random = Random::new();
    let mut members: Vec<Member> = Vec::new();
    let mut written = 0;
    for step in 0..40 {
        match random.below(0..4) {
            0 | 1 if members.len() < 5 => {
                let address = &addresses[step % 2];
                members.push(Member::start(address, config(), &read).await?);
            }
            2 if members.len() > 1 => {
                let leaving = usize::try_from(random.below(0..members.len() as u64))?;
                members.swap_remove(leaving).close().await?;
            }
            3 if members.len() > 1 && step % 3 == 0 => members.swap_remove(0).abandon(),
            _ => {}
        }
        produce(&client, written..written + 20).await?;
        written += 20;
        let committed = client.admin().group_offsets(GROUP).await?;
        let read = read.lock().expect("no test panics while it notes a record");
        for (it, committed) in committed {
            let unread = |offset: &i64| {
                read.get(&it.partition.0)
                    .is_none_or(|offsets| !offsets.contains_key(offset))
            };
            let skipped = (0..committed.offset.0).find(unread);
            ensure!(
                skipped.is_none(),
                "step {step}: {skipped:?} of {it} was committed unread"
            );
        }
    }
    until_read(&read, written).await?;
    until_committed(&client, written).await?;
    for member in members {
        member.close().await?;
    }
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn partitions_that_are_added_are_read_too() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let bootstrap = node.bootstrap();
    let mut settings = Config::new(&bootstrap)?;
    settings.metadata_max_age = Duration::from_millis(200);
    let client = Client::connect(settings).await?;
    // The topic comes after its reader.
    let mut consumer = client.group_consumer(config())?;
    let none = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await;
    ensure!(none.is_err(), "there is nothing to read: {none:?}");
    client.admin().create_topic(&NewTopic::new(TOPIC, 1)).await?;
    let producer = client.producer(ProducerConfig::default())?;
    for count in 1..=3 {
        if count > 1 {
            client.admin().create_partitions(TOPIC, count).await?;
        }
        let record = Record::value("x").partition(PartitionIndex(count - 1));
        let sent = async {
            loop {
                client.refresh().await?;
                let known = client.topic(TOPIC).await?.partitions.len();
                if known == usize::try_from(count)? {
                    return anyhow::Ok(producer.send(TOPIC, record.clone()).await?);
                }
            }
        };
        let delivery = within(PATIENCE, "the partition to be known", sent).await??;
        within(PATIENCE, "the record to be acknowledged", delivery.receipt()).await??;
        let record = within(PATIENCE, "a record of the new partition", consumer.next()).await??;
        ensure!(record.partition == PartitionIndex(count - 1), "{record:?}");
    }
    consumer.close().await?;
    producer.close().await;
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn the_command_reads_a_share_and_goes_on_where_it_was() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = node_with_topic(&site).await?;
    let bootstrap = node.bootstrap();
    let client = connect(&bootstrap).await?;
    produce(&client, 0..10).await?;
    let consume = |count: &'static str| {
        let arguments = ["consume", TOPIC, "--group", GROUP, "--count", count];
        let connection = ["--bootstrap", bootstrap.as_str(), "--output", "json"];
        headwater(arguments.into_iter().chain(connection))
    };
    let place = |line: &str| -> anyhow::Result<(i64, i64)> {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let place = record["partition"].as_i64().zip(record["offset"].as_i64());
        place.context("every record has a place")
    };
    let mut printed = BTreeSet::new();
    for count in ["7", "20"] {
        let lines = String::from_utf8(consume(count).await?.success()?)?;
        ensure!(lines.lines().count() == count.parse::<usize>()?, "{lines}");
        for line in lines.lines() {
            ensure!(printed.insert(place(line)?), "{line} came again");
        }
    }
    // It follows until it is told to stop, and has committed then what it has printed.
    let arguments = [
        "consume",
        TOPIC,
        "--group",
        GROUP,
        "--output",
        "json",
        "--bootstrap",
    ];
    let mut running = headwater_running(arguments.into_iter().chain([bootstrap.as_str()]))?;
    while printed.len() < 60 {
        let line = running.line().await?.context("it goes on")?;
        ensure!(printed.insert(place(&line)?), "{line} came again");
    }
    let status = running.terminate().await?;
    ensure!(status.success(), "{status}");
    until_committed(&client, 10).await?;
    let left = client.admin().describe_group(GROUP).await?;
    ensure!(left.state == "Empty", "{left:?}");
    let mistyped = headwater(["consume", "shard", "--group", GROUP, "--bootstrap", &bootstrap]).await?;
    ensure!(!mistyped.status.success(), "{mistyped:?}");
    client.close().await;
    Ok(())
}
