//! confluent-kafka (librdkafka, as PyPI ships it) moves a million records through a node: the same bytes, in order.

use headwater_tests::{Site, python};

const RECORDS: u64 = 1_000_000;

#[tokio::test]
async fn a_million_records_come_back_the_same() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("million", 1, &[]).await?;
    let (bootstrap, count) = (node.bootstrap(), RECORDS.to_string());
    let produced = python(
        "e2e/scripts/numbered.py",
        ["produce", &bootstrap, "million", &count],
    )?
    .success()
    .await?;
    assert_eq!(produced, format!("produced {RECORDS}"));
    let consumed = python(
        "e2e/scripts/numbered.py",
        ["consume", &bootstrap, "million", &count],
    )?
    .success()
    .await?;
    assert_eq!(consumed, format!("consumed {RECORDS}"));
    Ok(())
}
