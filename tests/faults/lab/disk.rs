//! A disk of a node's own: a small ext4 in a file, which can run full, fail, and lose what was not synced.
//!
//! It owns the file, its loop device and its mount. Power loss is the file system's own shutdown, as xfstests does it:
//! from that instant on no dirty page and no journal entry reaches the file, every call fails with EIO, and the next
//! mount replays the journal and shows what a real machine would find. What this proves is that all that was
//! acknowledged had been synced to the block device. What it does not model is a drive that lies about its own cache or
//! tears a sector.
//!
//! A sync that is under way at that instant may return success on ext4 and on XFS although its data is gone: the kernel
//! looks for the shutdown before, not after. So nobody may be inside a call then: whoever uses the disk is killed, or
//! held by [`super::Member::hold`], first.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use headwater_tests::{PATIENCE, until};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::namespace::run;

const BALLAST: &str = "ballast";

/// A mounted disk. Dropped, it is unmounted.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Makes a disk of this size; the file takes only what is written.
    pub(crate) fn new(folder: &Path, name: &str, bytes: u64) -> anyhow::Result<Self> {
        let image = folder.join(format!("{name}.disk"));
        let mount = folder.join(name);
        File::create(&image)?.set_len(bytes)?;
        std::fs::create_dir(&mount)?;
        // No reserve for root: full is full. Tables are written when they are used.
        let lazy = ["-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"];
        run(Command::new("mkfs.ext4").args(lazy).arg(&image))?;
        let mut disk = Self {
            image,
            mount,
            is_mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where the node's data goes.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        run(Command::new("mount")
            .args(["-o", "loop,noatime"])
            .arg(&self.image)
            .arg(&self.mount))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Takes all the space that is left. What the file system frees later has to be taken again.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = OpenOptions::new();
        let ballast = ballast.create(true).append(true).open(self.mount.join(BALLAST))?;
        let mut length = ballast.metadata()?.len();
        // By halves: what is free is not all one file can have.
        let mut step = statvfs(&self.mount)?.f_bavail * statvfs(&self.mount)?.f_frsize;
        while step >= 4096 {
            match fallocate(&ballast, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(_) => step /= 2,
            }
        }
        Ok(())
    }

    /// Gives back what [`Disk::fill`] took.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.mount.join(BALLAST)).context("there is no ballast to remove")
    }

    /// From now on nothing reaches the disk, and every call fails. Nobody may be inside a call on it.
    pub(crate) fn fail(&self) -> anyhow::Result<()> {
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(&self.mount))
    }

    /// Brings a failed disk back as it was at that instant. Whoever has it open must have ended.
    pub(crate) async fn revive(&mut self) -> anyhow::Result<()> {
        // A process that was killed lets go of its files a moment after it is waited for.
        until(PATIENCE, "the end of the last user of a failed disk", || async {
            run(Command::new("umount").arg(&self.mount))?;
            Ok(Some(()))
        })
        .await?;
        self.is_mounted = false;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // The folder of a disk that stays mounted is only left behind.
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        }
    }
}
