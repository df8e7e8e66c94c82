//! Links between real nodes: an edge enrols, its topics are mirrored under their offsets, the way is cut and comes back.
//!
//! The edge reaches its core by a cable that can be cut and that counts every byte.

use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_tests::{Cable, Node, PATIENCE, Site, until, within};
use serde_json::{Value, json};

/// An edge enrolled with a core, over a cable.
pub(crate) struct Pair {
    core_site: Site,
    edge_site: Site,
    pub(crate) core: Node,
    pub(crate) edge: Node,
    pub(crate) cable: Cable,
}

impl Pair {
    pub(crate) async fn linked(flows: Option<Value>) -> anyhow::Result<Self> {
        let (core_site, edge_site) = (Site::new()?, Site::new()?);
        let core = core_site.start().await?;
        let edge = edge_site.start().await?;
        let cable = Cable::to(core.addresses.quic).await?;
        let mut invitation = json!({ "name": "harbour", "core": cable.address.to_string() });
        if let Some(flows) = flows {
            invitation["flows"] = flows;
        }
        let invited = core
            .http()
            .post("/api/v1/sites/invitations", &invitation)
            .await?
            .json()?;
        let enrolled = edge
            .http()
            .post("/api/v1/sites/enrol", &json!({ "token": invited["token"] }))
            .await?
            .json()?;
        anyhow::ensure!(enrolled["site"] == "harbour", "{enrolled}");
        let pair = Self {
            core_site,
            edge_site,
            core,
            edge,
            cable,
        };
        pair.connected().await?;
        Ok(pair)
    }

    async fn connected(&self) -> anyhow::Result<()> {
        for node in [&self.core, &self.edge] {
            until(PATIENCE, "the link to be connected", || async {
                let link = link(node).await?;
                Ok((link["state"] == "connected").then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until the core's copy of a topic has what its source has.
    pub(crate) async fn mirrored(&self, topic: &str) -> anyhow::Result<()> {
        until(PATIENCE, "the copy to be complete", || async {
            Ok(self.is_mirrored(topic).await?.then_some(()))
        })
        .await
    }

    pub(crate) async fn is_mirrored(&self, topic: &str) -> anyhow::Result<bool> {
        let (source, copy) = (
            ends(&self.edge, topic).await?,
            ends(&self.core, &copy_of(topic)).await?,
        );
        Ok(source.is_some() && source == copy)
    }
}

pub(crate) fn copy_of(topic: &str) -> String {
    format!("harbour.{topic}")
}

pub(crate) async fn link(node: &Node) -> anyhow::Result<Value> {
    let links = node.http().get("/api/v1/links").await?.json()?;
    Ok(links[0].clone())
}

/// High watermarks of a topic's partitions, when it is there.
async fn ends(node: &Node, topic: &str) -> anyhow::Result<Option<Vec<i64>>> {
    let answer = node.http().get(&format!("/api/v1/topics/{topic}")).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let detail = answer.json()?;
    let partitions = detail["partitions"].as_array().cloned().unwrap_or_default();
    Ok(Some(
        partitions
            .iter()
            .filter_map(|partition| partition["high_watermark"].as_i64())
            .collect(),
    ))
}

async fn produce(node: &Node, topic: &str, partition: i32, from: usize, count: usize) -> anyhow::Result<()> {
    let record = |n: usize| json!({ "partition": partition, "key": { "utf8": format!("k{n}") }, "value": { "utf8": format!("value {n}") } });
    let records: Vec<_> = (from..from + count).map(record).collect();
    node.http()
        .post(
            &format!("/api/v1/topics/{topic}/records"),
            &json!({ "records": records }),
        )
        .await?
        .json()?;
    Ok(())
}

/// Every record of a partition as offset and value.
async fn read_all(node: &Node, topic: &str, partition: i32) -> anyhow::Result<Vec<(i64, String)>> {
    let mut all = Vec::new();
    let mut next = 0;
    loop {
        let path = format!("/api/v1/topics/{topic}/records?partition={partition}&offset={next}&limit=1000");
        let page = node.http().get(&path).await?.json()?;
        let records = page["records"].as_array().cloned().unwrap_or_default();
        for record in &records {
            let value = record["value"]["utf8"].as_str().unwrap_or_default().to_owned();
            all.push((record["offset"].as_i64().unwrap_or(-1), value));
        }
        let after = page["partitions"][0]["next_offset"].as_i64().unwrap_or(next);
        if after == next {
            return Ok(all);
        }
        next = after;
    }
}

async fn same(pair: &Pair, topic: &str, partition: i32) -> anyhow::Result<()> {
    let source = read_all(&pair.edge, topic, partition).await?;
    let copy = read_all(&pair.core, &copy_of(topic), partition).await?;
    anyhow::ensure!(
        source == copy,
        "source has {} records, its copy {}",
        source.len(),
        copy.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_an_edge_are_mirrored_under_their_offsets() -> anyhow::Result<()> {
    let pair = Pair::linked(None).await?;
    pair.edge.create_topic("readings", 2, &[]).await?;
    produce(&pair.edge, "readings", 0, 0, 700).await?;
    produce(&pair.edge, "readings", 1, 700, 300).await?;
    pair.mirrored("readings").await?;
    same(&pair, "readings", 0).await?;
    same(&pair, "readings", 1).await?;

    // What comes later follows, and so do new partitions.
    produce(&pair.edge, "readings", 0, 1000, 10).await?;
    pair.edge
        .http()
        .post("/api/v1/topics/readings/partitions", &json!({ "count": 3 }))
        .await?
        .json()?;
    produce(&pair.edge, "readings", 2, 2000, 5).await?;
    pair.mirrored("readings").await?;
    same(&pair, "readings", 0).await?;
    same(&pair, "readings", 2).await?;

    // The copy is the link's to write.
    let refused = pair
        .core
        .http()
        .post(
            "/api/v1/topics/harbour.readings/records",
            &json!({ "records": [{ "value": { "utf8": "x" } }] }),
        )
        .await?;
    anyhow::ensure!(refused.status == 409, "{}", refused.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_costs_nothing_but_its_own_time() -> anyhow::Result<()> {
    let pair = Pair::linked(None).await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 0, 100).await?;
    pair.mirrored("readings").await?;

    pair.cable.cut();
    for round in 0..20 {
        produce(&pair.edge, "readings", 0, 100 + round * 100, 100).await?;
    }
    until(PATIENCE, "the edge to see its backlog", || async {
        let backlog = link(&pair.edge).await?["flows"][0]["partitions"][0]["backlog_records"].clone();
        // What was copied just before the cut may not have been told any more.
        Ok(backlog
            .as_i64()
            .is_some_and(|records| records >= 2000)
            .then_some(()))
    })
    .await?;
    anyhow::ensure!(
        ends(&pair.core, "harbour.readings").await? == Some(vec![100]),
        "the copy went on without a link"
    );

    pair.cable.mend();
    let mended = Instant::now();
    pair.mirrored("readings").await?;
    println!(
        "complete {} ms after the cable was mended",
        mended.elapsed().as_millis()
    );
    same(&pair, "readings", 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn either_end_may_be_killed() -> anyhow::Result<()> {
    let mut pair = Pair::linked(None).await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 0, 500).await?;
    pair.mirrored("readings").await?;

    // Several times: whether the core's first word or the edge's own first step came first decided once over the flow.
    for round in 0..4 {
        pair.core.kill().await?;
        produce(&pair.edge, "readings", 0, 500 + round * 100, 100).await?;
        pair.core = pair.core_site.start().await?;
        pair.mirrored("readings").await?;
    }

    pair.edge.kill().await?;
    pair.edge = pair.edge_site.start().await?;
    produce(&pair.edge, "readings", 0, 900, 500).await?;
    pair.mirrored("readings").await?;
    same(&pair, "readings", 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lost_its_log_is_reported_at_both_ends_and_its_copy_kept() -> anyhow::Result<()> {
    let pair = Pair::linked(None).await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 0, 50).await?;
    pair.mirrored("readings").await?;
    pair.edge.http().delete("/api/v1/topics/readings").await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 7000, 3).await?;
    for node in [&pair.core, &pair.edge] {
        let state = until(PATIENCE, "the link to be stuck", || async {
            let link = link(node).await?;
            Ok((link["state"] == "stuck").then(|| link["flows"][0]["partitions"][0].clone()))
        })
        .await?;
        anyhow::ensure!(state["state"] == "diverged", "{state}");
        anyhow::ensure!(
            state["detail"]
                .as_str()
                .is_some_and(|text| text.contains("lost its log")),
            "{state}"
        );
    }
    anyhow::ensure!(
        read_all(&pair.core, "harbour.readings", 0).await?.len() == 50,
        "the copy must be left alone"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_the_policy_to_go_on_a_new_log_gets_a_copy_of_its_own() -> anyhow::Result<()> {
    let flows = json!([{ "direction": "up", "topics": ["*"], "prefix": "harbour.", "on_gap": "mark-gap" }]);
    let pair = Pair::linked(Some(flows)).await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 0, 50).await?;
    pair.mirrored("readings").await?;
    pair.edge.http().delete("/api/v1/topics/readings").await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 7000, 3).await?;
    let successor = until(PATIENCE, "a second copy", || async {
        let topics = pair.core.http().get("/api/v1/topics").await?.json()?;
        let names = topics.as_array().cloned().unwrap_or_default();
        let mut names = names.iter().filter_map(|topic| topic["name"].as_str());
        Ok(names
            .find(|name| name.starts_with("harbour.readings."))
            .map(str::to_owned))
    })
    .await?;
    until(PATIENCE, "the second copy to be complete", || async {
        Ok((ends(&pair.core, &successor).await? == Some(vec![3])).then_some(()))
    })
    .await?;
    anyhow::ensure!(
        read_all(&pair.core, "harbour.readings", 0).await?.len() == 50,
        "the first copy must be left alone"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_travel_down_too() -> anyhow::Result<()> {
    let flows = json!([{ "direction": "down", "topics": ["orders"], "prefix": "core." }]);
    let pair = Pair::linked(Some(flows)).await?;
    pair.core.create_topic("orders", 1, &[]).await?;
    produce(&pair.core, "orders", 0, 0, 20).await?;
    until(PATIENCE, "the copy at the edge", || async {
        Ok((ends(&pair.edge, "core.orders").await? == Some(vec![20])).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_and_a_revoked_site_is_cut_off() -> anyhow::Result<()> {
    let pair = Pair::linked(None).await?;
    let core = pair.core.http();
    let invited = core
        .post("/api/v1/sites/invitations", &json!({ "name": "second" }))
        .await?
        .json()?;
    let other_site = Site::new()?;
    let other = other_site.start().await?;
    let body = json!({ "token": invited["token"], "link": "to-the-core" });
    other.http().post("/api/v1/sites/enrol", &body).await?.json()?;
    until(
        PATIENCE,
        "a link of the edge's own name to be connected",
        || async {
            let link = link(&other).await?;
            Ok((link["name"] == "to-the-core" && link["state"] == "connected").then_some(()))
        },
    )
    .await?;
    let third_site = Site::new()?;
    let third = third_site.start().await?;
    let again = third.http().post("/api/v1/sites/enrol", &body).await?;
    anyhow::ensure!(again.status == 403, "{} {}", again.status, again.text());

    core.post("/api/v1/sites/harbour/revoke", &json!({})).await?;
    until(PATIENCE, "the revoked link to go down", || async {
        Ok((link(&pair.edge).await?["state"] == "disconnected").then_some(()))
    })
    .await?;
    let stranger = core
        .post_bytes(
            "/api/v1/sites/enrol",
            "application/json",
            Bytes::from_static(b"{\"token\":\"x\"}"),
        )
        .await?;
    anyhow::ensure!(stranger.status == 400, "{}", stranger.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_obeyed_at_both_ends() -> anyhow::Result<()> {
    let pair = Pair::linked(None).await?;
    pair.edge.create_topic("readings", 1, &[]).await?;
    produce(&pair.edge, "readings", 0, 0, 5).await?;
    pair.mirrored("readings").await?;
    pair.core
        .http()
        .post("/api/v1/links/harbour/pause", &json!({}))
        .await?
        .json()?;
    for node in [&pair.core, &pair.edge] {
        until(PATIENCE, "the pause to be known", || async {
            Ok((link(node).await?["state"] == "paused").then_some(()))
        })
        .await?;
    }
    produce(&pair.edge, "readings", 0, 5, 5).await?;
    let moved = within(Duration::from_millis(700), "nothing", pair.mirrored("readings")).await;
    anyhow::ensure!(moved.is_err(), "the copy moved while the link was paused");
    pair.core
        .http()
        .post("/api/v1/links/harbour/resume", &json!({}))
        .await?
        .json()?;
    pair.mirrored("readings").await
}
