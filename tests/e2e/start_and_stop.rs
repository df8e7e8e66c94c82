//! How a node comes and goes: one to a folder, drained by SIGTERM, stopped by a setting it does not know.

use headwater_tests::{Site, python};

#[tokio::test]
async fn a_second_node_on_the_same_folder_is_refused() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("guarded", 1, &[]).await?;
    let second = Site::with_data(site.data())?.start_refused().await?;
    assert!(
        second.said.contains("another node") && second.said.contains("data directory"),
        "{second:?}"
    );
    // The first one never noticed.
    python(
        "e2e/scripts/numbered.py",
        ["produce", &node.bootstrap(), "guarded", "1000"],
    )?
    .success()
    .await?;
    // And a folder whose node was killed is free again.
    node.kill().await?;
    site.start().await?;
    Ok(())
}

#[tokio::test]
async fn sigterm_drains_and_exits_0() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("drained", 1, &[]).await?;
    let bootstrap = node.bootstrap();
    python(
        "e2e/scripts/numbered.py",
        ["produce", &bootstrap, "drained", "20000"],
    )?
    .success()
    .await?;
    // A connection that waits for more must not hold the drain up.
    let idle = tokio::net::TcpStream::connect(node.addresses.tcp).await?;
    assert_eq!(node.terminate().await?.code(), Some(0));
    drop(idle);
    let node = site.start().await?;
    python(
        "e2e/scripts/numbered.py",
        ["consume", &bootstrap, "drained", "20000"],
    )?
    .success()
    .await?;
    assert_eq!(node.terminate().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn an_unknown_setting_is_refused_and_the_nearest_named() -> anyhow::Result<()> {
    let site = Site::new()?.config("[listen]\ntpc = \"127.0.0.1:0\"\n")?;
    let refused = site.start_refused().await?;
    assert!(
        refused.said.contains("\"listen.tpc\"") && refused.said.contains("\"listen.tcp\""),
        "{refused:?}"
    );
    Ok(())
}
