//! Whether this node's log is that of a newcomer, who may lack what was committed before he came.
//!
//! On his way to the newest entry he passes every former configuration of the quorum. One of them may have his own
//! number among its voters, or as its only one: of a node that was taken out since, whose disk and memory are gone. He
//! would elect himself by it, and undo what was committed (KIP-853 tells voters apart by their directories for that
//! reason). So he neither stands for election nor gives votes until he holds an entry of the term of the leader who
//! sends, and all that was committed in that term, too: he may have taken part in it, before he lost his disk.
//!
//! A voter of a new cluster is one as well: nobody can tell a new cluster from one whose voter lost his disk and begins
//! again as he did the first time. But somebody has to be elected first. So he may stand, and votes, as long as there are
//! no more than a few entries in his log and in that of whom he votes for (`BEGINNING`), which is what elections write at
//! first. What is left: one that lost his disk and others that know of nothing but the beginning may together be a majority.
//!
//! Owns `metadata/newcomer`, which is there as long as that is so. It must be gone, durably, before an entry that ends it is
//! acknowledged: nobody is made a voter who did not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_protocol::ids::{NodeId, Offset};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::mark::Mark;
use super::{LogId, Types, offset};
use crate::sys::disk::Disk;
use crate::sys::task::Tasks;

const FILE: &str = "metadata/newcomer";
/// What it holds if the node has begun the log by itself.
const BEGINS: &[u8] = b"begins";
/// A log that ends here may be that of a new cluster: it has the first voters, and an entry of each leader that was not there for
/// long enough to decide anything.
const BEGINNING: Offset = Offset(16);

/// What is known of it. Clones are the same.
#[derive(Clone)]
pub(super) struct Newcomer {
    mark: Mark,
    /// It is a voter of a cluster that may be new.
    begins: Arc<AtomicBool>,
}

impl Newcomer {
    /// Whoever has nothing is a newcomer from now on; who was one before is one still. Waits for the disk.
    pub(super) fn open(disk: &Arc<dyn Disk>, tasks: &Tasks, has_nothing: bool) -> io::Result<Self> {
        let (mark, found) = Mark::open(FILE, disk, tasks)?;
        if has_nothing && found.is_none() {
            mark.set_waiting(&[])?;
        }
        let begins = found.is_some_and(|content| content == BEGINS);
        Ok(Self {
            mark,
            begins: Arc::new(AtomicBool::new(begins)),
        })
    }

    pub(super) fn is_one(&self) -> bool {
        self.mark.is_set()
    }

    /// Before it begins the log of a cluster with other voters by itself.
    pub(super) async fn begin(&self) -> io::Result<()> {
        if self.is_one() {
            self.mark.set(BEGINS).await?;
            self.begins.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether it may be elected, by where its log ends.
    pub(super) fn may_stand(&self, log_end: Offset) -> bool {
        !self.is_one() || self.begins.load(Ordering::Acquire) && log_end <= BEGINNING
    }

    /// Whether it may give its vote to one whose last entry this is.
    pub(super) fn may_vote_for(&self, log_end: Offset, last: Option<LogId>) -> bool {
        let is_new = |last: LogId| offset(last.index) < BEGINNING;
        !self.is_one() || self.may_stand(log_end) && last.is_none_or(is_new)
    }

    /// Nothing was committed that this node does not hold.
    pub(super) async fn end(&self) -> io::Result<()> {
        if self.mark.clear().await? {
            tracing::info!("the metadata is whole, this node may vote");
        }
        Ok(())
    }
}

/// The last entry that a follower holds as its leader does, once he has said yes to a request.
pub(super) fn matching(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    let last = request.entries.last().map(|entry| entry.log_id);
    last.or(request.prev_log_id)
}

/// Whether a follower holds all that the leader has committed and all that was committed before his term began, by what was
/// asked and answered.
pub(super) fn is_whole(
    term: u64,
    committed: Option<LogId>,
    matching: Option<LogId>,
    answer: &AppendEntriesResponse<NodeId>,
) -> bool {
    let matching = match answer {
        AppendEntriesResponse::Success => matching,
        AppendEntriesResponse::PartialSuccess(reached) => *reached,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
    };
    let is_own = |id: Option<LogId>| id.is_some_and(|id| id.leader_id.term == term);
    is_own(matching) && is_own(committed) && matching >= committed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
    fn what_the_leader_has_committed_in_his_own_term_says_that_nothing_is_missing() {
        let at = |term, index| Some(LogId::new(CommittedLeaderId::new(term, NodeId(1)), index));
        let (entry, yes) = (|term| at(term, 7), AppendEntriesResponse::Success);
        assert!(is_whole(3, entry(3), entry(3), &yes));
        assert!(is_whole(3, at(3, 6), entry(3), &yes));
        assert!(
            !is_whole(3, at(3, 8), entry(3), &yes),
            "it may have held the eighth before"
        );
        assert!(
            !is_whole(3, at(2, 6), entry(3), &yes),
            "nothing of this term is committed yet"
        );
        assert!(!is_whole(3, None, entry(3), &yes));
        assert!(
            !is_whole(3, entry(3), entry(2), &yes),
            "there may be more of that term"
        );
        assert!(!is_whole(3, entry(3), None, &yes));
        assert!(!is_whole(3, entry(3), entry(3), &AppendEntriesResponse::Conflict));
        let part = AppendEntriesResponse::PartialSuccess(entry(2));
        assert!(!is_whole(3, entry(3), entry(3), &part));
    }
}
