//! A cluster seen from outside: what its nodes, the command line and the metrics tell while a node is there, is killed,
//! and comes back.

use anyhow::{Context, bail, ensure};
use headwater_sdk::{PartitionIndex, ProducerConfig, Record};
use headwater_tests::{Http, Node, PATIENCE, Site, client, headwater, module, read_all, until, within};
use serde_json::{Value, json};

const CLUSTER: &str = "seen-from-outside";

async fn get(http: Http, path: &str) -> anyhow::Result<Value> {
    http.get(&format!("/api/v1{path}")).await?.json()
}

/// The value of a metric's one series that begins so.
async fn metric(node: &Node, series: &str) -> anyhow::Result<u64> {
    let text = node.http().get("/metrics").await?.text();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(value
        .with_context(|| format!("no {series} in\n{text}"))?
        .parse()?)
}

#[tokio::test]
async fn a_node_alone_is_a_healthy_cluster_of_one() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("alone", 3, &[]).await?;
    let cluster = get(node.http(), "/cluster").await?;
    let me = &cluster["nodes"][0];
    ensure!(cluster["controller_id"] == cluster["node_id"], "{cluster}");
    ensure!(
        me["state"] == "active" && me["leads"] == 3 && me["follows"] == 0,
        "{me}"
    );
    ensure!(
        me["version"] == cluster["version"] && me["size_bytes"].is_u64(),
        "{me}"
    );
    let health = get(node.http(), "/cluster/health").await?;
    ensure!(
        health["state"] == "healthy" && health["partitions"] == 3,
        "{health}"
    );
    let quorum = get(node.http(), "/cluster/quorum").await?;
    ensure!(
        quorum["members"][0]["role"] == "voter" && quorum["members"][0]["lag"] == 0,
        "{quorum}"
    );
    let page = get(node.http(), "/cluster/partitions?limit=2").await?;
    ensure!(page["total"] == 3 && page["next"]["partition"] == 2, "{page}");
    let page = get(node.http(), "/cluster/partitions?only=leaderless").await?;
    ensure!(page["total"] == 0 && page["next"].is_null(), "{page}");
    let refused = node.http().get("/api/v1/cluster/partitions?only=sad").await?;
    ensure!(refused.status == 400, "{refused:?}");
    ensure!(metric(&node, "headwater_controller_active").await? == 1);
    ensure!(metric(&node, "headwater_partitions_leading").await? == 3);
    ensure!(metric(&node, "headwater_cluster_nodes{state=\"active\"}").await? == 1);
    ensure!(metric(&node, "headwater_cluster_partitions_leaderless").await? == 0);
    Ok(())
}

/// What a command prints.
async fn told<const N: usize>(arguments: [&str; N]) -> anyhow::Result<String> {
    Ok(String::from_utf8(headwater(arguments).await?.success()?)?)
}

/// Node 1, a voter, with two observers that hold copies of what it leads.
struct Three {
    sites: [Site; 3],
    nodes: Vec<Node>,
}

impl Three {
    async fn start() -> anyhow::Result<Self> {
        Self::with("").await
    }

    /// With these properties of each node.
    async fn with(properties: &str) -> anyhow::Result<Self> {
        let first = Site::new()?
            .config(properties)?
            .argument("--node-id")
            .argument("1")
            .argument("--cluster-id")
            .argument(CLUSTER);
        let node = first.start().await?;
        let voters = format!("1@{}", node.addresses.quic);
        let observer = |id: &str| -> anyhow::Result<Site> {
            let site = Site::new()?
                .config(properties)?
                .argument("--node-id")
                .argument(id)
                .argument("--cluster-id")
                .argument(CLUSTER);
            Ok(site.argument("--voters").argument(voters.clone()))
        };
        let (second, third) = (observer("2")?, observer("3")?);
        let nodes = vec![node, second.start().await?, third.start().await?];
        Ok(Self {
            sites: [first, second, third],
            nodes,
        })
    }
}

/// Returns once the cluster is in this state, by the account of `node`.
async fn until_state(node: &Node, state: &str) -> anyhow::Result<Value> {
    until(PATIENCE, &format!("a cluster that is {state}"), || async {
        let health = get(node.http(), "/cluster/health").await?;
        Ok((health["state"] == state).then_some(health))
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_killed_is_missed_by_every_account_and_welcomed_back() -> anyhow::Result<()> {
    let mut three = Three::start().await?;
    let first = &three.nodes[0];
    let health = until_state(first, "healthy").await?;
    ensure!(health["nodes"]["active"] == 3, "{health}");
    let http = first.http();
    let topic = serde_json::json!({
        "name": "kept", "partitions": 3, "replication_factor": 3, "configs": { "min.insync.replicas": "2" },
    });
    http.post("/api/v1/topics", &topic).await?.json()?;
    let records = serde_json::json!({ "records": [{ "partition": 0, "value": { "utf8": "a" } }] });
    http.post("/api/v1/topics/kept/records", &records).await?;

    // Followers are known where their leader is asked, and nowhere else.
    let mut led = 0;
    for (node, id) in three.nodes.iter().zip(1..) {
        let topic = get(node.http(), "/topics/kept").await?;
        for partition in topic["partitions"].as_array().context("partitions")? {
            let followers = partition["followers"].as_array();
            ensure!(
                followers.is_some() == (partition["leader"] == id),
                "{partition} by {id}"
            );
            led += followers.map_or(0, Vec::len);
        }
    }
    ensure!(led == 6, "three partitions with two followers each, not {led}");
    until(
        PATIENCE,
        "observers that hold all of the quorum's log",
        || async {
            let quorum = get(http, "/cluster/quorum").await?;
            let members = quorum["members"].as_array().context("members")?;
            let told = |id: usize| (members[id]["role"].as_str(), members[id]["lag"].as_u64());
            let expected =
                [("voter", 0), ("observer", 0), ("observer", 0)].map(|(role, lag)| (Some(role), Some(lag)));
            Ok((members.len() == 3 && [told(0), told(1), told(2)] == expected).then_some(()))
        },
    )
    .await?;

    let third = three.nodes.pop().context("there are three")?;
    third.kill().await?;
    let first = &three.nodes[0];
    let health = until_state(first, "degraded").await?;
    ensure!(health["nodes"]["fenced"] == 1, "{health}");
    ensure!(
        health["under_replicated"]["count"] == 3 && health["at_min_isr"]["count"] == 3,
        "{health}"
    );
    ensure!(
        health["under_replicated"]["first"][0]["topic"] == "kept",
        "{health}"
    );
    ensure!(metric(first, "headwater_cluster_nodes{state=\"fenced\"}").await? == 1);
    ensure!(metric(first, "headwater_cluster_partitions_under_replicated").await? == 3);
    ensure!(metric(first, "headwater_elections_total{kind=\"clean\"}").await? >= 1);
    let [one, two] = [&three.nodes[0], &three.nodes[1]];
    for name in [
        "headwater_partitions_leading",
        "headwater_partitions_under_replicated",
        "headwater_partitions_at_min_isr",
        "headwater_isr_shrinks_total",
    ] {
        // Each partition's task hears of it by itself.
        until(PATIENCE, name, || async {
            let sum = metric(one, name).await? + metric(two, name).await?;
            ensure!(sum == 3, "{sum} on both nodes");
            Ok(Some(()))
        })
        .await?;
    }
    let page = get(two.http(), "/cluster/partitions?only=under-replicated&node=3").await?;
    ensure!(page["total"] == 3, "{page}");

    let address = one.addresses.http.to_string();
    let described = told(["cluster", "describe", "--http", &address]).await?;
    for part in [
        "degraded",
        "fenced",
        "3 partitions under-replicated: kept-0",
        "observer",
    ] {
        ensure!(described.contains(part), "no {part:?} in\n{described}");
    }
    let bootstrap = one.bootstrap();
    let described = told(["topic", "describe", "kept", "--bootstrap", &bootstrap]).await?;
    ensure!(described.contains("ELIGIBLE"), "{described}");

    three.nodes.push(three.sites[2].start().await?);
    let health = until_state(&three.nodes[0], "healthy").await?;
    ensure!(
        health["nodes"]["active"] == 3 && health["under_replicated"]["count"] == 0,
        "{health}"
    );
    Ok(())
}

/// The test's patience is shorter than the time for which silence is borne: it is the end of the process that counts.
#[tokio::test]
async fn a_process_that_was_killed_is_replaced_at_once_however_long_silence_is_borne() -> anyhow::Result<()> {
    let properties = "broker.session.timeout.ms = 600000\ncontroller.quorum.election.timeout.ms = 60000\n";
    let mut three = Three::with(properties).await?;
    let bootstrap = three.nodes[0].bootstrap();
    for voter in ["2", "3"] {
        told(["cluster", "add-voter", voter, "--bootstrap", &bootstrap]).await?;
    }
    let topic = serde_json::json!({
        "name": "kept", "partitions": 3, "replication_factor": 3, "configs": { "min.insync.replicas": "2" },
    });
    three.nodes[0]
        .http()
        .post("/api/v1/topics", &topic)
        .await?
        .json()?;

    // It leads the quorum, and a partition.
    three.nodes.remove(0).kill().await?;
    let survivor = &three.nodes[0];
    until(PATIENCE, "a leader in every partition", || async {
        let topic = get(survivor.http(), "/topics/kept").await?;
        let partitions = topic["partitions"].as_array().context("partitions")?;
        let is_led = |it: &Value| it["leader"] == 2 || it["leader"] == 3;
        Ok((partitions.len() == 3 && partitions.iter().all(is_led)).then_some(()))
    })
    .await?;
    let quorum = get(survivor.http(), "/cluster/quorum").await?;
    ensure!(quorum["leader"] == 2 || quorum["leader"] == 3, "{quorum}");
    Ok(())
}

#[tokio::test]
async fn a_module_runs_on_every_node_whichever_it_was_given_to() -> anyhow::Result<()> {
    let three = Three::start().await?;
    let [first, second, third] = &three.nodes[..] else {
        bail!("three nodes were started");
    };
    until_state(first, "healthy").await?;
    // One partition on each node.
    let topic = json!({ "name": "texts", "partitions": 3, "replication_factor": 1 });
    first.http().post("/api/v1/topics", &topic).await?.json()?;
    let path = "/api/v1/modules?name=lines&version=1.0.0";
    let component = module("examples/split_lines")?;
    let uploaded = second
        .http()
        .post_bytes(path, "application/wasm", component)
        .await?;
    let digest = uploaded.json()?["digest"]
        .as_str()
        .context("a digest")?
        .to_owned();
    let spec = json!({
        "name": "split", "module": { "name": "lines", "version": "1.0.0" }, "source": "texts", "sinks": ["lines"],
    });
    until(PATIENCE, "the third node to hear of the module", || async {
        let known = third.http().get("/api/v1/modules/lines/1.0.0").await?;
        Ok((known.status == 200).then_some(()))
    })
    .await?;
    third.http().post("/api/v1/transforms", &spec).await?.json()?;
    let client = client(first).await?;
    let producer = client.producer(ProducerConfig::default())?;
    let texts = producer.topic("texts").await?;
    for partition in 0..3 {
        let text = format!("a{partition}\nb{partition}");
        let sent = texts
            .send(Record::value(&text).partition(PartitionIndex(partition)))
            .await?;
        within(PATIENCE, "a record to be acknowledged", sent.receipt()).await??;
    }
    producer.close().await;
    let lines = until(PATIENCE, "the lines of all texts", || async {
        let lines = read_all(&client, "lines").await?;
        Ok((lines.len() >= 6).then_some(lines))
    })
    .await?;
    let mut lines: Vec<_> = lines
        .iter()
        .map(|line| line.value.as_deref().unwrap_or_default())
        .collect();
    lines.sort_unstable();
    ensure!(
        lines == [&b"a0"[..], b"a1", b"a2", b"b0", b"b1", b"b2"],
        "{lines:?}"
    );
    // The node that was asked for it gives it out, too, and in the end nobody keeps it.
    let files = three
        .sites
        .each_ref()
        .map(|site| site.data().join("modules").join(format!("{digest}.wasm")));
    ensure!(files.iter().all(|file| file.exists()), "each node has a file");
    first.http().delete("/api/v1/transforms/split").await?;
    let removed = first.http().delete("/api/v1/modules/lines/1.0.0").await?;
    ensure!(removed.status < 300, "{removed:?}");
    until(PATIENCE, "the files to go", || async {
        Ok((!files.iter().any(|file| file.exists())).then_some(()))
    })
    .await
}
