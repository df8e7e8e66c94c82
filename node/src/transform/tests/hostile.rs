//! Hostile modules on a whole node, one after the other: each comes to the end of its source and commits it, with the dead
//! letters it must have and no others; a sound transform of another topic goes on beside all of them.

use super::*;
use crate::transform::testing::hostile::{CPU_MS, Case, Fate, MEMORY_BYTES, OUTPUT_BYTES, RECORDS, RUNNING};
use crate::transform::testing::{hostile, text::Guest};

const BATCH_BYTES: u64 = 1 << 10;

/// Deploys a module, and takes it down when it is through with the source; says what is wrong with what came of it.
async fn wrong(rig: &Rig, case: &Case) -> Option<String> {
    let name = case.plain_name();
    let module = rig.upload_as(name.clone(), case.guest().wasm()).await;
    let (out, dead) = (format!("{name}.out"), format!("{name}.dead"));
    let mut spec = TransformSpec::new(&name, module, "in", &out);
    spec.dead_letter = Some(dead.clone());
    spec.limits = LimitsSpec {
        memory_bytes: Some(MEMORY_BYTES),
        cpu_ms_per_batch: Some(CPU_MS),
        output_bytes: Some(OUTPUT_BYTES),
        batch_bytes: Some(BATCH_BYTES),
    };
    rig.transforms.deploy(spec).await.unwrap();
    rig.committed(&name, 0, RECORDS as i64).await;
    let sent = rig.values(&out, 0).await;
    let letters: Vec<(i64, String)> = match rig.registry.get(&dead, PartitionIndex(0)) {
        Some(_) => {
            let letters = rig.read(&dead, 0).await.into_iter();
            letters.map(|(_, headers)| place_and_reason(&headers)).collect()
        }
        None => Vec::new(),
    };
    let status = rig.transforms.status(&name).expect("it is deployed");
    rig.transforms.remove(&name).await.unwrap();
    let (expected, offsets) = case.fate.expected();
    let reason = case.fate.reason().to_owned();
    let expected_letters = offsets.into_iter().map(|offset| (offset, reason.clone()));
    let is_right = sent == expected && letters == expected_letters.collect::<Vec<_>>();
    (!is_right || status.totals.failed != letters.len() as u64)
        .then(|| format!("{}: sent {sent:?}, letters {letters:?}: {status:?}", case.name))
}

fn place_and_reason(headers: &BTreeMap<String, String>) -> (i64, String) {
    let offset = headers["headwater-error-offset"].parse().unwrap();
    (offset, headers["headwater-error-reason"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_modules_come_to_the_end_of_their_source_and_nobody_else_notices() {
    let rig = Rig::new().await;
    rig.topic("in", 1).await;
    rig.topic("other", 1).await;
    rig.append("in", 0, &records(&hostile::records())).await;
    let module = rig.upload_as("sound".to_owned(), Guest::map("").wasm()).await;
    let sound = TransformSpec::new("sound", module, "other", "fine");
    rig.transforms.deploy(sound).await.unwrap();
    let (mut problems, mut beside) = (Vec::new(), Vec::new());
    for case in RUNNING.iter().filter(|case| case.fate != Fate::Stops) {
        rig.append("other", 0, &[(1, case.name)]).await;
        beside.push(case.name);
        problems.extend(wrong(&rig, case).await);
        rig.reached("fine", 0, beside.len()).await;
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(rig.values("fine", 0).await, beside);
}
