//! The door to the machine: clock, random numbers, tasks, disk, net and processes.
//!
//! Everything that reaches outside the process is handed out here, as a value, so that a whole cluster can
//! run in a simulator on one seed. It owns the only use of the machine's own interfaces; it must never know
//! what the node does with them, and holds nothing global.

pub mod budget;
pub mod buffers;
pub mod clock;
pub mod disk;
pub mod mailbox;
pub mod memory;
pub mod net;
pub mod pace;
pub mod process;
pub mod random;
pub mod task;

use std::path::Path;
use std::sync::Arc;

use clock::Clock;
use disk::Disk;
use net::Net;
use process::Program;
use random::Random;
use task::{Blocking, Tasks};

/// One machine, as a node sees it. Cheap to clone; clones are the same machine.
#[derive(Clone, Debug)]
pub struct Sys {
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub disk: Arc<dyn Disk>,
    pub net: Net,
    /// What heavy work is given to, in a process of its own. None: it is done in this one.
    pub program: Option<Program>,
}

impl Sys {
    /// The real machine. Relative paths are taken from `root`.
    pub fn real(root: &Path) -> Self {
        Self {
            clock: Clock::system(),
            random: Random::from_machine(),
            tasks: Tasks::root("node", Blocking::Threads),
            disk: Arc::new(disk::os::OsDisk::new(root)),
            net: Net::real(),
            program: None,
        }
    }

    /// A machine for tests: everything follows from `seed`, files live in memory, file work runs where it
    /// is asked for. The clock stands still until it is moved.
    pub fn simulated(seed: u64) -> Self {
        let random = Random::seeded(seed);
        Self {
            clock: Clock::manual(1_700_000_000_000),
            tasks: Tasks::root("node", Blocking::Inline),
            disk: Arc::new(disk::memory::MemoryDisk::new(random.fork())),
            net: Net::real(),
            program: None,
            random,
        }
    }
}
