//! One client's history: events as lines of JSON in a file, and the clock that all clients share.
//!
//! It owns the file. A line is in the buffer before the call that it is about is made; what a client that ends badly has
//! not flushed is lost with it, so a run whose clients end badly is no run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use headwater_checker::{Event, Kind};
use rustix::time::{ClockId, clock_gettime};

const BUFFER_BYTES: usize = 1 << 20;

/// Microseconds of the machine's monotonic clock: the one that Python's `time.monotonic_ns` reads too.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// A history that is being written. Cheap to clone; the clones share it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    client: Arc<str>,
    file: Arc<Mutex<BufWriter<File>>>,
}

impl History {
    pub(crate) fn new(folder: &Path, client: &str) -> anyhow::Result<Self> {
        let path = path(folder, client);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            client: client.into(),
            file: Arc::new(Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, file))),
        })
    }

    /// Writes an event of this client; `fill` says what belongs to its kind.
    pub(crate) fn event<'a>(
        &'a self,
        kind: Kind,
        partition: u32,
        fill: impl FnOnce(&mut Event<'a>),
    ) -> anyhow::Result<()> {
        let mut event = Event::new(kind, &self.client, partition);
        fill(&mut event);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_writer(&mut *file, &event)?;
        file.write_all(b"\n")?;
        Ok(())
    }

    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        Ok(self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()?)
    }
}

/// Where the history of a client is.
pub(crate) fn path(folder: &Path, client: &str) -> PathBuf {
    folder.join(format!("{client}.history"))
}
