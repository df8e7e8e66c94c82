//! Calls of real guests: the sound ones do their work, the hostile ones get the error that names what they did.

use headwater_protocol::ids::Offset;
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, NewRecord};

use super::super::answer::{self, check_verdicts, read_keys, read_states};
use super::super::input::Input;
use super::super::outbox::Sink;
use super::super::testing::{engine, module, setup};
use super::*;

/// Records with these values, each its own key as well, at offsets from 0 on, as a guest gets them.
fn batch(values: &[&str]) -> (Vec<u8>, u32) {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    for value in values {
        let value = Some(value.as_bytes());
        builder
            .append(&NewRecord {
                key: value,
                value,
                ..NewRecord::default()
            })
            .unwrap();
    }
    let batch = BatchView::parse(builder.build().unwrap().unwrap()).unwrap();
    let mut input = Input::default();
    input.push(batch, Offset(0), 1 << 20).unwrap();
    let mut buffer = Vec::new();
    input.encode(0..input.len(), &mut buffer);
    (buffer, values.len() as u32)
}

fn start(engine: &Arc<Engine>, name: &str) -> Instance {
    let started = Instance::start(&module(engine, name), setup(), KeyedStore::new(1 << 20));
    started
        .map_err(|failed| failed.error)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Calls a module of any world once with ten records, checking its answers as a pipeline does.
fn call(engine: &Arc<Engine>, name: &str) -> Result<Failures, CallError> {
    let (buffer, records) = batch(&["a"; 10]);
    let sinks = [Sink {
        name: "sink".into(),
        partitions: 1,
        message_bytes_max: 1 << 20,
    }];
    let module = module(engine, name);
    let mut instance = Instance::start(&module, setup(), KeyedStore::new(1 << 20))
        .map_err(|failed| failed.error)
        .unwrap();
    let read_all = |outputs: Vec<u8>, failures: &Failures, inputs| -> Result<(), AnswerError> {
        let mut outputs = answer::Outputs::new(&outputs, inputs, failures, &sinks)?;
        while outputs.next()?.is_some() {}
        Ok(())
    };
    match module.world() {
        World::Filter => {
            let (verdicts, failures) = instance.filter(&buffer, records)?;
            check_verdicts(&verdicts, &failures, records)?;
            Ok(failures)
        }
        World::Map => {
            let (outputs, failures) = instance.transform(&buffer, records)?;
            read_all(outputs, &failures, records)?;
            Ok(failures)
        }
        World::Aggregate => {
            let (keys, failures) = instance.keys(&buffer, records)?;
            read_keys(&keys, &failures, records, &mut Vec::new())?;
            let mut states = 1u32.to_le_bytes().to_vec();
            states.push(1);
            let (states, failures) = instance.fold(&states, &[0; 10], &buffer)?;
            read_states(&states, 1, |_| false, &mut Vec::new())?;
            let mut closed = 1u32.to_le_bytes().to_vec();
            closed.extend([0; 8]);
            closed.extend(10i64.to_le_bytes());
            closed.extend([2, b'k', 2, b's']);
            let (outputs, emitted) = instance.emit(&closed, 1)?;
            read_all(outputs, &emitted, 1)?;
            Ok(failures)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hostile_modules_get_an_error_that_names_what_they_did() {
    let engine = engine();
    let cases = [
        (
            "allocate_forever",
            "memory",
            "more than its 33554432 bytes of memory",
        ),
        ("deep_recursion", "trap", "out of bounds memory access"),
        (
            "emit_cut",
            "bad-answer",
            "the outputs buffer is malformed: cut short at byte",
        ),
        (
            "failure_message_huge",
            "output-too-large",
            "larger than 4194304 bytes",
        ),
        ("failure_out_of_order", "bad-answer", "not in ascending order"),
        ("failure_out_of_range", "bad-answer", "the failures name record"),
        ("fold_loses_states", "bad-answer", "items for 1"),
        ("keys_cut", "bad-answer", "the keys buffer is malformed"),
        ("keys_short", "bad-answer", "the keys buffer is malformed"),
        ("loop_forever", "timeout", "more than its 100 ms of CPU time"),
        (
            "outputs_backwards",
            "bad-answer",
            "not in the order of their inputs",
        ),
        ("outputs_count", "bad-answer", "the outputs buffer is malformed"),
        ("outputs_cut", "bad-answer", "the outputs buffer is malformed"),
        (
            "outputs_flood",
            "memory",
            "more than its 33554432 bytes of memory",
        ),
        ("outputs_index", "bad-answer", "an output names input"),
        ("outputs_length", "bad-answer", "the outputs buffer is malformed"),
        (
            "outputs_of_failed",
            "bad-answer",
            "has failed and has an output as well",
        ),
        ("outputs_topic_number", "bad-answer", "topic number"),
        (
            "outputs_trailing",
            "bad-answer",
            "follow the last part of the outputs buffer",
        ),
        ("outputs_unknown_bits", "bad-answer", "carries unknown parts"),
        (
            "outputs_unknown_topic",
            "bad-answer",
            "not among the transform's sinks",
        ),
        ("trap_on_record_7", "trap", "cannot stand offset 7"),
        ("verdict_unknown", "bad-answer", "the verdict on record 0 is 9"),
        ("verdict_without_failure", "bad-answer", "a failure, but not both"),
        ("verdicts_long", "bad-answer", "verdicts for 10 records"),
        ("verdicts_short", "bad-answer", "verdicts for 10 records"),
        ("wild_pointer", "trap", "out of bounds"),
    ];
    for (name, reason, words) in cases {
        let error = call(&engine, &format!("hostile/{name}")).expect_err(name);
        assert_eq!(error.reason(), reason, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_module_that_fails_while_set_up_is_refused() {
    let engine = engine();
    let refused = |name: &str| match Instance::start(&module(&engine, name), setup(), KeyedStore::new(0)) {
        Ok(_) => panic!("{name} started"),
        Err(failed) => failed.error,
    };
    let moon = StartError::Refused {
        message: "the moon is not full".to_owned(),
    };
    assert_eq!(refused("hostile/refuse_configure"), moon);
    assert!(matches!(
        refused("hostile/trap_in_configure"),
        StartError::Failed(CallError::Trap { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_module_that_leaks_is_stopped_and_a_fresh_instance_goes_on() {
    let engine = engine();
    let (buffer, records) = batch(&["a", "b"]);
    for _ in 0..2 {
        let mut instance = start(&engine, "hostile/leak");
        let calls = (0..100)
            .take_while(|_| instance.filter(&buffer, records).is_ok())
            .count();
        assert!(
            (20..32).contains(&calls),
            "{calls} calls of a mebibyte each fit 32 MiB"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn state_is_kept_when_committed_and_survives_the_instance() {
    let engine = engine();
    let module = module(&engine, "examples/deduplicate");
    let (buffer, records) = batch(&["a", "b", "a"]);
    let kept = |instance: &mut Instance| {
        let (outputs, _) = instance.transform(&buffer, records).unwrap();
        u32::from_le_bytes(*outputs.first_chunk().unwrap())
    };
    let begin = |keyed| {
        Instance::start(&module, setup(), keyed)
            .map_err(|failed| failed.error)
            .unwrap()
    };
    let mut instance = begin(KeyedStore::new(1 << 20));
    assert_eq!(kept(&mut instance), 2);
    instance.keyed().roll_back();
    assert_eq!(kept(&mut instance), 2, "what was rolled back did not happen");
    assert_eq!(instance.keyed().commit().len(), 2);
    let mut instance = begin(instance.into_keyed());
    assert_eq!(kept(&mut instance), 0);
}

/// A guest that answers a million times must not make the node grow: what it returned is given back to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_are_given_back_to_the_guest() {
    let engine = engine();
    let mut instance = start(&engine, "examples/split_lines");
    let (buffer, records) = batch(&["some\nlines\nof\ntext"; 100]);
    for _ in 0..5_000 {
        let (outputs, _) = instance.transform(&buffer, records).unwrap();
        assert!(outputs.len() > 1_000);
    }
    // 5,000 answers of 3 kB each would not fit the guest's 32 MiB twice over with their inputs of 3 kB.
    assert!(instance.take_cpu() > Duration::ZERO);
}
