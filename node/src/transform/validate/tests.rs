//! Every kind of upload, sound and not, with the code and the words its author gets.

use super::super::testing::{engine, wasm};
use super::*;

fn check(engine: &Arc<Engine>, bytes: &[u8]) -> Result<Validated, ValidateError> {
    validate(engine, &Clock::system(), bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sound_module_says_what_it_is() {
    let engine = engine();
    let sound = check(&engine, &wasm("examples/split_lines")).unwrap().facts;
    assert_eq!((&*sound.name, sound.world), ("headwater-examples", World::Map));
    assert!(!sound.description.is_empty() && !sound.version.is_empty());
    let aggregate = check(&engine, &wasm("examples/longest")).unwrap().facts;
    assert_eq!(aggregate.world, World::Aggregate);
    let stateful = check(&engine, &wasm("examples/deduplicate")).unwrap().facts;
    assert!(
        stateful.imports.contains(&"state".to_owned()),
        "{:?}",
        stateful.imports
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_unsound_upload_is_refused_with_a_reason() {
    let engine = engine();
    let cases = [
        (
            "hostile/core_module",
            "NOT_A_COMPONENT",
            "this is a core module, not a component",
        ),
        (
            "hostile/other_world",
            "MISSING_EXPORT",
            "exports no headwater:module/module and no interface of a world",
        ),
        (
            "hostile/unknown_import",
            "FORBIDDEN_IMPORT",
            "imports elsewhere:network/sockets@0.1.0",
        ),
        (
            "hostile/loop_in_describe",
            "DESCRIBE_FAILED",
            "more than its 1000 ms of CPU time",
        ),
        ("hostile/trap_in_describe", "DESCRIBE_FAILED", "trapped"),
        ("hostile/huge_metadata", "DESCRIBE_FAILED", "larger than"),
        (
            "hostile/twin_params",
            "BAD_DESCRIBE",
            "\"No Such Name!\" must be named",
        ),
    ];
    for (name, code, words) in cases {
        let error = check(&engine, &wasm(name)).map(drop).expect_err(name);
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        let has_hint = matches!(code, "NOT_A_COMPONENT" | "MISSING_EXPORT");
        assert_eq!(error.hint().is_some(), has_hint, "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bytes_that_are_no_module_are_refused() {
    let engine = engine();
    let code = |bytes: &[u8]| check(&engine, bytes).map(drop).unwrap_err().code();
    let sound = wasm("examples/late_flights");
    assert_eq!(code(b""), "EMPTY");
    assert_eq!(code(b"#!/bin/sh\necho hello"), "NOT_A_COMPONENT");
    assert_eq!(code(&sound[..sound.len() / 2]), "INVALID_WASM");
    assert_eq!(code(&vec![0; MODULE_BYTES_MAX + 1]), "TOO_LARGE");
    assert_eq!(code(b"\0asm"), "INVALID_WASM");
}

/// Whatever is done to a sound module's bytes, the node says no or runs it; it does not fall over.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn damage_anywhere_is_survived() {
    let engine = engine();
    let sound = wasm("examples/late_flights");
    for step in 0..40 {
        let mut damaged = sound.clone();
        let at = 8 + (step * 7919) % (damaged.len() - 8);
        damaged[at] ^= 1 << (step % 8);
        let _ = inspect(&damaged);
        if step % 8 == 0 {
            let _ = check(&engine, &damaged);
        }
    }
}
