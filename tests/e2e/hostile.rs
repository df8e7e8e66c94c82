//! Modules that misbehave, offered to a real node by its HTTP API: each gets an error that its author understands, or its
//! records become dead letters; whatever it does, a topic of somebody else's goes on.
//!
//! What they cost others is measured by `headwater bench hostile`; here nothing depends on time.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bytes::Bytes;
use headwater_sdk::{Client, ConsumerRecord, Deliveries, ProducerConfig, Record};
use headwater_tests::{Answer, Node, PATIENCE, Site, client, module, read_all, until, within};
use serde_json::{Value, json};

const RECORDS: usize = 20;

async fn upload(node: &Node, name: &str, component: Bytes) -> anyhow::Result<Answer> {
    let path = format!("/api/v1/modules?name={}&version=1.0.0", name.replace('_', "-"));
    node.http().post_bytes(&path, "application/wasm", component).await
}

/// Code, message and hint of a refusal.
fn refusal(answer: &Answer) -> anyhow::Result<(String, String, String)> {
    ensure!(
        (400..500).contains(&answer.status),
        "{}: {}",
        answer.status,
        answer.text()
    );
    let body: Value = serde_json::from_slice(&answer.body)?;
    let part = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    Ok((part("code"), part("message"), part("hint")))
}

#[tokio::test]
async fn an_upload_that_is_no_module_is_refused_in_words_for_its_author() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let filter = module("filter")?;
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let cases: [(&str, Bytes, &str, &str, &str); 11] = [
        ("empty", Bytes::new(), "EMPTY", "the upload is empty", ""),
        (
            "random",
            noise.into(),
            "NOT_A_COMPONENT",
            "this is not WebAssembly",
            "",
        ),
        (
            "half",
            filter.slice(..filter.len() / 2),
            "INVALID_WASM",
            "damaged",
            "",
        ),
        (
            "large",
            vec![0; 33 << 20].into(),
            "TOO_LARGE",
            "the limit is 33554432",
            "",
        ),
        (
            "core_module",
            module("hostile/core_module")?,
            "NOT_A_COMPONENT",
            "this is a core module, not a component",
            "`headwater module build`",
        ),
        (
            "other_world",
            module("hostile/other_world")?,
            "MISSING_EXPORT",
            "exports no headwater:module/module",
            "it must export headwater:module/module@1.0.0",
        ),
        (
            "unknown_import",
            module("hostile/unknown_import")?,
            "FORBIDDEN_IMPORT",
            "imports elsewhere:network/sockets@0.1.0, which Headwater does not offer",
            "",
        ),
        (
            "loop_in_describe",
            module("hostile/loop_in_describe")?,
            "DESCRIBE_FAILED",
            "`describe` failed: the module used more than its 1000 ms of CPU time",
            "",
        ),
        (
            "trap_in_describe",
            module("hostile/trap_in_describe")?,
            "DESCRIBE_FAILED",
            "the module trapped",
            "",
        ),
        (
            "huge_metadata",
            module("hostile/huge_metadata")?,
            "DESCRIBE_FAILED",
            "answer is larger than",
            "",
        ),
        (
            "twin_params",
            module("hostile/twin_params")?,
            "BAD_DESCRIBE",
            "\"No Such Name!\" must be named",
            "",
        ),
    ];
    for (name, component, code, words, hint) in cases {
        let (found, message, hinted) = refusal(&upload(&node, name, component).await?).context(name)?;
        ensure!(found == code, "{name}: {found}: {message}");
        ensure!(message.contains(words), "{name}: {message}");
        ensure!(hinted.contains(hint), "{name}: hint {hinted:?}");
    }
    let known = node.http().get("/api/v1/modules").await?.json()?;
    let kept = known
        .as_array()
        .into_iter()
        .flatten()
        .filter(|module| module["builtin"] == false);
    ensure!(kept.count() == 0, "something of it was kept: {known}");
    Ok(())
}

#[tokio::test]
async fn a_module_that_cannot_be_set_up_is_not_deployed() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    node.create_topic("source", 1, &[]).await?;
    for (name, words) in [
        (
            "refuse_configure",
            "the module refuses its parameters: the moon is not full",
        ),
        (
            "trap_in_configure",
            "the module failed while it was set up: the module trapped",
        ),
    ] {
        upload(&node, name, module(&format!("hostile/{name}"))?)
            .await?
            .json()?;
        let answer = node
            .http()
            .post("/api/v1/transforms", &spec(name, "source", "filter"))
            .await?;
        let (code, message, _) = refusal(&answer)?;
        ensure!(
            code == "REFUSED_BY_MODULE" && message.contains(words),
            "{name}: {code}: {message}"
        );
    }
    let transforms = node.http().get("/api/v1/transforms").await?.json()?;
    ensure!(transforms == json!([]), "{transforms}");
    Ok(())
}

fn spec(name: &str, source: &str, world: &str) -> Value {
    let mut spec = json!({
        "name": name, "module": { "name": name.replace('_', "-"), "version": "1.0.0" }, "source": source,
        "sinks": [format!("{name}.out")], "dead_letter": format!("{name}.dead"), "start": "earliest",
        "limits": { "cpu_ms_per_batch": 20, "memory_bytes": 8 << 20 },
    });
    if world == "aggregate" {
        spec["window_ms"] = json!(1000);
    }
    spec
}

/// What must become of the records of a module: for each dead letter a word and a part of the message.
const FATES: [(&str, &str, &str); 9] = [
    (
        "loop_forever",
        "timeout",
        "more than its 20 ms of CPU time for one batch",
    ),
    (
        "allocate_forever",
        "memory",
        "more than its 8388608 bytes of memory",
    ),
    ("trap_on_record_7", "trap", "cannot stand offset 7"),
    ("deep_recursion", "trap", "out of bounds"),
    ("wild_pointer", "trap", "out of bounds"),
    ("verdict_unknown", "bad-answer", "the verdict on record 0 is 9"),
    ("outputs_flood", "unsendable", "takes at most 1048588 in a batch"),
    (
        "outputs_unknown_topic",
        "bad-answer",
        "not among the transform's sinks",
    ),
    ("verdicts_short", "bad-answer", "verdicts for"),
];

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_module_fails_on_are_dead_letters_and_others_go_on() -> anyhow::Result<()> {
    let site = Site::new()?;
    let node = site.start().await?;
    let records = client(&node).await?;
    node.create_topic("bystander", 1, &[]).await?;
    let producer = records.producer(ProducerConfig::default())?;
    let (bystander, source) = (producer.topic("bystander").await?, "source");
    node.create_topic(source, 1, &[]).await?;
    let numbers: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    let batch: Vec<_> = numbers.iter().map(Record::value).collect();
    let sent: Deliveries = producer.topic(source).await?.send_all(&batch).await?;
    within(PATIENCE, "the records", sent.all()).await??;

    // All at once: those that behave badly must not be in each other's way either.
    for (name, ..) in FATES {
        let made = upload(&node, name, module(&format!("hostile/{name}"))?)
            .await?
            .json()?;
        let world = made["world"].as_str().unwrap_or_default().to_owned();
        let deployed = node
            .http()
            .post("/api/v1/transforms", &spec(name, source, &world))
            .await?;
        deployed.json().context(name)?;
        let delivered = bystander.send(Record::value(name)).await?;
        within(PATIENCE, "the bystander's record", delivered.receipt()).await??;
    }
    for (name, reason, words) in FATES {
        let status = dealt_with(&node, name, RECORDS).await?;
        let letters = read_all(&records, &format!("{name}.dead")).await?;
        let failed: Vec<i64> = letters
            .iter()
            .map(|letter| offset_of(letter))
            .collect::<Result<_, _>>()?;
        for letter in &letters {
            let (found, message) = (header(letter, "reason")?, header(letter, "message")?);
            ensure!(
                found == reason && message.contains(words),
                "{name}: {found}: {message}"
            );
        }
        let survivors: Vec<usize> = if name == "trap_on_record_7" {
            (0..RECORDS).filter(|offset| *offset != 7).collect()
        } else {
            Vec::new()
        };
        let expected = (0..RECORDS)
            .filter(|offset| !survivors.contains(offset))
            .map(|offset| offset as i64);
        ensure!(
            failed == expected.collect::<Vec<_>>(),
            "{name}: dead letters of {failed:?}"
        );
        let kept = texts(&read_all(&records, &format!("{name}.out")).await?);
        let expected: Vec<String> = survivors.iter().map(usize::to_string).collect();
        ensure!(kept == expected, "{name}: {kept:?} came through");
        ensure!(status["totals"]["failed"] == letters.len(), "{name}: {status}");
        let error = status["last_error"]["message"].as_str().unwrap_or_default();
        ensure!(error.contains(words), "{name}: the last error is {error:?}");
    }
    let seen = texts(&read_all(&records, "bystander").await?);
    ensure!(seen == FATES.map(|(name, ..)| name), "{seen:?}");
    Ok(())
}

fn texts(records: &[ConsumerRecord]) -> Vec<String> {
    let value = |record: &ConsumerRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
    };
    records.iter().map(value).collect()
}

fn header(letter: &ConsumerRecord, name: &str) -> anyhow::Result<String> {
    let name = format!("headwater-error-{name}");
    let found = letter
        .headers()
        .flatten()
        .find(|header| header.key == name.as_bytes());
    let value = found
        .and_then(|header| header.value)
        .with_context(|| format!("no header {name}"))?;
    Ok(String::from_utf8(value.to_vec())?)
}

fn offset_of(letter: &ConsumerRecord) -> anyhow::Result<i64> {
    Ok(header(letter, "offset")?.parse()?)
}

/// Waits until a transform is behind so many records; answers its status.
async fn dealt_with(node: &Node, name: &str, records: usize) -> anyhow::Result<Value> {
    until(PATIENCE, &format!("{name} to be done"), || async {
        let status = node
            .http()
            .get(&format!("/api/v1/transforms/{name}"))
            .await?
            .json()?;
        let at = status["partitions"][0]["position"].as_u64();
        if at == Some(records as u64) {
            return Ok(Some(status));
        }
        anyhow::bail!("it is at {at:?}, {}: {}", status["state"], status["reason"])
    })
    .await
}

/// Every module that misbehaves, whatever it is about: it is refused, or its transform ends up somewhere that a person
/// can read, and the node is none the worse.
#[tokio::test(flavor = "multi_thread")]
async fn no_module_does_more_than_stop_itself() -> anyhow::Result<()> {
    let site = Site::new()?;
    let mut node = site.start().await?;
    let records = client(&node).await?;
    node.create_topic("source", 1, &[]).await?;
    let producer = records.producer(ProducerConfig::default())?;
    let sent = producer
        .topic("source")
        .await?
        .send_all(&[Record::value("x"); RECORDS])
        .await?;
    within(PATIENCE, "the records", sent.all()).await??;

    let mut ends = BTreeMap::new();
    for name in names()? {
        let answer = upload(&node, &name, module(&format!("hostile/{name}"))?).await?;
        let end = if answer.status == 201 {
            let world = answer.json()?["world"].as_str().unwrap_or_default().to_owned();
            run(&node, &name, &world).await?
        } else {
            refusal(&answer)?.0
        };
        ensure!(!end.is_empty(), "{name}: nothing is said");
        ends.insert(name, end);
    }
    for (name, end) in &ends {
        println!("{name:<26}{end}");
    }
    ensure!(ends.len() >= 35, "only {} modules", ends.len());
    ensure!(node.is_running()?, "the node is gone");
    check_bystander(&node, &records).await
}

fn names() -> anyhow::Result<Vec<String>> {
    let folder = headwater_tests::modules()?.join("hostile");
    let mut names = Vec::new();
    for file in
        std::fs::read_dir(&folder).with_context(|| format!("{}: `cargo xtask modules`", folder.display()))?
    {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "wasm") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Deploys a module; answers what became of it once it is through with its records, or has stopped.
async fn run(node: &Node, name: &str, world: &str) -> anyhow::Result<String> {
    let answer = node
        .http()
        .post("/api/v1/transforms", &spec(name, "source", world))
        .await?;
    if answer.status != 201 {
        return Ok(refusal(&answer)?.1);
    }
    let status = until(PATIENCE, &format!("{name} to come to an end"), || async {
        let status = node
            .http()
            .get(&format!("/api/v1/transforms/{name}"))
            .await?
            .json()?;
        let is_through = status["partitions"][0]["position"] == RECORDS;
        Ok((is_through || status["state"] == "stopped").then_some(status))
    })
    .await?;
    let totals = &status["totals"];
    let said = [&status["reason"], &status["last_error"]["message"]]
        .into_iter()
        .find_map(Value::as_str);
    node.http().delete(&format!("/api/v1/transforms/{name}")).await?;
    Ok(format!(
        "{}: {} in, {} out, {} failed: {}",
        status["state"].as_str().unwrap_or_default(),
        totals["records_in"],
        totals["records_out"],
        totals["failed"],
        said.unwrap_or("no error")
    ))
}

/// A sound filter on another topic does its work.
async fn check_bystander(node: &Node, records: &Client) -> anyhow::Result<()> {
    node.create_topic("bystander", 1, &[]).await?;
    upload(node, "sound", module("filter")?).await?.json()?;
    let mut spec = spec("sound", "bystander", "filter");
    spec["params"] = json!({ "where": "n >= 500" });
    node.http().post("/api/v1/transforms", &spec).await?.json()?;
    let producer = records.producer(ProducerConfig::default())?;
    let values: Vec<String> = (0..1000).map(|n| json!({ "n": n }).to_string()).collect();
    let batch: Vec<_> = values.iter().map(Record::value).collect();
    let sent = producer.topic("bystander").await?.send_all(&batch).await?;
    within(PATIENCE, "the records", sent.all()).await??;
    dealt_with(node, "sound", 1000).await?;
    let kept = texts(&read_all(records, "sound.out").await?);
    ensure!(kept == values[500..], "{} kept", kept.len());
    Ok(())
}
