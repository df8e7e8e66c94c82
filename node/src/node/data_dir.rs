//! The data directory as a whole: who may use it, and to which node and cluster it belongs.
//!
//! ```text
//! lock        held while a node runs on it
//! meta.toml   format version, node id, cluster id
//! clean       there while the node is stopped and was stopped in order
//! reserve     room on the disk, given up by the start that finds it full
//! metadata/   the quorum's log and its snapshots
//! topics/     a folder per partition
//! modules/    uploaded modules by digest
//! security/   the cluster's authority and the node's keys
//! ```
//!
//! Owns the first four. It must never touch what the folders hold.

use crate::sys::Sys;
use crate::sys::disk::{self, Disk, Lock, Open};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The layout this build writes, and the highest it reads.
const FORMAT_VERSION: u32 = 2;
const META_BYTES_MAX: usize = 64 * 1024;
const LOCK: &str = "lock";
const META: &str = "meta.toml";
const CLEAN: &str = "clean";
const RESERVE: &str = "reserve";
/// Enough to start with: the node's registration, new epochs of what it leads, recovery's checkpoints.
const RESERVE_BYTES: u64 = 8 << 20;

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    pub(super) node_id: NodeId,
    pub(super) cluster_id: String,
    /// This folder's own name, drawn when it was made: an empty one that takes its place has another.
    pub(super) directory: String,
    /// The last node on it stopped in order: nothing is torn.
    pub(super) was_clean: bool,
    _lock: Box<dyn Lock>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("another node is running on this data directory")]
    InUse,
    #[error("data directory belongs to node {found}, this one is configured as {configured}")]
    OtherNode { found: NodeId, configured: NodeId },
    #[error("data directory belongs to cluster {found:?}, this node is configured for {configured:?}")]
    OtherCluster { found: String, configured: String },
    #[error(
        "data directory has format {found}, this build knows up to {FORMAT_VERSION}: a newer one wrote it"
    )]
    Newer { found: u32 },
    #[error(
        "data directory has format {found}, from before the first release; this build reads {FORMAT_VERSION} only"
    )]
    Older { found: u32 },
    #[error("data directory holds metadata but no {META}: it is not whole")]
    Incomplete,
    #[error("{META}: {0}")]
    Malformed(String),
    #[error("data directory: {what}: {cause}")]
    Io { what: &'static str, cause: io::Error },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    version: u32,
    node_id: NodeId,
    cluster_id: String,
    directory: String,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> DataDirError {
    move |cause| DataDirError::Io { what, cause }
}

impl DataDir {
    /// Takes the directory for this process, makes it if it is new, and checks whose it is.
    pub(super) fn open(sys: &Sys, node_id: NodeId, cluster_id: Option<&str>) -> Result<Self, DataDirError> {
        let disk = sys.disk.as_ref();
        disk.create_folder(Path::new(""))
            .map_err(failed("cannot be made"))?;
        let lock = disk.lock(Path::new(LOCK)).map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock => DataDirError::InUse,
            _ => DataDirError::Io {
                what: "cannot be locked",
                cause,
            },
        })?;
        keep_reserve(disk);
        let found =
            disk::read_if_there(disk, Path::new(META), META_BYTES_MAX).map_err(failed("cannot read"))?;
        let meta = match found {
            Some(bytes) => check(&bytes, node_id, cluster_id)?,
            None => create(sys, node_id, cluster_id)?,
        };
        let was_clean = match disk.remove_file(Path::new(CLEAN)) {
            Ok(()) => true,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
            Err(cause) => {
                return Err(DataDirError::Io {
                    what: "cannot remove the mark of a clean stop",
                    cause,
                });
            }
        };
        if was_clean {
            // From here on a crash must not look like a clean stop.
            disk.sync_folder(Path::new(""))
                .map_err(failed("cannot be synced"))?;
        }
        Ok(Self {
            node_id,
            cluster_id: meta.cluster_id,
            directory: meta.directory,
            was_clean,
            _lock: lock,
        })
    }

    /// Notes that everything was synced and closed. Called last.
    pub(super) fn mark_clean(&self, sys: &Sys) -> Result<(), DataDirError> {
        disk::replace(sys.disk.as_ref(), Path::new(CLEAN), b"").map_err(failed("cannot mark a clean stop"))
    }
}

/// Keeps room on the disk, or gives it up when there is no other: a node on a full disk starts, and serves what it has.
fn keep_reserve(disk: &dyn Disk) {
    let path = Path::new(RESERVE);
    // A disk that cannot tell, or reserves nothing, has no such room.
    let Ok(free) = disk.free_bytes(Path::new("")) else {
        return;
    };
    if free < RESERVE_BYTES {
        if disk.remove_file(path).is_ok() {
            tracing::warn!(
                free,
                "the disk is full: the node starts on the room it had reserved"
            );
        }
    } else if free > 2 * RESERVE_BYTES && disk.file_bytes(path).is_err() {
        let file = disk.open(path, Open::Create);
        let _ = file.and_then(|file| file.reserve(0, RESERVE_BYTES));
    }
}

fn check(bytes: &[u8], node_id: NodeId, cluster_id: Option<&str>) -> Result<Meta, DataDirError> {
    let text = std::str::from_utf8(bytes).map_err(|cause| DataDirError::Malformed(cause.to_string()))?;
    let version = toml::from_str::<toml::Table>(text)
        .map_err(|cause| DataDirError::Malformed(cause.to_string()))?
        .get("version")
        .and_then(toml::Value::as_integer)
        .and_then(|version| u32::try_from(version).ok());
    match version {
        Some(found) if found > FORMAT_VERSION => return Err(DataDirError::Newer { found }),
        Some(found) if found < FORMAT_VERSION => return Err(DataDirError::Older { found }),
        Some(_) | None => {}
    }
    let meta: Meta = toml::from_str(text).map_err(|cause| DataDirError::Malformed(cause.to_string()))?;
    if meta.node_id != node_id {
        return Err(DataDirError::OtherNode {
            found: meta.node_id,
            configured: node_id,
        });
    }
    match cluster_id {
        Some(configured) if configured != meta.cluster_id => Err(DataDirError::OtherCluster {
            found: meta.cluster_id,
            configured: configured.to_owned(),
        }),
        Some(_) | None => Ok(meta),
    }
}

fn create(sys: &Sys, node_id: NodeId, cluster_id: Option<&str>) -> Result<Meta, DataDirError> {
    let disk = sys.disk.as_ref();
    let metadata = disk.list(Path::new("metadata"));
    if metadata.is_ok_and(|entries| !entries.is_empty()) {
        return Err(DataDirError::Incomplete);
    }
    let cluster_id = cluster_id.map_or_else(
        || URL_SAFE_NO_PAD.encode(sys.random.secret::<16>()),
        str::to_owned,
    );
    let meta = Meta {
        version: FORMAT_VERSION,
        node_id,
        cluster_id,
        directory: URL_SAFE_NO_PAD.encode(sys.random.secret::<16>()),
    };
    let text = toml::to_string(&meta).expect("four plain fields can be written");
    disk::replace(disk, Path::new(META), text.as_bytes()).map_err(failed("cannot write meta.toml"))?;
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::memory::MemoryDisk;
    use std::sync::Arc;

    fn open(sys: &Sys, node: i32, cluster: Option<&str>) -> Result<DataDir, String> {
        DataDir::open(sys, NodeId(node), cluster).map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_belongs_to_one_node_of_one_cluster_and_one_process() {
        let sys = Sys::simulated(1);
        let first = open(&sys, 1, None).expect("new");
        let id = first.cluster_id.clone();
        assert!(id.len() == 22 && !first.was_clean);
        assert_eq!(
            open(&sys, 1, None).expect_err("held"),
            "another node is running on this data directory"
        );
        first.mark_clean(&sys).expect("marked");
        drop(first);
        assert_eq!(
            open(&sys, 2, None).expect_err("other"),
            "data directory belongs to node 1, this one is configured as 2"
        );
        assert_eq!(
            open(&sys, 1, Some("x")).expect_err("other"),
            format!("data directory belongs to cluster {id:?}, this node is configured for \"x\"")
        );
        let again = open(&sys, 1, Some(&id)).expect("ours");
        assert!(again.was_clean);
        drop(again);
        assert!(
            !open(&sys, 1, None).expect("ours").was_clean,
            "the mark holds for one start"
        );
    }

    #[test]
    fn a_full_disk_takes_the_reserve_and_a_later_start_puts_it_back() {
        let mut sys = Sys::simulated(1);
        let disk = MemoryDisk::new(sys.random.fork());
        sys.disk = Arc::new(disk.clone());
        let has_reserve = || disk.file_bytes(Path::new(RESERVE)).is_ok();
        drop(open(&sys, 1, None).expect("new"));
        assert!(has_reserve());
        disk.set_capacity(4 << 20);
        drop(open(&sys, 1, None).expect("full"));
        assert!(!has_reserve());
        drop(open(&sys, 1, None).expect("full"));
        assert!(!has_reserve());
        disk.set_capacity(1 << 30);
        drop(open(&sys, 1, None).expect("room"));
        assert!(has_reserve());
    }

    #[test]
    fn a_directory_of_a_newer_build_or_without_its_meta_is_refused() {
        let sys = Sys::simulated(1);
        let write =
            |text: &str| disk::replace(sys.disk.as_ref(), Path::new(META), text.as_bytes()).expect("written");
        write("version = 3\nanything = 1");
        assert_eq!(
            open(&sys, 1, None).expect_err("newer"),
            "data directory has format 3, this build knows up to 2: a newer one wrote it"
        );
        write("version = 2\nnode_id = 1");
        assert!(open(&sys, 1, None).expect_err("cut").starts_with("meta.toml: "));
        sys.disk.remove_file(Path::new(META)).expect("removed");
        sys.disk.create_folder(Path::new("metadata/x")).expect("made");
        assert!(
            open(&sys, 1, None)
                .expect_err("not whole")
                .contains("holds metadata")
        );
    }
}
