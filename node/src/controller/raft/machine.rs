//! What committed entries do: they are folded into the image, and the image is published.
//!
//! Owns the newest image. Every node folds the same entries in the same order to the same image; an entry decided on
//! an older state of affairs than it meets changes nothing, wherever it is folded.

use std::io;
use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, BasicNode, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageIOError,
};

use super::newer::Newer;
use super::room::Room;
use super::snapshot::{Found, SnapshotError, load_newest};
use super::{Changes, Entry, LogId, Membership, Outcome, StorageError, Types, offset};
use crate::metadata::features::{Supported, Unsupported};
use crate::metadata::record::RecordError;
use crate::metadata::{Image, Publisher};
use crate::sys::Sys;
use crate::sys::disk::{self, Disk};
use crate::sys::task::Tasks;
use headwater_protocol::ids::NodeId;

pub(super) struct Machine {
    publisher: Publisher,
    supported: Supported,
    newer: Newer,
    image: Arc<Image>,
    last: Option<LogId>,
    membership: Membership,
    writer: Writer,
}

/// The way of snapshots to the disk.
#[derive(Clone)]
struct Writer {
    disk: Arc<dyn Disk>,
    tasks: Tasks,
    room: Room,
}

impl Writer {
    /// Writes a snapshot; waits for room.
    async fn write(&self, name: &'static str, found: &Arc<Found>) -> Result<(), String> {
        let is_full =
            |error: &SnapshotError| matches!(error, SnapshotError::Io(error) if disk::is_full(error));
        let attempt = || {
            let (disk, content) = (Arc::clone(&self.disk), Arc::clone(found));
            let written = self.tasks.blocking(name, move || content.write(disk.as_ref()));
            async {
                written
                    .await
                    .unwrap_or_else(|_| Err(io::Error::other("the thread died").into()))
            }
        };
        let done = self.room.find(is_full, attempt).await;
        done.map_err(|error| error.to_string())
    }
}

impl Machine {
    pub(super) fn new(
        sys: &Sys,
        publisher: Publisher,
        snapshot: Option<Found>,
        supported: Supported,
        newer: Newer,
    ) -> Self {
        let (image, last, membership) = match snapshot {
            Some(found) => (found.image, found.last, found.membership),
            None => Default::default(),
        };
        Self {
            publisher,
            supported,
            newer,
            image: Arc::new(image),
            last,
            membership,
            writer: Writer {
                disk: Arc::clone(&sys.disk),
                room: Room::new(sys.clock.clone(), &sys.tasks),
                tasks: sys.tasks.child("quorum"),
            },
        }
    }

    fn fold(&mut self, image: &mut Image, entry: &Entry) -> Result<Outcome, FoldError> {
        let at = offset(entry.log_id.index);
        match &entry.payload {
            EntryPayload::Blank => {
                image.pass(at);
                Ok(Outcome::Nothing)
            }
            EntryPayload::Membership(members) => {
                image.pass(at);
                self.membership = Membership::new(Some(entry.log_id), members.clone());
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(changes) => fold_changes(image, at, changes, &self.supported),
        }
    }
}

/// Why an entry cannot be folded: a newer node wrote it.
#[derive(Debug, thiserror::Error)]
enum FoldError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Level(#[from] Unsupported),
}

fn fold_changes(
    image: &mut Image,
    at: headwater_protocol::ids::Offset,
    changes: &Changes,
    supported: &Supported,
) -> Result<Outcome, FoldError> {
    changes.check()?;
    if changes.basis != image.changed {
        image.pass(at);
        return Ok(Outcome::Stale);
    }
    image.apply_all(at, &supported.reads(&changes.records)?);
    Ok(Outcome::Folded)
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut image = Image::clone(&self.image);
        let mut outcomes = Vec::new();
        for entry in entries {
            let outcome = self.fold(&mut image, &entry).map_err(|error| {
                self.newer.report(&error);
                StorageIOError::<NodeId>::apply(entry.log_id, AnyError::new(&error))
            })?;
            self.last = Some(entry.log_id);
            outcomes.push(outcome);
        }
        self.image = Arc::new(image);
        self.publisher.publish(Arc::clone(&self.image));
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder {
            image: Arc::clone(&self.image),
            last: self.last,
            membership: self.membership.clone(),
            writer: self.writer.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, BasicNode>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError> {
        let found = Found::decode(*snapshot, &self.supported).map_err(|error| {
            if error.is_newer() {
                self.newer.report(&error);
            }
            broken(meta, &error.to_string())
        })?;
        let found = Arc::new(found);
        let written = self.writer.write("install metadata snapshot", &found).await;
        written.map_err(|reason| broken(meta, &reason))?;
        self.last = found.last;
        self.membership = found.membership.clone();
        self.image = Arc::new(found.image.clone());
        self.publisher.publish(Arc::clone(&self.image));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let (disk, supported) = (Arc::clone(&self.writer.disk), self.supported.clone());
        let read = self.writer.tasks.blocking("read metadata snapshot", move || {
            load_newest(disk.as_ref(), &supported)
        });
        match read.await {
            Ok(Ok(found)) => Ok(found.map(|found| found.to_raft())),
            Ok(Err(error)) => Err(unreadable(&error.to_string())),
            Err(_) => Err(unreadable("the thread died")),
        }
    }
}

/// One image on its way to the disk.
pub(super) struct Builder {
    image: Arc<Image>,
    last: Option<LogId>,
    membership: Membership,
    writer: Writer,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (image, last, membership) = (Arc::clone(&self.image), self.last, self.membership.clone());
        let put_together = self.writer.tasks.blocking("put metadata together", move || {
            Arc::new(Found::new(Image::clone(&image), last, membership))
        });
        let found = put_together.await.map_err(|_| unreadable("the thread died"))?;
        let written = self.writer.write("snapshot metadata", &found).await;
        written.map_err(|reason| unreadable(&reason))?;
        Ok(found.to_raft())
    }
}

fn broken(meta: &SnapshotMeta<NodeId, BasicNode>, reason: &str) -> StorageError {
    StorageIOError::<NodeId>::write_snapshot(Some(meta.signature()), AnyError::error(reason)).into()
}

fn unreadable(reason: &str) -> StorageError {
    StorageIOError::<NodeId>::read_snapshot(None, AnyError::error(reason)).into()
}
