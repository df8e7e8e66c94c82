//! A node that is killed in the middle of the work keeps what it acknowledged, once and in order.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use headwater_tests::{PATIENCE, Random, Running, Site, python, until};

const RECORDS: u64 = 1_000_000;
const KILLS: u64 = 20;

/// Reads the script's progress until it has had this many acknowledged.
async fn acknowledged(script: &mut Running, at_least: u64) -> anyhow::Result<u64> {
    loop {
        let line = script.line().await?.context("the producer ended early")?;
        let count = line
            .strip_prefix("acked ")
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        if count >= at_least {
            return Ok(count);
        }
    }
}

#[tokio::test]
async fn twenty_kills_lose_double_and_reorder_nothing() -> anyhow::Result<()> {
    let mut random = Random::new();
    let site = Site::new()?;
    let mut node = site.start().await?;
    node.create_topic("crashes", 1, &[]).await?;
    let (bootstrap, count) = (node.bootstrap(), RECORDS.to_string());
    let mut producer = python(
        "e2e/scripts/numbered.py",
        ["produce", &bootstrap, "crashes", &count],
    )?;

    // Somewhere in each twentieth of the work, all of it before the end.
    let step = RECORDS / (KILLS + 2);
    for kill in 0..KILLS {
        let moment = kill * step + random.below(1..step);
        let seen = acknowledged(&mut producer, moment).await?;
        node.kill().await?;
        ensure!(seen < RECORDS, "the producer was done before kill {kill}");
        node = site.start().await?;
        ensure!(node.bootstrap() == bootstrap, "the node came back elsewhere");
    }
    assert_eq!(producer.success().await?, format!("produced {RECORDS}"));

    let consumed = python(
        "e2e/scripts/numbered.py",
        ["consume", &bootstrap, "crashes", &count],
    )?
    .success()
    .await?;
    assert_eq!(consumed, format!("consumed {RECORDS}"));
    Ok(())
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_said() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("torn", 1, &[]).await?;
    let count = "1000";
    python(
        "e2e/scripts/numbered.py",
        ["produce", &node.bootstrap(), "torn", count],
    )?
    .success()
    .await?;
    node.kill().await?;

    // What a write that was cut short leaves: a length that promises more than there is.
    let segment = segments(site.data())?
        .pop()
        .context("the partition has a segment")?;
    let whole = std::fs::read(&segment)?;
    let torn = [&whole[..], &whole[..61.min(whole.len())]].concat();
    std::fs::write(&segment, torn)?;

    let node = site.start().await?;
    python(
        "e2e/scripts/numbered.py",
        ["consume", &node.bootstrap(), "torn", count],
    )?
    .success()
    .await?;
    until(PATIENCE, "the cut in the log", || async {
        Ok(node.log().contains("was cut").then_some(()))
    })
    .await?;
    Ok(())
}

/// The segment files of all partitions that hold records, oldest first.
fn segments(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(data.join("topics"))? {
        for file in std::fs::read_dir(folder?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|end| end == "log") && path.metadata()?.len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
