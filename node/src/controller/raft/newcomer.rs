//! Whether this node's log is that of a newcomer, who may lack what was committed before he came.
//!
//! On his way to the newest entry he passes every former configuration of the quorum. One of them may have his own
//! number among its voters, or as its only one: of a node that was taken out since, whose disk and memory are gone. He
//! would elect himself by it, and undo what was committed (KIP-853 tells voters apart by their directories for that
//! reason). So he neither stands for election nor gives votes until he holds an entry of the term of the leader who
//! sends: such a leader has all that was committed, and so has he then.
//!
//! Owns `metadata/newcomer`, which is there as long as that is so. It must be gone, durably, before the entry is
//! acknowledged: nobody is made a voter who did not.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::{LogId, Types};
use crate::sys::disk::{self, Disk};
use crate::sys::task::Tasks;
use headwater_protocol::ids::NodeId;

const FILE: &str = "metadata/newcomer";

/// What is known of it. Clones are the same.
#[derive(Clone)]
pub(super) struct Newcomer {
    is_one: Arc<AtomicBool>,
    disk: Arc<dyn Disk>,
    tasks: Tasks,
}

impl Newcomer {
    /// Whoever has nothing is a newcomer from now on; who was one before is one still. Waits for the disk.
    pub(super) fn open(disk: &Arc<dyn Disk>, tasks: &Tasks, has_nothing: bool) -> io::Result<Self> {
        let was_one = disk::read_if_there(disk.as_ref(), Path::new(FILE), 0)?.is_some();
        if has_nothing && !was_one {
            disk::replace(disk.as_ref(), Path::new(FILE), &[])?;
        }
        Ok(Self {
            is_one: Arc::new(AtomicBool::new(has_nothing || was_one)),
            disk: Arc::clone(disk),
            tasks: tasks.clone(),
        })
    }

    pub(super) fn is_one(&self) -> bool {
        self.is_one.load(Ordering::Acquire)
    }

    /// Nothing was committed that this node does not hold.
    pub(super) async fn end(&self) -> io::Result<()> {
        if !self.is_one() {
            return Ok(());
        }
        let disk = Arc::clone(&self.disk);
        let removed = self.tasks.blocking("end newcomer", move || {
            disk::remove_if_there(disk.as_ref(), Path::new(FILE))?;
            disk.sync_folder(Path::new(FILE).parent().unwrap_or_else(|| Path::new("")))
        });
        removed
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the thread died")))?;
        self.is_one.store(false, Ordering::Release);
        tracing::info!("the metadata is whole, this node may vote");
        Ok(())
    }
}

/// The last entry that a follower holds as its leader does, once he has said yes to a request.
pub(super) fn matching(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    let last = request.entries.last().map(|entry| entry.log_id);
    last.or(request.prev_log_id)
}

/// Whether a follower holds all that was committed before the leader's term began, by what was asked and answered.
pub(super) fn is_whole(term: u64, matching: Option<LogId>, answer: &AppendEntriesResponse<NodeId>) -> bool {
    let matching = match answer {
        AppendEntriesResponse::Success => matching,
        AppendEntriesResponse::PartialSuccess(reached) => *reached,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
    };
    matching.is_some_and(|matching| matching.leader_id.term == term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Sys;
    use crate::sys::disk::memory::MemoryDisk;
    use openraft::CommittedLeaderId;

    #[tokio::test]
    async fn a_newcomer_stays_one_over_restarts_until_he_holds_an_entry_of_the_leaders_term() {
        let mut sys = Sys::simulated(1);
        sys.disk = Arc::new(MemoryDisk::new(sys.random.fork()));
        sys.disk.create_folder(Path::new("metadata")).unwrap();
        let open = |has_nothing| Newcomer::open(&sys.disk, &sys.tasks, has_nothing).unwrap();
        assert!(!open(false).is_one(), "he holds something from before");
        assert!(open(true).is_one());
        let newcomer = open(false);
        assert!(newcomer.is_one(), "half of it is not all of it");
        newcomer.end().await.unwrap();
        assert!(!newcomer.is_one());
        assert!(!open(false).is_one());
    }

    #[test]
    fn an_entry_of_the_leaders_own_term_says_that_nothing_before_it_is_missing() {
        let entry = |term| Some(LogId::new(CommittedLeaderId::new(term, NodeId(1)), 7));
        let yes = AppendEntriesResponse::Success;
        assert!(is_whole(3, entry(3), &yes));
        assert!(!is_whole(3, entry(2), &yes), "there may be more of that term");
        assert!(!is_whole(3, None, &yes));
        assert!(!is_whole(3, entry(3), &AppendEntriesResponse::Conflict));
        assert!(!is_whole(
            3,
            entry(3),
            &AppendEntriesResponse::PartialSuccess(entry(2))
        ));
    }
}
