//! Every kind of upload, sound and not, with the code and the words its author gets.

use super::super::testing::text::{Guest, assemble};
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

/// A sound module as text, with one piece of it replaced.
fn with(piece: &str, instead: &str) -> Vec<u8> {
    let text = Guest::map("").text();
    assert!(text.contains(piece), "{piece}");
    assemble(&text.replacen(piece, instead, 1))
}

/// A sound module that imports something besides.
fn importing(import: &str) -> Vec<u8> {
    with("(component", &format!("(component {import}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_module_that_wants_more_than_there_is_is_refused() {
    let engine = engine();
    assert!(check(&engine, &Guest::map("").wasm()).is_ok());
    let function = "(instance (export \"now\" (func (result u64))))";
    for name in [
        "wasi:clocks/monotonic-clock@0.2.0",
        "wasi:clocks/wall-clock@0.2.0",
        "wasi:random/random@0.2.0",
        "wasi:random/insecure-seed@0.2.0",
        "wasi:cli/environment@0.2.0",
        "wasi:filesystem/preopens@0.2.0",
        "wasi:sockets/tcp@0.2.0",
        "headwater:module/clock@1.0.0",
        "now",
    ] {
        let error = check(&engine, &importing(&format!("(import \"{name}\" {function})")));
        let error = error.map(drop).expect_err(name);
        assert_eq!(error.code(), "FORBIDDEN_IMPORT", "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.hint().is_some(), name.starts_with("wasi:"), "{name}");
    }
    let long = "a".repeat(5_000);
    let many: String = (0..100)
        .map(|number| format!("(import \"{long}{number}\" {function})"))
        .collect();
    let error = check(&engine, &importing(&many)).map(drop).unwrap_err();
    assert!(error.to_string().len() < 4_000, "{error:.200}");
    let memory = "(memory (export \"memory\") 2)";
    let describe = |does: &'static str| {
        let guest = Guest {
            describe: does,
            ..Guest::map("")
        };
        guest.wasm()
    };
    let more = |more: &'static str| {
        let guest = Guest {
            more,
            ..Guest::map("")
        };
        guest.wasm()
    };
    let cases = [
        (
            "a later state",
            importing(&format!("(import \"headwater:module/state@2.0.0\" {function})")),
            "OTHER_VERSION",
            "2.0.0",
        ),
        (
            "a function of the state that is not there",
            with(
                "(export \"put-many\" (func",
                "(export \"steal\" (func)) (export \"put-many\" (func",
            ),
            "WRONG_SIGNATURE",
            "steal",
        ),
        (
            "one with a name without end",
            with(
                "(export \"put-many\" (func",
                &format!("(export \"{long}\" (func)) (export \"put-many\" (func"),
            ),
            "WRONG_SIGNATURE",
            "aaaa",
        ),
        (
            "a version without end",
            importing(&format!(
                "(import \"headwater:module/state@2.0.0-{long}\" {function})"
            )),
            "OTHER_VERSION",
            "2.0.0-aaaa",
        ),
        (
            "another form of put-many",
            with("(param \"entries\" (list u8))", "(param \"entries\" string)"),
            "WRONG_SIGNATURE",
            "put-many",
        ),
        (
            "no call",
            with("(export \"transform\" (func $call))", ""),
            "WRONG_SIGNATURE",
            "no function transform",
        ),
        (
            "another form of the call",
            with("(param \"input\" $bytes)", "(param \"input\" string)"),
            "WRONG_SIGNATURE",
            "transform: type mismatch with parameters",
        ),
        (
            "two worlds",
            with(
                "(export \"headwater:module/mapping@1.0.0\"",
                "(export \"headwater:module/filter@1.0.0\" (instance $world)) (export \"headwater:module/mapping@1.0.0\"",
            ),
            "SEVERAL_WORLDS",
            "mapping",
        ),
        (
            "more memory than any module may have",
            with(memory, "(memory (export \"memory\") 20000)"),
            "CANNOT_COMPILE",
            "memory",
        ),
        (
            "more memory than it may be described in",
            with(memory, "(memory (export \"memory\") 2000)"),
            "DESCRIBE_FAILED",
            "more than its 67108864 bytes of memory",
        ),
        (
            "two memories",
            with(memory, "(memory (export \"memory\") 2) (memory 1)"),
            "CANNOT_COMPILE",
            "memor",
        ),
        (
            "a memory of 64 bits",
            with(
                "(core instance $store",
                "(core module (memory i64 1)) (core instance $store",
            ),
            "INVALID_WASM",
            "memory64",
        ),
        (
            "a shared memory",
            with(
                "(core instance $store",
                "(core module (memory 1 1 shared)) (core instance $store",
            ),
            "INVALID_WASM",
            "threads",
        ),
        (
            "a start that loops",
            more("(start $on) (func $on (loop $on (br $on)))"),
            "DESCRIBE_FAILED",
            "CPU time",
        ),
        (
            "a start that traps",
            more("(start $on) (func $on unreachable)"),
            "DESCRIBE_FAILED",
            "unreachable",
        ),
        (
            "a table without end",
            more("(table 200000 funcref)"),
            "CANNOT_COMPILE",
            "table",
        ),
        (
            "a description that lies nowhere",
            describe("(i32.store (i32.const 1024) (i32.const -9))"),
            "DESCRIBE_FAILED",
            "trapped",
        ),
        (
            "a name without end",
            describe(
                "(i32.store (i32.const 1024) (i32.const 8192)) (i32.store (i32.const 1028) (i32.const 80000))",
            ),
            "BAD_DESCRIBE",
            "the name",
        ),
        (
            "a version of noughts",
            describe(
                "(i32.store (i32.const 1032) (i32.const 8192)) (i32.store (i32.const 1036) (i32.const 80000))",
            ),
            "BAD_DESCRIBE",
            "the version",
        ),
        (
            "parameters that are too many",
            describe(
                "(i32.store (i32.const 1048) (i32.const 8192)) (i32.store (i32.const 1052) (i32.const 101))",
            ),
            "BAD_DESCRIBE",
            "more than 100",
        ),
    ];
    for (name, wasm, code, words) in cases {
        let error = check(&engine, &wasm).map(drop).expect_err(name);
        let said = error.to_string();
        assert_eq!(error.code(), code, "{name}: {said:.500}");
        assert!(said.contains(words), "{name}: {said:.500}");
        assert!(said.len() < 2_000, "{name}: {} bytes are said", said.len());
    }
    let pool = engine.wasm().pooling_allocator_metrics();
    assert_eq!(pool.map(|pool| pool.component_instances()), Some(0));
}
