//! The logs as they lie on a node's disk, read past the node.
//! It must never change anything, nor trust what the node says about them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use headwater::sys::disk::memory::MemoryDisk;
use headwater::sys::disk::{Disk, EntryKind};
use headwater_protocol::record::Batches;

use crate::digest::Digest;
use crate::invariants::whole::Batch;

/// Every batch of a partition's folder, in the order of its segments, as far as they can be read.
pub(crate) fn read(disk: &MemoryDisk, folder: &Path) -> Vec<Batch> {
    let mut names: Vec<PathBuf> = match disk.list(folder) {
        Ok(entries) => entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File && entry.name.ends_with(".log"))
            .map(|entry| folder.join(entry.name))
            .collect(),
        Err(_) => Vec::new(),
    };
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let Some(bytes) = disk.content(&name) else { break };
        for batch in Batches::new(Bytes::from(bytes)) {
            let Ok(batch) = batch else { break };
            found.push(Batch {
                base: batch.base_offset().value(),
                next: batch.next_offset().value(),
                epoch: batch.header().partition_leader_epoch.value(),
                checksum_holds: batch.check_crc().is_ok(),
                digest: Digest::of(batch.bytes()),
            });
        }
    }
    found
}
