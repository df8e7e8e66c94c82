//! `cargo xtask sim`: builds the simulator, a side workspace with a flag of its own, and runs it.
//!
//! It owns how the simulator is built and where. What a run does is the simulator's; bugs that are put back on purpose lie
//! in `tests/sim/known_bugs`, and each must be found.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::totals::{self, Totals};
use crate::{place, step};

/// The side workspace.
const FOLDER: &str = "tests/sim";
/// Seeds that `cargo xtask test` runs: the same ones each time.
const TEST_SEEDS: &str = "24";
/// Of those, so many are run twice and compared line by line.
const TEST_SEEDS_TWICE: &str = "4";
/// For the simulator: no clients of transactions, groups and compacted topics.
const PLAIN: &str = "--plain";
/// A bug that was put back must be found within so many seeds.
const KNOWN_BUG_SEEDS: &str = "200";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["known-bugs", names @ ..] => known_bugs(names),
        ["run" | "replay" | "meta" | "swarm", ..] => start(&words),
        _ => start(&[&["swarm"], words.as_slice()].concat()),
    }
}

/// The clients that are to find a known bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// Of plain topics only.
    Plain,
    /// Of transactions, groups and compacted topics, too.
    All,
}

impl Clients {
    /// Where the bugs lie that they are to find.
    fn folder(self) -> PathBuf {
        let plain = place::root().join(FOLDER).join("known_bugs");
        match self {
            Self::Plain => plain,
            Self::All => plain.join("services"),
        }
    }
}

fn start(words: &[&str]) -> anyhow::Result<()> {
    let binary = build(&place::root(), &target(), &[])?;
    let status = Command::new(binary).args(words).status()?;
    ensure!(status.success(), "the simulator found something");
    Ok(())
}

/// That the known bugs can be put back, the simulator's own tests, then fixed seeds, of which some are run twice.
pub(crate) fn test() -> anyhow::Result<Totals> {
    let mut sum = Totals::default();
    for (_, patch) in patches(&[])? {
        let mut check = Command::new("git");
        check
            .args(["apply", "--check"])
            .arg(&patch)
            .current_dir(place::root());
        step::run("a known bug can be put back", &mut check)?;
    }
    let mut unit = cargo(&place::root(), &target(), "test");
    let (output, succeeded) = step::run_and_read("simulator, unit", &mut unit)?;
    sum += totals::of_cargo(&output).seen(succeeded);
    let binary = build(&place::root(), &target(), &[])?;
    for words in [
        ["meta", "--seeds", TEST_SEEDS_TWICE],
        ["swarm", "--seeds", TEST_SEEDS],
    ] {
        let mut command = Command::new(&binary);
        let (output, succeeded) = step::run_and_read("simulator", command.args(words))?;
        sum += totals::of_sim(&output).seen(succeeded);
    }
    Ok(sum)
}

fn target() -> PathBuf {
    place::shared_target().join("sim")
}

fn cargo(root: &Path, target: &Path, what: &str) -> Command {
    let mut command = step::cargo([what]);
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    // The simulator's own configuration says so, too; a variable that is set takes its place.
    flags.push_str(" --cfg tokio_unstable");
    command
        .current_dir(root.join(FOLDER))
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_DIR", target);
    command
}

/// Builds the simulator of one checkout; answers with its binary.
fn build(root: &Path, target: &Path, options: &[&str]) -> anyhow::Result<PathBuf> {
    step::run("simulator", cargo(root, target, "build").args(options))?;
    Ok(target.join("debug/headwater-sim"))
}

/// The known bugs of these names, or all, with the clients that are to find them.
fn patches(names: &[&str]) -> anyhow::Result<Vec<(Clients, PathBuf)>> {
    let mut patches = Vec::new();
    for clients in [Clients::Plain, Clients::All] {
        let folder = clients.folder();
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
            .filter(|path| {
                names.is_empty()
                    || names
                        .iter()
                        .any(|name| path.file_stem().is_some_and(|stem| stem == *name))
            })
            .collect();
        found.sort();
        patches.extend(found.into_iter().map(|patch| (clients, patch)));
    }
    ensure!(!patches.is_empty(), "no such known bug");
    Ok(patches)
}

/// Puts each known bug back, in a copy of the checkout, and sees to it that the simulator finds it.
fn known_bugs(names: &[&str]) -> anyhow::Result<()> {
    let patches = patches(names)?;
    let (mut found, mut missed) = (0, 0);
    let mut lines = Vec::new();
    for (clients, patch) in &patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let how = find(*clients, patch)?;
        match &how {
            Some(_) => found += 1,
            None => missed += 1,
        }
        let how = how.unwrap_or_else(|| format!("NOT FOUND within {KNOWN_BUG_SEEDS} seeds"));
        lines.push(format!("{name:<36}{how}"));
    }
    println!("\n{}", lines.join("\n"));
    println!("known-bugs result: {found} passed; {missed} failed");
    ensure!(
        missed == 0,
        "{missed} of {} known bugs were not found",
        patches.len()
    );
    Ok(())
}

/// The line by which the simulator reported the bug, if it did.
fn find(clients: Clients, patch: &Path) -> anyhow::Result<Option<String>> {
    let scratch = target().join("known-bugs");
    let tree = scratch.join("tree");
    copy(&tree)?;
    let mut apply = Command::new("git");
    apply.arg("apply").arg(patch).current_dir(&tree);
    step::run("put a bug back", &mut apply)?;
    // It is built for a few seeds: to optimise it takes longer than to run them.
    let unoptimised = ["--config", "profile.dev.package.headwater.opt-level=0"];
    let binary = build(&tree, &scratch.join("target"), &unoptimised)?;
    let mut swarm = Command::new(binary);
    swarm.args(["swarm", "--until-found", "--seeds", KNOWN_BUG_SEEDS]);
    if clients == Clients::Plain {
        swarm.arg(PLAIN);
    }
    let (output, succeeded) = step::run_and_read("look for it", &mut swarm)?;
    if succeeded {
        return Ok(None);
    }
    let found = output.lines().find(|line| line.starts_with("found"));
    Ok(Some(found.unwrap_or("found").to_owned()))
}

/// Copies what git tracks or would track; files that did not change keep their times, so that cargo builds little.
fn copy(tree: &Path) -> anyhow::Result<()> {
    let root = place::root();
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ])
        .current_dir(&root)
        .output()
        .context("cannot start git")?;
    ensure!(listed.status.success(), "git cannot list the checkout");
    for name in listed
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = std::str::from_utf8(name).context("a file's name is not text")?;
        let (from, to) = (root.join(name), tree.join(name));
        let Ok(new) = std::fs::read(&from) else { continue };
        if std::fs::read(&to).is_ok_and(|old| old == new) {
            continue;
        }
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&to, new)?;
    }
    // Patches are applied in a repository only.
    if !tree.join(".git").exists() {
        let mut init = Command::new("git");
        step::run("scratch copy", init.args(["init", "--quiet"]).current_dir(tree))?;
    }
    Ok(())
}
