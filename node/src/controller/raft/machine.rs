//! What committed entries do: they are folded into the image, and the image is published.
//!
//! Owns the newest image. Every node folds the same entries in the same order to the same image; an entry decided on
//! an older state of affairs than it meets changes nothing, wherever it is folded.

use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, BasicNode, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageIOError,
};

use super::snapshot::{Found, SnapshotError, load_newest};
use super::{Changes, Entry, LogId, Membership, Outcome, StorageError, Types, offset};
use crate::metadata::{Image, Publisher};
use crate::sys::Sys;
use crate::sys::disk::Disk;
use crate::sys::task::Tasks;
use headwater_protocol::ids::NodeId;

pub(super) struct Machine {
    publisher: Publisher,
    image: Arc<Image>,
    last: Option<LogId>,
    membership: Membership,
    disk: Arc<dyn Disk>,
    tasks: Tasks,
}

impl Machine {
    pub(super) fn new(sys: &Sys, publisher: Publisher, snapshot: Option<Found>) -> Self {
        let (image, last, membership) = match snapshot {
            Some(found) => (found.image, found.last, found.membership),
            None => Default::default(),
        };
        Self {
            publisher,
            image: Arc::new(image),
            last,
            membership,
            disk: Arc::clone(&sys.disk),
            tasks: sys.tasks.child("quorum"),
        }
    }

    fn fold(image: &mut Image, entry: &Entry, membership: &mut Membership) -> Result<Outcome, String> {
        let at = offset(entry.log_id.index);
        match &entry.payload {
            EntryPayload::Blank => {
                image.pass(at);
                Ok(Outcome::Nothing)
            }
            EntryPayload::Membership(members) => {
                image.pass(at);
                *membership = Membership::new(Some(entry.log_id), members.clone());
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(changes) => fold_changes(image, at, changes),
        }
    }
}

fn fold_changes(
    image: &mut Image,
    at: headwater_protocol::ids::Offset,
    changes: &Changes,
) -> Result<Outcome, String> {
    changes.check().map_err(|error| error.to_string())?;
    if changes.basis != image.changed {
        image.pass(at);
        return Ok(Outcome::Stale);
    }
    image.apply_all(at, &changes.records);
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
            let folded = Self::fold(&mut image, &entry, &mut self.membership);
            let outcome = folded
                .map_err(|reason| StorageIOError::<NodeId>::apply(entry.log_id, AnyError::error(reason)))?;
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
            disk: Arc::clone(&self.disk),
            tasks: self.tasks.clone(),
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
        let disk = Arc::clone(&self.disk);
        let installed = self.tasks.blocking("install metadata snapshot", move || {
            let found = Found::decode(*snapshot)?;
            found.write(disk.as_ref())?;
            Ok::<_, SnapshotError>(found)
        });
        let found = match installed.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(broken(meta, &error.to_string())),
            Err(_) => return Err(broken(meta, "the thread died")),
        };
        self.last = found.last;
        self.membership = found.membership;
        self.image = Arc::new(found.image);
        self.publisher.publish(Arc::clone(&self.image));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let disk = Arc::clone(&self.disk);
        let read = self
            .tasks
            .blocking("read metadata snapshot", move || load_newest(disk.as_ref()));
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
    disk: Arc<dyn Disk>,
    tasks: Tasks,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (image, last, membership) = (Arc::clone(&self.image), self.last, self.membership.clone());
        let disk = Arc::clone(&self.disk);
        let built = self.tasks.blocking("snapshot metadata", move || {
            let found = Found::new(Image::clone(&image), last, membership);
            found.write(disk.as_ref()).map(|()| found)
        });
        match built.await {
            Ok(Ok(found)) => Ok(found.to_raft()),
            Ok(Err(error)) => Err(unreadable(&error.to_string())),
            Err(_) => Err(unreadable("the thread died")),
        }
    }
}

fn broken(meta: &SnapshotMeta<NodeId, BasicNode>, reason: &str) -> StorageError {
    StorageIOError::<NodeId>::write_snapshot(Some(meta.signature()), AnyError::error(reason)).into()
}

fn unreadable(reason: &str) -> StorageError {
    StorageIOError::<NodeId>::read_snapshot(None, AnyError::error(reason)).into()
}
