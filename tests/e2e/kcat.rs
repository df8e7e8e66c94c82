//! kcat (librdkafka 2.0, as Debian ships it) lists, produces and consumes, with each codec.

use headwater_tests::{Node, Site, kcat};

/// Lines that compress, some of them empty, and one that is longer than a batch of small ones.
fn lines(codec: &str) -> Vec<u8> {
    let mut text = String::new();
    for number in 0..2_000 {
        text.push_str(&format!(
            "{codec} line {number} {}\n",
            "water ".repeat(number % 17)
        ));
    }
    text.push_str(&"x".repeat(200_000));
    text.push('\n');
    text.into_bytes()
}

async fn produce_and_consume(node: &Node, codec: &str) -> anyhow::Result<()> {
    let topic = format!("kcat-{codec}");
    node.create_topic(&topic, 1, &[]).await?;
    let bootstrap = node.bootstrap();
    let input = lines(codec);
    let produce = [
        "-b", &bootstrap, "-P", "-t", &topic, "-z", codec, "-X", "acks=all",
    ];
    kcat(produce, &input).await?.success()?;
    let consume = [
        "-b",
        &bootstrap,
        "-C",
        "-t",
        &topic,
        "-o",
        "beginning",
        "-e",
        "-q",
    ];
    let output = kcat(consume, b"").await?.success()?;
    assert!(
        output == input,
        "{codec}: {} bytes in, {} bytes out",
        input.len(),
        output.len()
    );
    Ok(())
}

#[tokio::test]
async fn kcat_produces_and_consumes_with_each_codec() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        produce_and_consume(&node, codec).await?;
    }
    Ok(())
}

#[tokio::test]
async fn kcat_lists_topics_with_their_partitions() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("listed", 3, &[]).await?;
    let listing = kcat(["-b", &node.bootstrap(), "-L", "-J"], b"")
        .await?
        .success()?;
    let listing: serde_json::Value = serde_json::from_slice(&listing)?;
    let topics = listing["topics"].as_array().expect("kcat lists topics");
    let listed = topics
        .iter()
        .find(|topic| topic["topic"] == "listed")
        .expect("the topic is listed");
    assert_eq!(listed["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(listing["brokers"][0]["name"], node.bootstrap());
    Ok(())
}

#[tokio::test]
async fn kcat_finds_offsets_by_timestamp() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("timed", 1, &[]).await?;
    let bootstrap = node.bootstrap();
    kcat(["-b", &bootstrap, "-P", "-t", "timed"], b"one\ntwo\n")
        .await?
        .success()?;
    // The first record at or after the epoch is the first; after the year 2100 there is none yet.
    let first = kcat(["-b", &bootstrap, "-Q", "-t", "timed:0:1"], b"")
        .await?
        .success()?;
    assert_eq!(String::from_utf8_lossy(&first).trim(), "timed [0] offset 0");
    let none = kcat(["-b", &bootstrap, "-Q", "-t", "timed:0:4102444800000"], b"")
        .await?
        .success()?;
    assert_eq!(String::from_utf8_lossy(&none).trim(), "timed [0] offset -1");
    Ok(())
}
