//! Consumer groups of other people's clients: members share a topic, one is killed and the others take over, and what was
//! committed survives the nodes, or is set anew by an operator.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use headwater_sdk::protocol::kafka::find_coordinator::FindCoordinatorRequest;
use headwater_sdk::protocol::kafka::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use headwater_sdk::protocol::primitives::Str;
use headwater_sdk::{Client, Config, NodeId};
use headwater_tests::{
    Node, PATIENCE, Running, Site, headwater, join, operate, python, until, within, write_numbers,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const TOPIC: &str = "shared";
const GROUP: &str = "readers";
const PARTITIONS: i32 = 4;

/// What a member has told so far.
#[derive(Debug, Clone, Default)]
struct Told {
    owns: BTreeSet<i32>,
    /// By partition: the offsets it has read.
    read: BTreeMap<i32, BTreeSet<i64>>,
}

/// A member of the group, whose lines are read as they come. Dropped, it dies without a word to the group.
struct Member {
    told: watch::Receiver<Told>,
    reading: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Member {
    fn start(library: &str, bootstrap: &str, strategy: &str) -> anyhow::Result<Self> {
        let arguments = [library, bootstrap, TOPIC, GROUP, strategy];
        let mut running = python("e2e/scripts/groups.py", arguments)?;
        let (sender, told) = watch::channel(Told::default());
        let reading = tokio::spawn(async move { while hear(&mut running, &sender).await.is_some() {} });
        Ok(Self { told, reading })
    }

    /// Waits until it has told this.
    async fn until(&self, what: &str, is_so: impl FnMut(&Told) -> bool) -> anyhow::Result<Told> {
        let mut told = self.told.clone();
        let heard = within(PATIENCE, what, told.wait_for(is_so)).await;
        let so_far = || format!("{what}; it has told {:?}", self.told.borrow().owns);
        Ok(heard.with_context(so_far)?.with_context(so_far)?.clone())
    }
}

async fn hear(running: &mut Running, told: &watch::Sender<Told>) -> Option<()> {
    let line = running.line().await.ok()??;
    let mut words = line.split(' ');
    match (words.next()?, words.next(), words.next()) {
        ("owns", partitions, None) => {
            let partitions = partitions.unwrap_or_default().split(',');
            let owns = partitions
                .filter_map(|partition| partition.parse().ok())
                .collect();
            told.send_modify(|told| told.owns = owns);
        }
        ("read", Some(partition), Some(offset)) => {
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            told.send_modify(|told| {
                told.read.entry(partition).or_default().insert(offset);
            });
        }
        _ => {}
    }
    Some(())
}

/// Writes `count` records to each partition.
async fn produce(client: &Client, count: i64) -> anyhow::Result<()> {
    write_numbers(client, TOPIC, PARTITIONS, 0..count).await
}

async fn committed(client: &Client) -> anyhow::Result<BTreeMap<i32, i64>> {
    committed_of(client, GROUP).await
}

/// What a group has committed, by partition; asked of whoever coordinates it.
pub(crate) async fn committed_of(client: &Client, group: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from(group),
            member_epoch: -1,
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    until(PATIENCE, "the coordinator to tell what was committed", || async {
        let node = coordinator_of(client, group).await?;
        let mut answer = client.admin().call_node(node, &request).await?;
        let mut group = answer.groups.pop().context("one group")?;
        ensure!(group.error_code == 0, "{group:?}");
        let partitions = group
            .topics
            .pop()
            .map(|topic| topic.partitions)
            .unwrap_or_default();
        let offsets = partitions
            .iter()
            .map(|it| (it.partition_index, it.committed_offset));
        Ok(Some(offsets.collect()))
    })
    .await
}

async fn coordinator(client: &Client) -> anyhow::Result<NodeId> {
    coordinator_of(client, GROUP).await
}

async fn coordinator_of(client: &Client, group: &str) -> anyhow::Result<NodeId> {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![Str::from(group)],
        ..FindCoordinatorRequest::default()
    };
    // The one who told it first may be gone.
    client.refresh().await?;
    let answer = client.admin().call(&request).await?;
    let found = answer.coordinators.first().context("one coordinator")?;
    ensure!(found.error_code == 0, "{found:?}");
    Ok(NodeId(found.node_id))
}

async fn until_committed(client: &Client, each: i64) -> anyhow::Result<()> {
    let wanted: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, each)).collect();
    until(PATIENCE, "everything that was read to be committed", || async {
        let found = committed(client).await?;
        ensure!(found == wanted, "{found:?}");
        Ok(Some(()))
    })
    .await
}

fn all() -> BTreeSet<i32> {
    (0..PARTITIONS).collect()
}

async fn two_share_one_is_killed_the_other_takes_over(library: &str, strategy: &str) -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let partitions = u32::try_from(PARTITIONS)?;
    node.create_topic(TOPIC, partitions, &[]).await?;
    let client = Client::connect(Config::new(&node.bootstrap())?).await?;
    produce(&client, 50).await?;

    let first = Member::start(library, &node.bootstrap(), strategy)?;
    first
        .until("the first member to own all", |told| told.owns == all())
        .await?;
    let second = Member::start(library, &node.bootstrap(), strategy)?;
    let halves = second
        .until("the second member to own half", |told| told.owns.len() == 2)
        .await?;
    let rest: BTreeSet<i32> = all().difference(&halves.owns).copied().collect();
    first
        .until("the first member to own the rest", |told| told.owns == rest)
        .await?;
    until_committed(&client, 50).await?;

    // It says nothing to the group: its session has to end.
    let of_first = first.told.borrow().clone();
    drop(first);
    second
        .until("the second member to own all", |told| told.owns == all())
        .await?;
    produce(&client, 50).await?;
    until_committed(&client, 100).await?;

    // The node dies, and what was committed does not.
    node.kill().await?;
    let node = site.start().await?;
    until_committed(&client, 100).await?;
    produce(&client, 50).await?;
    until_committed(&client, 150).await?;
    let has_read_all =
        |told: &Told| (0..PARTITIONS).all(|it| told.read.get(&it).is_some_and(|it| it.contains(&149)));
    let of_second = second
        .until("the second member to tell of all", has_read_all)
        .await?;
    for partition in 0..PARTITIONS {
        let read = |told: &Told| told.read.get(&partition).cloned().unwrap_or_default();
        let together: BTreeSet<i64> = read(&of_first).union(&read(&of_second)).copied().collect();
        ensure!(
            together == (0..150).collect(),
            "partition {partition}: {together:?}"
        );
        let after: Vec<i64> = read(&of_second)
            .into_iter()
            .filter(|offset| *offset >= 100)
            .collect();
        ensure!(
            after == (100..150).collect::<Vec<_>>(),
            "partition {partition}: {after:?}"
        );
    }
    drop(second);
    client.close().await;
    node.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn librdkafka_members_share_and_take_over() -> anyhow::Result<()> {
    two_share_one_is_killed_the_other_takes_over("confluent-kafka", "range").await
}

#[tokio::test]
async fn librdkafka_members_share_cooperatively() -> anyhow::Result<()> {
    two_share_one_is_killed_the_other_takes_over("confluent-kafka", "cooperative-sticky").await
}

#[tokio::test]
async fn kafka_python_members_share_and_take_over() -> anyhow::Result<()> {
    two_share_one_is_killed_the_other_takes_over("kafka-python", "range").await
}

#[tokio::test]
async fn aiokafka_members_share_and_take_over() -> anyhow::Result<()> {
    two_share_one_is_killed_the_other_takes_over("aiokafka", "range").await
}

/// Three voters.
pub(crate) async fn three() -> anyhow::Result<(Vec<Site>, Vec<Node>)> {
    let first_site = Site::new()?.argument("--node-id").argument("1");
    let first = first_site.start().await?;
    let client = Client::connect(Config::new(&first.bootstrap())?).await?;
    let cluster = client.admin().describe_cluster().await?.cluster_id;
    client.close().await;
    let (mut sites, mut nodes) = (vec![first_site], vec![first]);
    for id in [2, 3] {
        let (site, node) = join(id, (1, &nodes[0]), &cluster).await?;
        sites.push(site);
        nodes.push(node);
        let (id, bootstrap) = (id.to_string(), nodes[0].bootstrap());
        let arguments = ["cluster", "add-voter", &id, "--bootstrap", &bootstrap];
        headwater(arguments).await?.success()?;
    }
    Ok((sites, nodes))
}

#[tokio::test]
async fn a_group_goes_on_when_its_coordinator_is_killed() -> anyhow::Result<()> {
    let (sites, nodes) = three().await?;
    let bootstrap: Vec<String> = nodes.iter().map(Node::bootstrap).collect();
    let bootstrap = bootstrap.join(",");
    let client = Client::connect(Config::new(&bootstrap)?).await?;
    let topic = headwater_sdk::NewTopic {
        replication_factor: Some(3),
        ..headwater_sdk::NewTopic::new(TOPIC, PARTITIONS)
    };
    client.admin().create_topic(&topic).await?;
    produce(&client, 50).await?;
    let members = [
        Member::start("confluent-kafka", &bootstrap, "range")?,
        Member::start("kafka-python", &bootstrap, "range")?,
    ];
    for member in &members {
        member
            .until("each member to own half", |told| told.owns.len() == 2)
            .await?;
    }
    until_committed(&client, 50).await?;

    // Each node is killed once, whoever coordinates first.
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut written = 50;
    for _ in 0..2 {
        let at = usize::try_from(coordinator(&client).await?.0 - 1)?;
        nodes[at].take().context("it runs")?.kill().await?;
        let found = committed(&client).await?;
        ensure!(
            found.values().all(|offset| *offset == written),
            "{found:?} after {written}"
        );
        produce(&client, 50).await?;
        written += 50;
        until_committed(&client, written).await?;
        nodes[at] = Some(sites[at].start().await?);
    }
    let everything: BTreeMap<i32, BTreeSet<i64>> = (0..PARTITIONS)
        .map(|partition| (partition, (0..written).collect()))
        .collect();
    until(PATIENCE, "the members to tell of every record", || async {
        let mut read: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for member in &members {
            for (partition, offsets) in &member.told.borrow().read {
                read.entry(*partition).or_default().extend(offsets);
            }
        }
        Ok((read == everything).then_some(()))
    })
    .await?;
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn an_operator_sees_how_far_a_group_is_sets_it_back_and_deletes_it() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic(TOPIC, u32::try_from(PARTITIONS)?, &[]).await?;
    let client = Client::connect(Config::new(&node.bootstrap())?).await?;
    produce(&client, 50).await?;
    ensure!(operate(&node, &["group", "list"]).await? == json!([]));
    let member = Member::start("kafka-python", &node.bootstrap(), "range")?;
    member
        .until("the member to own all", |told| told.owns == all())
        .await?;
    until_committed(&client, 50).await?;
    let listed = operate(&node, &["group", "list"]).await?;
    let expected =
        json!([{ "group": GROUP, "state": "Stable", "protocol_type": "consumer", "kind": "classic" }]);
    ensure!(listed == expected, "{listed}");
    let described = operate(&node, &["group", "describe", GROUP]).await?;
    ensure!(
        (
            &described["state"],
            &described["assignor"],
            &described["coordinator"]
        ) == (&json!("Stable"), &json!("range"), &json!(1)),
        "{described}"
    );
    let partitions = described["partitions"].as_array().context("partitions")?;
    let is_read = |it: &Value| {
        it["committed_offset"] == 50
            && it["lag"] == 0
            && it["member_id"] == described["members"][0]["member_id"]
    };
    ensure!(
        partitions.len() == 4 && partitions.iter().all(is_read),
        "{described}"
    );
    let bootstrap = node.bootstrap();
    let reset = [
        "group",
        "reset",
        GROUP,
        "--to-earliest",
        "--bootstrap",
        &bootstrap,
    ];
    let refused = headwater(reset).await?;
    ensure!(
        !refused.status.success(),
        "its member would not notice: {refused:?}"
    );

    drop(member);
    until(PATIENCE, "the member's session to end", || async {
        let listed = operate(&node, &["group", "list"]).await?;
        Ok((listed[0]["state"] == "Empty").then_some(()))
    })
    .await?;
    produce(&client, 10).await?;
    let described = operate(&node, &["group", "describe", GROUP]).await?;
    ensure!(
        described["members"] == json!([]) && described["partitions"][3]["lag"] == 10,
        "{described}"
    );
    let tried = operate(&node, &["group", "reset", GROUP, "--to-earliest", "--dry-run"]).await?;
    let row = json!({ "topic": TOPIC, "partition": 0, "before": 50, "after": 0 });
    ensure!(
        tried["dry_run"] == true && tried["partitions"][0] == row,
        "{tried}"
    );
    until_committed(&client, 50).await?;
    for (to, expected) in [
        (
            &["--topic", "shared:1", "--to-offset", "42"][..],
            [50, 42, 50, 50],
        ),
        (&["--by", "-5"], [45, 37, 45, 45]),
        (&["--topic", "shared:2", "--to-offset", "1000"], [45, 37, 60, 45]),
        (&["--topic", "shared", "--to-latest"], [60, 60, 60, 60]),
        (&["--to-earliest"], [0, 0, 0, 0]),
    ] {
        operate(&node, &[&["group", "reset", GROUP], to].concat()).await?;
        let found: Vec<i64> = committed(&client).await?.into_values().collect();
        ensure!(found == expected, "{to:?}: {found:?}");
    }
    operate(&node, &["group", "delete", GROUP, "--yes"]).await?;
    ensure!(operate(&node, &["group", "list"]).await? == json!([]));
    ensure!(committed(&client).await?.is_empty());
    let described = headwater(["group", "describe", GROUP, "--bootstrap", &bootstrap]).await?;
    ensure!(
        !described.status.success(),
        "there is no such group: {described:?}"
    );
    client.close().await;
    Ok(())
}
