//! The arrows of the node: which module may import which. The table here is the law that `node/ARCHITECTURE.md` explains.
//!
//! It owns the table and the reader of `crate::` paths. It must never be widened to let a change pass: a new arrow is a
//! decision, recorded in the architecture first.

use crate::source::{Source, identifier, words};

/// A module of `node/src` and what it may import. `security::tls` allows that part of `security` only.
const ARROWS: &[(&str, &[&str])] = &[
    ("sys", &["telemetry"]),
    ("config", &[]),
    ("telemetry", &[]),
    ("log", &["sys", "config", "telemetry"]),
    // Who the other end is, by its certificate: facts, no rights.
    (
        "transport",
        &[
            "security::tls",
            "security::identity",
            "sys",
            "config",
            "telemetry",
        ],
    ),
    ("security", &["sys", "config", "telemetry"]),
    (
        "peer",
        &[
            "transport",
            "metadata",
            "security::tls",
            "sys",
            "config",
            "telemetry",
        ],
    ),
    ("metadata", &["sys"]),
    ("partition", &["log", "metadata", "sys", "config", "telemetry"]),
    (
        "replication",
        &["partition", "peer", "metadata", "sys", "config", "telemetry"],
    ),
    (
        "controller",
        &["log", "peer", "metadata", "sys", "config", "telemetry"],
    ),
    (
        "coordination",
        &[
            "partition",
            "controller",
            "metadata",
            "sys",
            "config",
            "telemetry",
        ],
    ),
    ("group", GROUP),
    ("share", TRANSACTION),
    ("transaction", TRANSACTION),
    ("schema", SERVICE),
    ("transform", GROUP),
    ("link", LINK),
    ("server", EDGE),
    ("http", EDGE),
];

const SERVICE: &[&str] = &[
    "partition",
    "controller",
    "metadata",
    "security::principal",
    "sys",
    "config",
    "telemetry",
];
const GROUP: &[&str] = &[
    "coordination",
    "partition",
    "controller",
    "metadata",
    "security::principal",
    "sys",
    "config",
    "telemetry",
];
const TRANSACTION: &[&str] = &[
    "coordination",
    "partition",
    "controller",
    "metadata",
    "security::principal",
    "peer",
    "sys",
    "config",
    "telemetry",
];
/// A link holds the connection that its site dialed, and enrols sites with the authority's certificates.
const LINK: &[&str] = &[
    "partition",
    "controller",
    "metadata",
    "security",
    "transport",
    "sys",
    "config",
    "telemetry",
];
const EDGE: &[&str] = &[
    "group",
    "share",
    "transaction",
    "schema",
    "transform",
    "link",
    "partition",
    "replication",
    "controller",
    "peer",
    "metadata",
    "security",
    "transport",
    "sys",
    "config",
    "telemetry",
];

/// The top of the house: it may import everything, and nothing imports it.
const TOP: &[&str] = &["lib", "main", "node", "cli"];

/// Crates that belong to some modules only.
const CRATES: &[(&str, &[&str])] = &[
    ("axum", &["http"]),
    ("headwater_sdk", &["link", "cli"]),
    ("quinn", &["transport"]),
    ("wasmparser", &["transform"]),
    ("wasmtime", &["transform"]),
];

/// What one file of `node/src` imports against the table. `path` is relative to `node/src`. Test code is free: it may
/// need a neighbour to stand for the outside.
pub(crate) fn broken(path: &str, source: &Source) -> Vec<String> {
    let module = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    let mut wrong = Vec::new();
    if !TOP.contains(&module) {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            return vec![format!(
                "node/src/{path}: `{module}` is not in the table of arrows (tests/tidy/arrows.rs)"
            )];
        };
        for (at, first, second) in imports(source) {
            let fits = |arrow: &&str| **arrow == *first || **arrow == *format!("{first}::{second}");
            if first != module && !allowed.iter().any(fits) && !source.is_test(at) {
                wrong.push(format!(
                    "node/src/{path}:{}: {module} must not import {first}::{second}",
                    source.line(at)
                ));
            }
        }
        wrong.extend(climbs(path, source));
    }
    for (name, homes) in CRATES {
        if homes.contains(&module) {
            continue;
        }
        for at in words(&source.code, name).filter(|at| source.code[at + name.len()..].starts_with("::")) {
            wrong.push(format!(
                "node/src/{path}:{}: crate {name} belongs to {}",
                source.line(at),
                homes.join(", ")
            ));
        }
    }
    wrong
}

/// Every `crate::first::second` a file names, in `use` trees and elsewhere; `second` is empty when there is none.
fn imports(source: &Source) -> Vec<(usize, String, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let rest = &code[at + 5..];
        if code[..at].ends_with('$') {
            continue;
        }
        let Some(tree) = rest.strip_prefix("::") else {
            continue;
        };
        for branch in branches(tree) {
            let first = identifier(branch);
            let below = branch[first.len()..].trim_start();
            let Some(below) = below.strip_prefix("::") else {
                found.push((at, first.to_owned(), String::new()));
                continue;
            };
            for branch in branches(below) {
                found.push((at, first.to_owned(), identifier(branch).to_owned()));
            }
        }
    }
    found
}

/// The members of a `{a, b::{c}}` group that a text begins with; the text itself when it begins with a name.
fn branches(text: &str) -> Vec<&str> {
    let text = text.trim_start();
    let Some(inside) = text.strip_prefix('{') else {
        return vec![text];
    };
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                found.push(inside[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.is_empty());
    found
}

/// `super::super::...` that reaches the crate's root, where the table cannot see what it takes.
fn climbs(path: &str, source: &Source) -> Vec<String> {
    let depth = path.split('/').count();
    let mut wrong = Vec::new();
    for at in words(&source.code, "super") {
        let before = source.code[..at].trim_end();
        if before.ends_with("super::") {
            continue;
        }
        let steps = source.code[at..]
            .split("::")
            .take_while(|step| step.trim() == "super")
            .count();
        if steps >= depth + source.inline_depth(at) {
            wrong.push(format!(
                "node/src/{path}:{}: write crate:: in place of super:: here",
                source.line(at)
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, code: &str, expected: &[&str]) {
        let wrong = broken(path, &Source::scan(code));
        assert_eq!(wrong.len(), expected.len(), "{code}: {wrong:?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.contains(expected), "{wrong} does not say {expected}");
        }
    }

    #[test]
    fn arrows_point_down() {
        check(
            "log/segment.rs",
            "use crate::sys::disk::Disk;\nuse crate::log::index;",
            &[],
        );
        check(
            "log.rs",
            "use crate::partition::Partition;",
            &["log.rs:1: log must not import partition::Partition"],
        );
        check("log.rs", "fn f() { crate::http::x() }", &["http::x"]);
        check(
            "server/handlers/fetch.rs",
            "use crate::log::Log;",
            &["server must not import log::Log"],
        );
        check("node.rs", "use crate::http::x;", &[]);
        check("attic.rs", "", &["not in the table"]);
    }

    #[test]
    fn groups_are_read_to_the_bottom() {
        let code =
            "use crate::{sys::{clock, disk::Disk}, transform::{self, engine}, telemetry};\nuse crate::link;";
        check(
            "schema.rs",
            code,
            &["transform::self", "transform::engine", "link::"],
        );
        check(
            "transform.rs",
            "use crate::security::{principal::Principal, tls};",
            &["security::tls"],
        );
        check("transport/tcp.rs", "use crate::security::{tls::Acceptor};", &[]);
    }

    #[test]
    fn comments_strings_and_macros_do_not_import() {
        check(
            "log.rs",
            "// crate::http::x\nconst A: &str = \"crate::http\";\npub(crate) fn f() {}",
            &[],
        );
    }

    #[test]
    fn test_code_is_free() {
        check(
            "log.rs",
            "#[cfg(test)]\nmod tests { use crate::partition::Partition; }",
            &[],
        );
    }

    #[test]
    fn no_way_round_by_super_or_by_crate() {
        check(
            "log/segment.rs",
            "use super::super::http::x;",
            &["crate:: in place of super::"],
        );
        check(
            "log/segment.rs",
            "use super::index;\nmod tests { use super::*; use super::super::index; }",
            &[],
        );
        check(
            "partition.rs",
            "use wasmtime::Engine;",
            &["wasmtime belongs to transform"],
        );
        check("transform/engine.rs", "use wasmtime::Engine;", &[]);
    }
}
