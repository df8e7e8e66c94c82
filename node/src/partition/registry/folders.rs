//! The folders of partitions: how they are named, how they go, and what is found at start that nobody knows.

use crate::metadata::Image;
use crate::sys::disk::{Disk, EntryKind};
use headwater_protocol::ids::{PartitionIndex, TopicId};
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

/// Makes the folder of topics, finishes deletions that a crash has cut short, and reports what the metadata does not
/// know: it is left alone.
pub(super) fn prepare(disk: &dyn Disk, image: &Image) -> io::Result<()> {
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
        } else if !is_known(&entry.name, image) {
            tracing::warn!(folder = %folder.display(), "folder belongs to no partition of this node, it is left alone");
        }
    }
    Ok(())
}

fn is_known(name: &str, image: &Image) -> bool {
    // An id may hold hyphens itself: the partition comes after the last one.
    let Some((topic, index)) = name.rsplit_once('-') else {
        return false;
    };
    let (Ok(topic), Ok(index)) = (topic.parse::<TopicId>(), index.parse::<i32>()) else {
        return false;
    };
    image
        .topic_by_id(topic)
        .is_some_and(|topic| topic.partition(PartitionIndex(index)).is_some())
}
