//! The folders of partitions: how they are named, how they go, and what is found at start that nobody knows.

use crate::metadata::{Image, PartitionState};
use crate::sys::disk::{Disk, EntryKind};
use headwater_protocol::ids::{NodeId, PartitionIndex, TopicId};
use std::io;
use std::path::{Path, PathBuf};

/// Where they all lie.
const TOPICS: &str = "topics";
/// Ends the name of a folder that is being deleted.
const DELETED: &str = ".deleted";

/// The folder of one partition. The id makes sure that a topic made again by the same name finds nothing.
pub(super) fn path(topic: TopicId, index: PartitionIndex) -> PathBuf {
    Path::new(TOPICS).join(format!("{topic}-{index}"))
}

/// Deletes the folder of a partition. A crash leaves it whole, or named as deleted, for the next start to finish.
pub(super) fn delete(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(DELETED);
    let doomed = folder.with_file_name(name);
    disk.rename(folder, &doomed)?;
    disk.sync_folder(Path::new(TOPICS))?;
    disk.remove_folder(&doomed)
}

/// Makes the folder of topics, finishes deletions that a crash has cut short, deletes the replicas that were given to others
/// while this node was down, and reports what the metadata does not know: it is left alone.
pub(super) fn prepare(disk: &dyn Disk, image: &Image, me: NodeId) -> io::Result<()> {
    let topics = Path::new(TOPICS);
    let entries = match disk.list(topics) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create_folder(topics)?;
            return disk.sync_folder(Path::new(""));
        }
        Err(error) => return Err(error),
    };
    for entry in entries
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::Folder)
    {
        let folder = topics.join(&entry.name);
        if entry.name.ends_with(DELETED) {
            disk.remove_folder(&folder)?;
            continue;
        }
        match known(&entry.name, image) {
            Some(state) if state.replicas.contains(&me) => {}
            Some(_) => {
                // Kept, it could be taken up again when others have gone on without it.
                tracing::info!(folder = %folder.display(), "others hold this partition by now, the replica is deleted");
                delete(disk, &folder)?;
            }
            None => {
                tracing::warn!(folder = %folder.display(), "folder belongs to no partition, it is left alone");
            }
        }
    }
    Ok(())
}

fn known<'a>(name: &str, image: &'a Image) -> Option<&'a PartitionState> {
    // An id may hold hyphens itself: the partition comes after the last one.
    let (topic, index) = name.rsplit_once('-')?;
    let (topic, index) = (topic.parse::<TopicId>().ok()?, index.parse::<i32>().ok()?);
    image.topic_by_id(topic)?.partition(PartitionIndex(index))
}
