//! A module is compiled beside the node, not in it: the compiler's memory is never the node's.

use anyhow::Context;
use bytes::Bytes;
use headwater_tests::{PATIENCE, Site, until};

/// What a node's peak may grow by when it takes a module in. The compiler takes several times as much.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

#[tokio::test]
async fn an_upload_leaves_the_nodes_memory_alone() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let http = node.http();
    let version = until(PATIENCE, "the built-in filter", async || {
        let modules = http.get("/api/v1/modules").await?.json()?;
        let filter = modules
            .as_array()
            .into_iter()
            .flatten()
            .find(|module| module["name"] == "filter");
        Ok(filter.and_then(|filter| filter["version"].as_str().map(str::to_owned)))
    })
    .await?;
    let filter = http
        .get(&format!("/api/v1/modules/filter/{version}/wasm"))
        .await?;
    // A custom section more makes a module of it that nobody has compiled.
    let mut other = filter.body.to_vec();
    other.extend(b"\0\x05\x04mine");
    let before = node.peak_bytes()?;
    let made = http
        .post_bytes(
            "/api/v1/modules?name=mine&version=1",
            "application/wasm",
            Bytes::from(other),
        )
        .await?;
    assert_eq!(made.json()?["world"], "filter");
    let grown = node
        .peak_bytes()?
        .checked_sub(before)
        .context("a peak never falls")?;
    assert!(
        grown < GROWTH_BYTES_MAX,
        "the node's peak has grown by {grown} bytes"
    );
    Ok(())
}
