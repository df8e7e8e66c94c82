//! How far the log was known to be committed, for the next start.
//!
//! Owns one note ([`super::note`]): an older value is as true as a newer one, since what is committed stays so. It must
//! never be above what was committed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_protocol::ids::Offset;

use super::{Log, note};
use crate::sys::disk::{self, Disk};

const NAME: &str = "high-watermark";

impl Log {
    /// Writes down that everything below `offset` is committed. Not synced.
    pub fn store_high_watermark(&self, offset: Offset) -> io::Result<()> {
        let shared = &self.shared;
        note::write(&*shared.logs.disk, &path(&shared.folder), offset.value())
    }

    /// What was written down last, as far as the log reaches.
    pub fn high_watermark(&self) -> io::Result<Offset> {
        let shared = &self.shared;
        let stored = note::read(&*shared.logs.disk, &path(&shared.folder))?;
        Ok(stored
            .map_or_else(|| self.start(), Offset)
            .clamp(self.start(), self.end()))
    }
}

/// Forgets it: the log begins anew, and what was committed of the old one says nothing. Durable with the folder.
pub(super) fn forget(disk: &Arc<dyn Disk>, folder: &Path) -> io::Result<()> {
    disk::remove_if_there(&**disk, &path(folder))
}

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}
