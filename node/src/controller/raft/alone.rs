//! Whether this node has been the quorum's only member since it began.
//!
//! Openraft takes a leader that starts again for the leader that it was, in its own term and without an election. But it may have lost
//! what it had not synced, while others hold it: then it would write something else under the same term and index, and
//! those would never notice. And one that ended before it had written an entry of its term could never commit anything.
//! So it forgets at its start that it led, and stands for election like everybody else. Only where there never were
//! others it goes on at once: that saves the start two waits for the device.
//!
//! Owns `metadata/alone`, which is there as long as that is so. It must be gone, durably, before an entry is written that names others.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::EntryPayload;

use super::Entry;
use crate::sys::disk::{self, Disk, Open};
use crate::sys::task::Tasks;

const FILE: &str = "metadata/alone";

/// What is known of it. Clones are the same.
#[derive(Clone)]
pub(super) struct Alone {
    is_alone: Arc<AtomicBool>,
    disk: Arc<dyn Disk>,
    tasks: Tasks,
}

impl Alone {
    /// Waits for the disk.
    pub(super) fn open(disk: &Arc<dyn Disk>, tasks: &Tasks) -> io::Result<Self> {
        let is_alone = disk::read_if_there(disk.as_ref(), Path::new(FILE), 0)?.is_some();
        Ok(Self {
            is_alone: Arc::new(AtomicBool::new(is_alone)),
            disk: Arc::clone(disk),
            tasks: tasks.clone(),
        })
    }

    pub(super) fn is(&self) -> bool {
        self.is_alone.load(Ordering::Acquire)
    }

    /// A quorum begins that has no other members. It counts once the folder is synced.
    pub(super) async fn begin(&self) -> io::Result<()> {
        let disk = Arc::clone(&self.disk);
        let made = move || disk.open(Path::new(FILE), Open::Create).map(drop);
        blocking(&self.tasks, "begin alone", made).await?;
        self.is_alone.store(true, Ordering::Release);
        Ok(())
    }

    /// Before these entries are written.
    pub(super) async fn write(&self, entries: &[Entry]) -> io::Result<()> {
        let names_others = |entry: &Entry| match &entry.payload {
            EntryPayload::Membership(members) => members.nodes().count() > 1,
            EntryPayload::Blank | EntryPayload::Normal(_) => false,
        };
        if !self.is() || !entries.iter().any(names_others) {
            return Ok(());
        }
        let disk = Arc::clone(&self.disk);
        let removed = move || {
            disk::remove_if_there(disk.as_ref(), Path::new(FILE))?;
            disk.sync_folder(Path::new(FILE).parent().unwrap_or_else(|| Path::new("")))
        };
        blocking(&self.tasks, "end alone", removed).await?;
        self.is_alone.store(false, Ordering::Release);
        Ok(())
    }
}

async fn blocking(
    tasks: &Tasks,
    name: &'static str,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let done = tasks.blocking(name, work).await;
    done.unwrap_or_else(|_| Err(io::Error::other("the thread died")))
}
