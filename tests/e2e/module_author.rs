//! The way of somebody who writes a module: as the README of a new project says it, word for word.

use std::path::PathBuf;

use anyhow::Context;
use headwater_tests::{PATIENCE, Site, headwater, headwater_in, until};
use serde_json::Value;
use tempfile::TempDir;

/// A component that `cargo xtask modules` has built.
fn built(name: &str) -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let target = executable
        .ancestors()
        .nth(3)
        .context("tests lie in target/PROFILE/deps")?;
    let path = target.join("modules").join(name).with_extension("wasm");
    anyhow::ensure!(
        path.exists(),
        "{}: build it with `cargo xtask modules`",
        path.display()
    );
    Ok(path)
}

#[tokio::test]
async fn from_a_new_project_to_records_in_a_topic() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let site = Site::new()?;
    let node = site.start().await?;
    let (bootstrap, http) = (node.bootstrap(), node.addresses.http.to_string());
    headwater_in(folder.path(), ["module", "new", "late-ones"], b"")
        .await?
        .success()?;
    let project = folder.path().join("late-ones");
    let in_project = async |args: &[&str]| headwater_in(&project, args, b"").await?.success();
    let made = String::from_utf8(in_project(&["module", "build"]).await?)?;
    assert!(made.contains("late_ones.wasm"), "{made}");
    let tested = in_project(&["module", "test", ".", "--samples", "sample.jsonl"]).await?;
    let tested = String::from_utf8(tested)?;
    for part in [
        "late-ones@0.1.0, a filter module",
        "kept     ATL",
        "dropped  DEN",
        "1 kept, 1 dropped",
    ] {
        assert!(tested.contains(part), "{part} in {tested}");
    }
    in_project(&["module", "push", ".", "--http", &http]).await?;
    for topic in ["some-topic", "another-topic"] {
        node.create_topic(topic, 1, &[]).await?;
    }
    let deploy =
        "transform deploy late-ones --module late-ones --source some-topic --sink another-topic --http";
    let mut deploy: Vec<_> = deploy.split(' ').collect();
    deploy.push(&http);
    in_project(&deploy).await?;
    let produce = ["produce", "some-topic", "--bootstrap", &bootstrap];
    headwater_in(&project, produce, b"it was late\nit was early\nlater still\n")
        .await?
        .success()?;
    let describe = [
        "transform",
        "describe",
        "late-ones",
        "--http",
        &http,
        "--output",
        "json",
    ];
    until(PATIENCE, "three records dealt with", || async {
        let described: Value = serde_json::from_slice(&headwater(describe).await?.success()?)?;
        let totals = &described["totals"];
        Ok((totals["records_in"] == 3 && totals["records_out"] == 2).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_component_is_tried_on_records_from_stdin() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let filter = built("filter")?.display().to_string();
    let args = [
        "module",
        "test",
        &filter,
        "--samples",
        "-",
        "--lines",
        "--param",
        "where=delay > 15",
    ];
    let records = b"{\"delay\":20}\n{\"delay\":10}\nnot json\n";
    let shown = headwater_in(folder.path(), args, records).await?.success()?;
    let shown = String::from_utf8(shown)?;
    for part in [
        "kept     {\"delay\":20}",
        "dropped  {\"delay\":10}",
        "!! the value is not JSON (byte 0)",
        "1 kept, 1 dropped, 0 mapped, 1 failed",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let enrich = built("enrich")?.display().to_string();
    let entry = "{\"key\":\"ATL\",\"value\":{\"city\":\"Atlanta\"}}\n";
    tokio::fs::write(folder.path().join("airports.jsonl"), entry).await?;
    let args = [
        "module",
        "test",
        &enrich,
        "--samples",
        "-",
        "--lines",
        "--param",
        "table=airports",
        "--param",
        "key=origin",
        "--table",
        "airports=airports.jsonl",
    ];
    let shown = headwater_in(folder.path(), args, b"{\"origin\":\"ATL\"}")
        .await?
        .success()?;
    let shown = String::from_utf8(shown)?;
    assert!(shown.contains("+ city: \"Atlanta\""), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_module_that_breaks_down_fails_the_test() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    for (name, says) in [
        ("hostile/trap_on_record_7", "!! the module trapped"),
        ("hostile/loop_forever", "ms of CPU time"),
        ("hostile/outputs_cut", "!! the module broke the contract"),
    ] {
        let module = built(name)?.display().to_string();
        let args = ["module", "test", &module, "--samples", "-", "--lines"];
        let records: String = (0..10).map(|number| format!("record {number}\n")).collect();
        let finished = headwater_in(folder.path(), args, records.as_bytes()).await?;
        let shown = String::from_utf8_lossy(&finished.stdout).into_owned();
        assert_eq!(
            finished.status.code(),
            Some(1),
            "{name}: {shown} {}",
            finished.stderr
        );
        assert!(shown.contains(says), "{name}: {shown}");
        assert!(
            finished.stderr.contains("broke down"),
            "{name}: {}",
            finished.stderr
        );
    }
    let module = built("hostile/other_world")?.display().to_string();
    let args = ["module", "test", &module, "--samples", "-"];
    let refused = headwater_in(folder.path(), args, b"{}").await?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("the module is refused"),
        "{}",
        refused.stderr
    );
    Ok(())
}
