//! What the tests of transforms share: real modules, an engine, a machine to run on.
//! A test that needs a module must fail when it was not built, and say how to build it.

pub(crate) mod hostile;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::PartitionIndex;

use super::engine::Engine;
use super::instance::{Module, Setup};
use super::logs::{LogRing, Logger};
use super::validate::{self, Validated};
use crate::sys::clock::Clock;
use crate::sys::disk::{self, os::OsDisk};
use crate::sys::task::{Blocking, Tasks};

/// The bytes of a module that `cargo xtask modules` has built, by its path without the ending.
pub(crate) fn wasm(name: &str) -> Vec<u8> {
    let executable = std::env::current_exe().expect("a test knows its own file");
    let target = executable
        .ancestors()
        .nth(3)
        .expect("tests lie in target/PROFILE/deps")
        .to_owned();
    let path = PathBuf::from("modules").join(name).with_extension("wasm");
    disk::read(&OsDisk::new(&target), &path, 64 << 20).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: build it with `cargo xtask modules`",
            target.join(path).display()
        )
    })
}

/// An engine whose ticker runs until the test ends.
pub(crate) fn engine() -> Arc<Engine> {
    let tasks = Tasks::root("test", Blocking::Threads);
    Arc::new(Engine::start(&tasks, &Clock::system()).expect("the engine starts on this machine"))
}

/// An engine for the oldest machine of this architecture.
pub(crate) fn plain_engine() -> Arc<Engine> {
    let tasks = Tasks::root("test", Blocking::Threads);
    Arc::new(Engine::start_plain(&tasks, &Clock::system()).expect("the engine starts on this machine"))
}

/// Validates a module that is sound.
pub(crate) fn validated(engine: &Arc<Engine>, name: &str) -> Validated {
    let validated = validate::validate(engine, &Clock::system(), &wasm(name));
    validated.unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn module(engine: &Arc<Engine>, name: &str) -> Module {
    linked(engine, &validated(engine, name))
}

/// A module that was written as text, and is sound as far as an upload can show.
pub(crate) fn written(engine: &Arc<Engine>, guest: &text::Guest<'_>) -> Module {
    let validated = validate::validate(engine, &Clock::system(), &guest.wasm());
    linked(
        engine,
        &validated.unwrap_or_else(|error| panic!("{guest:?}: {error}")),
    )
}

fn linked(engine: &Arc<Engine>, validated: &Validated) -> Module {
    let component = engine
        .load(&validated.compiled)
        .expect("this engine has compiled it");
    Module::link(Arc::clone(engine), &component, validated.facts.world).expect("it was validated")
}

/// Limits like those of a deployment, and no parameters or tables.
pub(crate) fn setup() -> Setup {
    Setup {
        memory_bytes_max: 32 << 20,
        cpu_per_call: Duration::from_millis(100),
        answer_bytes_max: 4 << 20,
        params: Vec::new(),
        tables: Arc::new(BTreeMap::new()),
        logger: Logger::new(
            "test",
            PartitionIndex(0),
            Arc::new(LogRing::default()),
            Clock::system(),
        ),
    }
}
