//! Whether this node has been the quorum's only member since it began.
//!
//! Openraft takes a leader that starts again for the leader that it was, in its own term and without an election. But it may have lost
//! what it had not synced, while others hold it: then it would write something else under the same term and index, and
//! those would never notice.
//! So it forgets at its start that it led, and stands for election like everybody else. Only where there never were
//! others it goes on at once: that saves the start two waits for the device.
//!
//! Owns `metadata/alone`, which is there as long as that is so. It must be gone, durably, before an entry is written that names others.

use std::io;
use std::sync::Arc;

use openraft::EntryPayload;

use super::Entry;
use super::mark::Mark;
use crate::sys::disk::Disk;
use crate::sys::task::Tasks;

const FILE: &str = "metadata/alone";

/// What is known of it. Clones are the same.
#[derive(Clone)]
pub(super) struct Alone {
    mark: Mark,
}

impl Alone {
    /// Where there is no log, none was begun alone. Waits for the disk.
    pub(super) fn open(disk: &Arc<dyn Disk>, tasks: &Tasks, has_nothing: bool) -> io::Result<Self> {
        let (mark, found) = Mark::open(FILE, disk, tasks)?;
        if has_nothing && found.is_some() {
            mark.clear_waiting()?;
        }
        Ok(Self { mark })
    }

    pub(super) fn is(&self) -> bool {
        self.mark.is_set()
    }

    /// A quorum begins that has no other members. It counts once the folder is synced: without it there is an election too many.
    pub(super) async fn begin(&self) -> io::Result<()> {
        self.mark.touch().await
    }

    /// Before these entries are written.
    pub(super) async fn write(&self, entries: &[Entry]) -> io::Result<()> {
        let names_others = |entry: &Entry| match &entry.payload {
            EntryPayload::Membership(members) => members.nodes().count() > 1,
            EntryPayload::Blank | EntryPayload::Normal(_) => false,
        };
        match entries.iter().any(names_others) {
            true => self.end().await,
            false => Ok(()),
        }
    }

    /// Before another one's log is taken over.
    pub(super) async fn end(&self) -> io::Result<()> {
        self.mark.clear().await.map(drop)
    }
}
