//! A small file that says something of this node's part of the quorum by being there.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::disk::{self, Disk, Open};
use crate::sys::task::Tasks;

/// What it may hold.
const BYTES_MAX: usize = 64;

/// What is known of it. Clones are the same.
#[derive(Clone)]
pub(super) struct Mark {
    file: &'static Path,
    is_set: Arc<AtomicBool>,
    disk: Arc<dyn Disk>,
    tasks: Tasks,
}

impl Mark {
    /// Answers what it holds, too, if it is there. Waits for the disk.
    pub(super) fn open(
        file: &'static str,
        disk: &Arc<dyn Disk>,
        tasks: &Tasks,
    ) -> io::Result<(Self, Option<Vec<u8>>)> {
        let file = Path::new(file);
        let found = disk::read_if_there(disk.as_ref(), file, BYTES_MAX)?;
        let mark = Self {
            file,
            is_set: Arc::new(AtomicBool::new(found.is_some())),
            disk: Arc::clone(disk),
            tasks: tasks.clone(),
        };
        Ok((mark, found))
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Makes it, durably.
    pub(super) async fn set(&self, content: &'static [u8]) -> io::Result<()> {
        self.blocking("set mark", |mark| mark.set_waiting(content)).await
    }

    /// Makes it. A crash may undo that until something in its folder is synced.
    pub(super) async fn touch(&self) -> io::Result<()> {
        let make = |mark: &Self| {
            mark.disk.open(mark.file, Open::Create)?;
            mark.is_set.store(true, Ordering::Release);
            Ok(())
        };
        self.blocking("touch mark", make).await
    }

    /// Waits for the disk.
    pub(super) fn set_waiting(&self, content: &[u8]) -> io::Result<()> {
        disk::replace(self.disk.as_ref(), self.file, content)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes it, durably. Answers whether it was there.
    pub(super) async fn clear(&self) -> io::Result<bool> {
        if !self.is_set() {
            return Ok(false);
        }
        self.blocking("clear mark", Self::clear_waiting).await?;
        Ok(true)
    }

    /// Waits for the disk.
    pub(super) fn clear_waiting(&self) -> io::Result<()> {
        disk::remove_if_there(self.disk.as_ref(), self.file)?;
        self.disk
            .sync_folder(self.file.parent().unwrap_or_else(|| Path::new("")))?;
        self.is_set.store(false, Ordering::Release);
        Ok(())
    }

    async fn blocking(
        &self,
        name: &'static str,
        work: impl FnOnce(&Self) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let mark = self.clone();
        let done = self.tasks.blocking(name, move || work(&mark)).await;
        done.unwrap_or_else(|_| Err(io::Error::other("the thread died")))
    }
}
