//! The main job, as `headwater demo` does it: its answer is DuckDB's, on the week that is inside and on a whole month,
//! and a wrong one is told from a right one.

use anyhow::{Context, ensure};
use headwater_tests::{Running, Site, checkout, headwater, headwater_running, package, python};

/// What flights.py makes of January: half a million flights.
const MONTH_FLIGHTS: &str = "flights 508239";

#[tokio::test]
async fn the_week_that_is_inside_gives_the_answer_of_duckdb() -> anyhow::Result<()> {
    let shown = headwater(["demo", "--once"]).await?.success()?;
    let shown = String::from_utf8(shown)?;
    for part in [
        "The ten airport-hours that lost most minutes to delays",
        "MEAN MIN",
        "All 8,662 airport-hours agree with the answer that DuckDB computed",
        "core  http://127.0.0.1:",
        "edge  http://127.0.0.1:",
    ] {
        ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_differs_in_one_figure_of_one_hour_is_told() -> anyhow::Result<()> {
    let site = Site::new()?;
    let data = checkout().join("tests/data");
    let right = std::fs::read_to_string(data.join("expected.csv"))?;
    let (row, wrong) = (
        "ABE,2001-01-01T17:00:00,2,1,25,25,25",
        "ABE,2001-01-01T17:00:00,2,1,26,25,25",
    );
    ensure!(right.contains(row), "the row that is to be changed is gone");
    let changed = site.path().join("changed.csv");
    std::fs::write(&changed, right.replace(row, wrong))?;

    let finished = headwater(["demo", "--once", "--expected", &changed.to_string_lossy()]).await?;
    ensure!(finished.status.code() == Some(1), "{}", finished.status);
    let said = finished.stderr;
    ensure!(
        said.contains("they differ") && said.contains("ABE 2001-01-01T17:00:00Z"),
        "{said}"
    );
    ensure!(
        said.contains("delay_sum: 25") && said.contains("delay_sum: 26"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn arguments_that_make_no_sense_end_before_anything_starts() -> anyhow::Result<()> {
    let site = Site::new()?;
    let file = site.path().join("flights.csv");
    std::fs::write(
        &file,
        "date,delay,distance,origin,destination\n2001-01-01T00:01:00,33,2176,LAS\n",
    )?;
    let file = file.to_string_lossy();
    let missing = headwater(["demo", "--once", "--flights", &file]).await?;
    ensure!(missing.status.code() == Some(2), "{}", missing.status);
    ensure!(missing.stderr.contains("--expected FILE"), "{}", missing.stderr);
    let damaged = headwater(["demo", "--flights", &file]).await?;
    ensure!(damaged.status.code() == Some(1), "{}", damaged.status);
    ensure!(
        damaged.stderr.contains("no flight: 2001-01-01T00:01:00"),
        "{}",
        damaged.stderr
    );
    Ok(())
}

#[tokio::test]
async fn a_whole_month_gives_the_answer_of_duckdb_to_a_kafka_client() -> anyhow::Result<()> {
    let site = Site::new()?;
    let file = |name: &str| site.path().join(name).to_string_lossy().into_owned();
    let (flights, expected) = (file("month.csv"), file("expected.csv"));
    let airports = checkout()
        .join("tests/data/airports.csv")
        .to_string_lossy()
        .into_owned();
    let vega = package("vega-datasets-3.2.1.tgz")?.to_string_lossy().into_owned();
    let made = python("e2e/scripts/flights.py", [&vega, "2001-02-01", &flights])?
        .success()
        .await?;
    assert_eq!(made, MONTH_FLIGHTS);
    write_answer(&flights, &airports, &expected).await?;

    let mut demo = headwater_running(["demo", "--flights", &flights, "--expected", &expected])?;
    let agrees = line_with(&mut demo, "airport-hours agree").await?;
    let core = line_with(&mut demo, "core  http://").await?;
    let bootstrap = core
        .split_whitespace()
        .nth(3)
        .context("the core's Kafka address")?;
    let answer = python("e2e/scripts/flights_answer.py", [bootstrap, &flights, &airports])?;
    let answer = answer.success().await?;
    ensure!(answer.starts_with("agree: "), "{answer}");
    println!("{agrees}\n{answer}");
    // It stayed up for us, and says so with its exit code.
    ensure!(!demo.terminate().await?.success());
    Ok(())
}

/// Has DuckDB compute the answer, independently of the demo.
async fn write_answer(flights: &str, airports: &str, to: &str) -> anyhow::Result<()> {
    let mut script = python("data/expected.py", [flights, airports])?;
    let mut text = String::new();
    while let Some(line) = script.line().await? {
        text.push_str(&line);
        text.push('\n');
    }
    script.success().await?;
    std::fs::write(to, text)?;
    Ok(())
}

async fn line_with(running: &mut Running, part: &str) -> anyhow::Result<String> {
    loop {
        let line = running
            .line()
            .await?
            .with_context(|| format!("no line with {part:?}"))?;
        if line.contains(part) {
            return Ok(line);
        }
    }
}
