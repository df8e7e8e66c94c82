//! Modules that misbehave at one record of many: whatever they do, that record alone is written off, all others come out
//! once and in order, nothing of it stays in the state, and another worker of the same engine goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::super::testing::hostile::{self, Case, Fate, RECORDS, RUNNING, UNWILLING, records};
use super::super::super::testing::{text::Guest, written};
use super::*;

/// A worker with the limits of hostile modules.
fn worker_of(module: Arc<Module>, rules: Rules) -> Worker {
    Worker::new(Parts {
        module,
        setup: Setup {
            memory_bytes_max: hostile::MEMORY_BYTES,
            cpu_per_call: Duration::from_millis(hostile::CPU_MS),
            answer_bytes_max: hostile::OUTPUT_BYTES,
            ..setup()
        },
        rules,
        keyed: KeyedStore::new(hostile::STATE_BYTES),
        windows: None,
        join: None,
        sinks: sinks(1),
        origin: origin(),
    })
}

/// Runs one case in batches of so many records, and calls of so many bytes; says what is wrong with it.
fn wrong(module: &Arc<Module>, case: &Case, per_batch: usize, bytes: usize) -> Option<String> {
    let rules = Rules {
        batch_bytes_max: bytes,
        ..rules()
    };
    let mut worker = worker_of(Arc::clone(module), rules);
    worker.load(
        joined(&log(&records(), per_batch, Compression::None)),
        Offset(0),
        5,
    );
    let driven = drive(&mut worker);
    let stopped = match &driven.stopped {
        Some(Blame::Module { reason }) => Some(reason),
        Some(other) => return Some(format!("{}: {other:?}", case.name)),
        None => None,
    };
    let (expected, offsets) = case.fate.expected();
    let sent = driven.sent.get(&(0, 0)).cloned().unwrap_or_default();
    let letters: Vec<i64> = driven.letters.iter().map(|(_, offset)| *offset).collect();
    let are_reasons_right = driven
        .letters
        .iter()
        .all(|(reason, _)| reason == case.fate.reason());
    let why = stopped.or_else(|| driven.messages.first());
    let is_why_said = why.map_or("", |why| why).contains(case.words);
    // Whoever stops has sent a beginning, which depends on how its records were cut, and stands behind it.
    let (is_sent, position) = match case.fate {
        Fate::Stops => (expected.starts_with(&sent), sent.len()),
        Fate::Passes | Fate::Fails(_) | Fate::AllFail(_) => (sent == expected, RECORDS),
    };
    let is_there = driven.position.unwrap_or(Offset::ZERO) == Offset(position as i64);
    let is_end_right = stopped.is_some() == (case.fate == Fate::Stops);
    let is_clean = worker.keyed().bytes() == 0;
    let is_right = is_sent && letters == offsets && are_reasons_right && is_why_said;
    if is_right && is_there && is_end_right && is_clean {
        return None;
    }
    Some(format!(
        "{}: in batches of {per_batch}: sent {sent:?}, letters {:?}, at {:?}, state {}, because {why:?}",
        case.name,
        driven.letters,
        driven.position,
        worker.keyed().bytes()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_module_that_misbehaves_costs_the_record_it_misbehaves_at() {
    let engine = engine();
    let mut bystander = worker_of(Arc::new(written(&engine, &Guest::map(""))), rules());
    let mut problems = Vec::new();
    for (number, case) in RUNNING.iter().enumerate() {
        let module = Arc::new(written(&engine, &case.guest()));
        for (per_batch, bytes) in [(RECORDS, 1 << 20), (2, 1 << 20), (RECORDS, 80)] {
            problems.extend(wrong(&module, case, per_batch, bytes));
        }
        let said = [format!("beside {}", case.name)];
        let batch = log(&said, 1, Compression::None);
        bystander.load(joined(&batch), Offset(0), number as i64);
        assert_eq!(drive(&mut bystander).sent[&(0, 0)], said);
        let pool = engine.wasm().pooling_allocator_metrics();
        let pool = pool.expect("the engine pools instances");
        let held = (pool.component_instances(), pool.memories());
        assert_eq!(
            held,
            (1, 1),
            "{}: only the bystander's instance is left",
            case.name
        );
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_two_hostile_modules_are_alike() {
    let mut modules: Vec<Vec<u8>> = RUNNING.iter().map(|case| case.guest().wasm()).collect();
    let names: BTreeSet<&str> = RUNNING.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), RUNNING.len());
    modules.sort();
    modules.dedup();
    assert_eq!(modules.len(), RUNNING.len());
    assert!(modules.len() >= 30, "{} modules", modules.len());
}

/// For `headwater bench hostile`.
#[test]
#[expect(clippy::disallowed_methods, reason = "files for another program")]
fn hostile_modules_can_be_written_down() {
    let temporary = tempfile::tempdir().unwrap();
    let wanted = std::env::var_os("HEADWATER_HOSTILE_FOLDER").map(std::path::PathBuf::from);
    let folder = wanted.as_deref().unwrap_or_else(|| temporary.path());
    for case in RUNNING {
        let file = folder.join(case.plain_name()).with_extension("wasm");
        std::fs::write(&file, case.guest().wasm()).unwrap();
    }
    assert!(std::fs::read_dir(folder).unwrap().count() >= RUNNING.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_module_that_cannot_be_set_up_says_why_and_holds_nothing() {
    let engine = engine();
    for (name, guest, words) in UNWILLING {
        let mut worker = worker_of(Arc::new(written(&engine, guest)), rules());
        let error = worker.prepare().expect_err(name).to_string();
        assert!(error.contains(words) && error.len() < 2_000, "{name}: {error}");
        let pool = engine.wasm().pooling_allocator_metrics();
        assert_eq!(pool.map(|pool| pool.component_instances()), Some(0), "{name}");
    }
}
