//! The house rules as a test: arrows, sizes, headers, doors, and what must never be committed.
//!
//! It owns the rules' limits and the lists of exceptions, each with its reason; the lists may only shrink. It must
//! never be loosened to let a change pass.

#![allow(clippy::disallowed_methods, reason = "a test that reads the checkout")]

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use source::words;
use tree::File;

/// Lines of a file that are not test code.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, from `fn` to its closing brace. A test's table of cases may be longer.
const FUNCTION_LINES_MAX: usize = 70;
/// Bytes of any tracked file. Data for tests is a slice, never the whole.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Functions above the limit, with the lines they have. None may grow; one that shrank leaves the list.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Files above the limit, with the lines they have.
const LONG_FILES: &[(&str, usize)] = &[];

/// Files with `unsafe` in them, each with the reason.
const UNSAFE: &[(&str, &str)] = &[
    (
        "node/src/sys/memory.rs",
        "tells the allocator how many heaps to make",
    ),
    (
        "node/src/transform/engine.rs",
        "loads code that this node has compiled itself",
    ),
    (
        "tests/sim/src/entropy.rs",
        "stands in for the C library's entropy",
    ),
    (
        "wasm-modules/examples/hostile/core/src/lib.rs",
        "an export needs its plain name",
    ),
    (
        "wasm-modules/examples/hostile/wild_pointer.rs",
        "hands the host a wild pointer, on purpose",
    ),
];

/// Where the doors of `.clippy.toml` may be opened by attribute.
const DOORS: &[(&str, &str)] = &[
    ("node/src/sys.rs", "the door itself"),
    ("node/src/sys/", "the door itself"),
    ("sdk/src/door.rs", "the client's own door: it has no node to ask"),
    ("sdk/src/testing", "the scripted broker of the SDK's tests"),
    ("node/examples/", "tools that measure, for the terminal"),
    ("node/benches/", "a bench measures the machine"),
    ("deploy/xtask/", "a tool for the terminal"),
    ("node/build.rs", "it runs before there is a node"),
    ("wasm-modules/golden/", "tests read their files"),
    (
        "tests/",
        "tests reach the machine to start and watch real processes",
    ),
];

/// What may stand at the top of the checkout.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "deploy",
    "node",
    "sdk",
    "tests",
    "wasm-modules",
    "web-ui",
];

/// Words that say that something is not finished; split so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
    concat!("dbg", "!("),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ign", "ore"),
];

/// Places of one machine or one session.
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tm", "p/bash_jobs"),
    concat!("/ho", "me/"),
    concat!("../sha", "red"),
];

/// Fails with every broken rule, one a line.
fn hold(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn each(check: impl Fn(&File) -> Vec<String>) {
    let files = tree::files().expect("the checkout can be listed");
    assert!(files.len() > 10, "only {} files listed", files.len());
    hold(files.iter().flat_map(check).collect());
}

#[test]
fn arrows_of_the_node_point_down() {
    each(|file| match (file.path.strip_prefix("node/src/"), &file.rust) {
        (Some(path), Some(source)) if !file.is_test() => arrows::broken(path, source),
        _ => Vec::new(),
    });
}

#[test]
fn files_are_short() {
    each(|file| {
        let lines = match &file.rust {
            Some(_) if file.is_test() => return Vec::new(),
            Some(source) => source.product_lines(),
            None if [".ts", ".svelte", ".css", ".py"]
                .iter()
                .any(|end| file.path.ends_with(end)) =>
            {
                file.text.lines().count()
            }
            None => return Vec::new(),
        };
        if file.is_generated() {
            return Vec::new();
        }
        let known = LONG_FILES
            .iter()
            .find(|(path, _)| *path == file.path)
            .map(|(_, lines)| *lines);
        ratchet(&file.path, lines, FILE_LINES_MAX, known)
    });
}

#[test]
fn functions_are_short() {
    each(|file| {
        let Some(source) = file
            .rust
            .as_ref()
            .filter(|_| !file.is_generated() && !file.is_test())
        else {
            return Vec::new();
        };
        let functions = source
            .functions()
            .into_iter()
            .filter(|function| !source.is_test(function.at));
        functions
            .flat_map(|function| {
                let known = LONG_FUNCTIONS
                    .iter()
                    .find(|(path, name, _)| *path == file.path && *name == function.name);
                let place = format!("{}:{}: fn {}", file.path, source.line(function.at), function.name);
                ratchet(
                    &place,
                    function.lines,
                    FUNCTION_LINES_MAX,
                    known.map(|(_, _, lines)| *lines),
                )
            })
            .collect()
    });
}

/// What is above the limit must be listed at its present size: it may shrink, never grow.
fn ratchet(what: &str, size: usize, limit: usize, listed: Option<usize>) -> Vec<String> {
    match listed {
        None if size > limit => vec![format!("{what}: {size} lines, the limit is {limit}")],
        Some(listed) if size > listed => vec![format!("{what}: grew from {listed} to {size} lines")],
        Some(listed) if size < listed => vec![format!(
            "{what}: shrank from {listed} to {size} lines: update tidy.rs"
        )],
        _ => Vec::new(),
    }
}

#[test]
fn each_file_opens_by_saying_what_it_is_for() {
    each(|file| {
        let opens = file
            .text
            .lines()
            .find(|line| !line.trim().is_empty())
            .is_some_and(|line| line.starts_with("//!"));
        if file.rust.is_none() || file.is_generated() || opens {
            return Vec::new();
        }
        vec![format!("{}: begins without a //! header", file.path)]
    });
}

#[test]
fn modules_are_files_beside_their_folder() {
    each(|file| match file.path.ends_with("/mod.rs") {
        true => vec![format!("{}: name it after its folder, beside it", file.path)],
        false => Vec::new(),
    });
}

#[test]
fn no_file_is_dead() {
    let files = tree::files().expect("the checkout can be listed");
    let sources: BTreeMap<&str, &File> = files
        .iter()
        .filter(|file| file.rust.is_some())
        .map(|file| (file.path.as_str(), file))
        .collect();
    let mut wrong = Vec::new();
    for path in sources.keys() {
        let Some((crate_root, inside)) = path.split_once("/src/") else {
            continue;
        };
        if ["lib.rs", "main.rs"].contains(&inside) || inside.starts_with("bin/") {
            continue;
        }
        let (folder, name) = inside.rsplit_once('/').unwrap_or(("", inside));
        let parents = match folder {
            "" => vec![
                format!("{crate_root}/src/lib.rs"),
                format!("{crate_root}/src/main.rs"),
            ],
            folder => vec![format!("{crate_root}/src/{folder}.rs")],
        };
        let declares = |parent: &String| {
            let source = sources.get(parent.as_str()).and_then(|file| file.rust.as_ref());
            source.is_some_and(|source| {
                source
                    .declared_modules()
                    .iter()
                    .any(|(module, _)| *module == name.trim_end_matches(".rs"))
            })
        };
        if !parents.iter().any(declares) {
            wrong.push(format!("{path}: no `mod` in {} names it", parents.join(" or ")));
        }
    }
    hold(wrong);
}

#[test]
fn unsafe_code_is_listed() {
    each(|file| {
        let Some(source) = &file.rust else {
            return Vec::new();
        };
        let listed = UNSAFE.iter().any(|(path, _)| *path == file.path);
        // In a block, an impl or a function; the name of the lint is another word.
        match (words(&source.code, "unsafe").next(), listed) {
            (Some(at), false) => vec![format!(
                "{}:{}: unsafe, and not listed",
                file.path,
                source.line(at)
            )],
            (None, true) => vec![format!("{}: listed as unsafe, and has none", file.path)],
            _ => Vec::new(),
        }
    });
}

#[test]
fn doors_are_opened_only_where_listed() {
    each(|file| {
        let Some(source) = &file.rust else {
            return Vec::new();
        };
        if file.is_test() || DOORS.iter().any(|(path, _)| file.path.starts_with(path)) {
            return Vec::new();
        }
        let lints = [
            "disallowed_methods",
            "disallowed_types",
            "disallowed_macros",
            "iter_over_hash_type",
        ];
        let opened = lints.into_iter().flat_map(|lint| words(&source.code, lint));
        opened
            .filter(|at| !source.is_test(*at))
            .map(|at| {
                format!(
                    "{}:{}: opens a door that is closed here",
                    file.path,
                    source.line(at)
                )
            })
            .collect()
    });
}

#[test]
fn metric_names_stand_once_in_telemetry() {
    let files = tree::files().expect("the checkout can be listed");
    let mut wrong = Vec::new();
    let mut declared = BTreeSet::new();
    for file in files
        .iter()
        .filter(|file| file.path.starts_with("node/src/") && !file.is_test())
    {
        let Some(source) = &file.rust else { continue };
        let inside = file.path.starts_with("node/src/telemetry");
        for (at, name) in source
            .strings
            .iter()
            .filter(|(at, string)| is_metric(string) && !source.is_test(*at))
        {
            let place = format!("{}:{}", file.path, source.line(*at));
            if !inside {
                wrong.push(format!("{place}: metric {name} is named outside telemetry"));
            } else if !declared.insert(name.clone()) {
                wrong.push(format!("{place}: metric {name} is named twice"));
            }
        }
    }
    hold(wrong);
}

fn is_metric(string: &str) -> bool {
    let crates = ["headwater_sdk", "headwater_protocol", "headwater_tests"];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    string.len() > "headwater_".len()
        && string.starts_with("headwater_")
        && string.chars().all(plain)
        && !crates.contains(&string)
}

#[test]
fn nothing_is_left_unfinished() {
    each(|file| {
        if ![".rs", ".ts", ".svelte", ".py", ".js", ".toml", ".wit"]
            .iter()
            .any(|end| file.path.ends_with(end))
        {
            return Vec::new();
        }
        found(file, UNFINISHED, "unfinished by its own words")
    });
}

#[test]
fn no_file_names_a_place_that_no_user_has() {
    each(|file| found(file, PLACES, "names a place of one machine"));
}

fn found(file: &File, patterns: &[&str], what: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        if let Some(pattern) = patterns.iter().find(|pattern| stands(line, pattern)) {
            wrong.push(format!("{}:{}: {what}: {pattern}", file.path, number + 1));
        }
    }
    wrong
}

/// Whether a pattern stands in a line by itself: not as the tail of a longer word or path.
fn stands(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || (pattern.starts_with('/') && c == '.'))
    })
}

#[test]
fn packages_come_from_the_public_registries() {
    each(|file| {
        let allowed = match file.path.rsplit('/').next() {
            Some("Cargo.lock") => "registry+https://github.com/rust-lang/crates.io-index",
            Some("package-lock.json") => "https://registry.npmjs.org/",
            _ => return Vec::new(),
        };
        let mut wrong = Vec::new();
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim();
            let from = line
                .strip_prefix("source = \"")
                .or_else(|| line.strip_prefix("\"resolved\": \""));
            if from.is_some_and(|from| !from.starts_with(allowed)) {
                wrong.push(format!("{}:{}: not from {allowed}", file.path, number + 1));
            }
        }
        wrong
    });
}

#[test]
fn the_top_of_the_checkout_holds_what_the_design_allows() {
    each(|file| {
        let top = file.path.split('/').next().unwrap_or("");
        if top.starts_with('.') || TOP.contains(&top) {
            return Vec::new();
        }
        vec![format!("{}: `{top}` does not belong at the top", file.path)]
    });
}

#[test]
fn no_file_is_large() {
    each(|file| match file.bytes > FILE_BYTES_MAX {
        true => vec![format!(
            "{}: {} bytes, the limit is {FILE_BYTES_MAX}",
            file.path, file.bytes
        )],
        false => Vec::new(),
    });
}

/// The rules themselves, on made-up files: each can fail.
mod rules {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        let rust = path.ends_with(".rs").then(|| source::Source::scan(text));
        File {
            path: path.to_owned(),
            text: text.to_owned(),
            bytes: 0,
            rust,
            is_cfg_test: false,
        }
    }

    #[test]
    fn a_ratchet_lets_nothing_grow() {
        assert!(ratchet("f", 70, 70, None).is_empty());
        assert_eq!(ratchet("f", 71, 70, None).len(), 1);
        assert!(ratchet("f", 90, 70, Some(90)).is_empty());
        assert_eq!(ratchet("f", 91, 70, Some(90)).len(), 1);
        assert_eq!(ratchet("f", 60, 70, Some(90)).len(), 1);
    }

    #[test]
    fn words_and_places_are_found_by_themselves_only() {
        let unfinished = format!("let a = 1; // {} later\nlet MAXXXL = 2;\n", concat!("FIX", "ME"));
        assert_eq!(found(&file("a.rs", &unfinished), UNFINISHED, "x").len(), 1);
        let places = format!("cp {}main .\nbase/network/x\n./home/x\n", concat!("/wo", "rk/"));
        assert_eq!(found(&file("a.md", &places), PLACES, "x").len(), 1);
    }

    #[test]
    fn metrics_are_told_from_crates() {
        assert!(is_metric("headwater_bytes_in_total"));
        assert!(!is_metric("headwater_sdk"));
        assert!(!is_metric("headwater_sdk=debug"));
        assert!(!is_metric("headwater_"));
    }

    #[test]
    fn generated_and_test_files_are_known() {
        assert!(file("sdk/a.rs", concat!("// @", "generated\n")).is_generated());
        assert!(!file("sdk/a.rs", "fn a() {}").is_generated());
        assert!(file("sdk/tests/golden.rs", "").is_test());
        let parent = file("node/src/log.rs", "mod index;\n#[cfg(test)]\nmod model;\n");
        assert_eq!(tree::declared_for_tests(&parent), ["node/src/log/model"]);
        let root = file("sdk/src/lib.rs", "#[cfg(test)]\nmod testing;\n");
        assert_eq!(tree::declared_for_tests(&root), ["sdk/src/testing"]);
        assert!(!file("node/src/log.rs", "").is_test());
    }
}
