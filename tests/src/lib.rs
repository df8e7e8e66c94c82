//! Starts real nodes and looks at them from outside: what the rings that cross crates share.
//!
//! It owns the processes it starts, their folders and ports, and the one place where a test may poll. It must never
//! reach into the node: what a test cannot see from outside, an inner ring shows.
//!
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! let site = headwater_tests::Site::new()?;
//! let node = site.start().await?;
//! node.create_topic("events", 1, &[]).await?;
//! node.kill().await?;
//! let node = site.start().await?; // the same folder and, from the second start on, the same ports
//! assert!(node.terminate().await?.success());
//! # Ok(())
//! # }
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests reach the machine to watch processes"
)]
#![allow(clippy::print_stderr, reason = "a failed test shows what its nodes said")]

mod artifact;
mod cable;
mod http;
mod node;
mod random;
mod read;
mod site;
mod tool;
mod wait;
mod write;

pub use artifact::{module, modules, package};
pub use cable::{Cable, Metered};
pub use http::{Answer, Http};
pub use node::{Addresses, Node};
pub use random::Random;
pub use read::{client, read_all};
pub use site::{Refused, Site, join, node_binary};
pub use tool::{
    Finished, Running, headwater, headwater_in, headwater_running, kcat, operate, python, python_interpreter,
};
pub use wait::{until, within};
pub use write::write_numbers;

use std::path::PathBuf;
use std::time::Duration;

/// How long anything may take that is no measurement: generous, because a loaded machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests folder has a parent").to_owned()
}
