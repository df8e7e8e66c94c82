//! Raft's messages over the connections between nodes: JSON both ways, a snapshot as its head and its bytes.

use std::future::Future;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use headwater_protocol::ids::NodeId;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError, ReplicationClosed,
    StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftLogStorage;
use openraft::{BasicNode, OptionalSend, RaftLogReader, Snapshot, SnapshotMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::newcomer;
use super::newer::Newer;
use super::storage::Store;
use super::{Raft, Types, Vote};
use crate::metadata::record::newer_in;
use crate::peer::{CallError, Kind, Peers};

/// How long a whole snapshot may take.
const SNAPSHOT: Duration = Duration::from_secs(60);
/// How long a node that was not reached is left alone by its replication.
const BACKOFF: Duration = Duration::from_millis(100);

/// The way to the other members.
pub(super) struct Network {
    peers: Peers,
}

impl Network {
    pub(super) fn new(peers: Peers) -> Self {
        Self { peers }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Member;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Member {
        if !self.peers.known().contains(&target) {
            self.peers.learn(target, &node.addr);
        }
        Member {
            target,
            peers: self.peers.clone(),
            portion: Portion::default(),
        }
    }
}

/// The way to one of them.
pub(super) struct Member {
    target: NodeId,
    peers: Peers,
    portion: Portion,
}

/// How many entries a member is sent at once. openraft gives each call one heartbeat's time and then sends the same again:
/// over a slow line it would do so for ever.
#[derive(Debug, Default)]
struct Portion {
    /// The entries of the last call, if it was not answered in time.
    unanswered: Option<usize>,
}

impl Portion {
    /// Before a call with so many entries; an error says how many there should be instead.
    fn begin(&mut self, entries: usize) -> Result<(), usize> {
        if entries == 0 {
            return Ok(());
        }
        match self.unanswered.replace(entries) {
            Some(before) if before > 1 && entries >= before => {
                self.unanswered = None;
                Err(before / 2)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn answered(&mut self) {
        self.unanswered = None;
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<NodeId>),
}

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    vote: Vote,
    meta: SnapshotMeta<NodeId, BasicNode>,
}

type Answer<T, E = RaftError<NodeId>> = Result<T, E>;

impl Member {
    async fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
        limit: Duration,
    ) -> Result<T, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        let body = Bytes::from(serde_json::to_vec(request).map_err(|error| NetworkError::new(&error))?);
        let answer = self.peers.call(self.target, Kind::Raft, body, limit).await;
        let answer = answer.map_err(|error| match error {
            CallError::Unknown(_) | CallError::Unreachable { .. } | CallError::Refused { .. } => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            CallError::Lost { .. } | CallError::TimedOut(_) | CallError::Failed { .. } => {
                RPCError::Network(NetworkError::new(&error))
            }
        })?;
        let answer: Answer<T> =
            serde_json::from_slice(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

impl RaftNetwork<Types> for Member {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        let begun = self.portion.begin(rpc.entries.len());
        begun.map_err(|fewer| {
            let fewer = u64::try_from(fewer).unwrap_or(u64::MAX);
            RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(fewer))
        })?;
        let answer = self.ask(&Request::Append(rpc), option.hard_ttl()).await;
        if !matches!(answer, Err(RPCError::Network(_))) {
            self.portion.answered();
        }
        answer
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        self.ask(&Request::Vote(rpc), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Types, Fatal<NodeId>>> {
        let head = SnapshotHead {
            vote,
            meta: snapshot.meta,
        };
        let body = with_head(&head, &snapshot.snapshot);
        let asked = self.peers.call(self.target, Kind::Snapshot, body, SNAPSHOT);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = asked => answer,
        };
        let answer = answer.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let answer: Answer<SnapshotResponse<NodeId>, Fatal<NodeId>> = serde_json::from_slice(&answer)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        answer.map_err(|error| StreamingError::RemoteError(RemoteError::new(self.target, error)))
    }

    fn backoff(&self) -> openraft::network::Backoff {
        openraft::network::Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// A request for a vote as openraft is to judge it.
///
/// Whoever has the entry that takes its vote away is not asked for its vote by those who have it, too. But one that has not can need
/// the votes of those before: then nobody would ever lead (the quorum's last members had lost power at once, and those that
/// stay had missed the entry). The entry, and all behind it, is committed by those who vote according to it, and by
/// nobody else; so for the others it counts nothing in the comparison of logs. Raft's author has such a node stand for
/// election itself (Ongaro's thesis, 4.2.2), which openraft does not do.
async fn as_judged(
    raft: &Raft,
    store: &Store,
    me: NodeId,
    request: VoteRequest<NodeId>,
) -> Result<VoteRequest<NodeId>, String> {
    let mut store = store.clone();
    // First: what comes later is newer than what is asked for, and is judged by openraft.
    let held = store.get_log_state().await.map_err(|error| error.to_string())?;
    let open = raft.with_raft_state(move |state| {
        let effective = state.membership_state.effective();
        let votes = effective.voter_ids().any(|voter| voter == me);
        effective
            .log_id()
            .filter(|log_id| !votes && state.committed < Some(*log_id))
    });
    let Some(takes_away) = open.await.map_err(|error| error.to_string())? else {
        return Ok(request);
    };
    let before = match takes_away.index.checked_sub(1) {
        None => None,
        Some(index)
            if held
                .last_purged_log_id
                .is_some_and(|purged| purged.index == index) =>
        {
            held.last_purged_log_id
        }
        Some(index) => {
            let entries = store.try_get_log_entries(index..=index).await;
            let entries = entries.map_err(|error| error.to_string())?;
            let Some(entry) = entries.first() else {
                return Ok(request);
            };
            Some(entry.log_id)
        }
    };
    Ok(VoteRequest {
        last_log_id: match request.last_log_id >= before {
            true => request.last_log_id.max(held.last_log_id),
            false => request.last_log_id,
        },
        ..request
    })
}

/// Answers a vote or entries. Reports entries that only a newer node can read; sees when a newcomer is none any more.
pub(super) async fn answer(
    raft: &Raft,
    store: &Store,
    me: NodeId,
    newer: &Newer,
    body: Bytes,
) -> Result<Bytes, String> {
    let newcomer = store.newcomer();
    let request: Request = serde_json::from_slice(&body).map_err(|error| match newer_in(&body) {
        Some(found) => {
            newer.report(&found);
            found.to_string()
        }
        None => error.to_string(),
    })?;
    match request {
        Request::Append(rpc) if newcomer.is_one() => {
            let (term, committed) = (rpc.vote.leader_id().term, rpc.leader_commit);
            let matching = newcomer::matching(&rpc);
            let answer = raft.append_entries(rpc).await;
            if answer
                .as_ref()
                .is_ok_and(|answer| newcomer::is_whole(term, committed, matching, answer))
            {
                newcomer.end().await.map_err(|error| error.to_string())?;
            }
            raft.runtime_config().elect(store.may_stand());
            written(&answer)
        }
        Request::Append(rpc) => written(&raft.append_entries(rpc).await),
        Request::Vote(rpc) if !store.may_vote_for(rpc.last_log_id) => {
            Err("a newcomer has no vote yet".to_owned())
        }
        Request::Vote(rpc) => {
            let rpc = as_judged(raft, store, me, rpc).await?;
            written(&raft.vote(rpc).await)
        }
    }
}

/// Installs a snapshot.
pub(super) async fn answer_snapshot(raft: &Raft, store: &Store, body: Bytes) -> Result<Bytes, String> {
    store.alone().end().await.map_err(|error| error.to_string())?;
    let (head, content) = without_head::<SnapshotHead>(body)?;
    let snapshot = Snapshot {
        meta: head.meta,
        snapshot: Box::new(content.to_vec()),
    };
    written(&raft.install_full_snapshot(head.vote, snapshot).await)
}

fn written<T: Serialize>(value: &T) -> Result<Bytes, String> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| error.to_string())
}

fn with_head(head: &impl Serialize, content: &[u8]) -> Bytes {
    let head = serde_json::to_vec(head).expect("numbers and names can be written");
    let mut body = BytesMut::with_capacity(4 + head.len() + content.len());
    body.put_u32(u32::try_from(head.len()).expect("a head is small"));
    body.put_slice(&head);
    body.put_slice(content);
    body.freeze()
}

fn without_head<T: DeserializeOwned>(mut body: Bytes) -> Result<(T, Bytes), String> {
    let cut = || "the snapshot is cut".to_owned();
    if body.len() < 4 {
        return Err(cut());
    }
    let bytes = body.get_u32() as usize;
    if body.len() < bytes {
        return Err(cut());
    }
    let head = serde_json::from_slice(&body.split_to(bytes)).map_err(|error| error.to_string())?;
    Ok((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_does_not_answer_in_time_is_sent_half_as_much_until_it_does() {
        let mut portion = Portion::default();
        assert_eq!(portion.begin(40), Ok(()));
        assert_eq!(portion.begin(0), Ok(()), "a heartbeat says nothing of entries");
        assert_eq!(portion.begin(45), Err(20));
        assert_eq!(portion.begin(20), Ok(()));
        assert_eq!(portion.begin(20), Err(10));
        assert_eq!(portion.begin(10), Ok(()));
        portion.answered();
        assert_eq!(portion.begin(10), Ok(()));
        portion.answered();
        assert_eq!(portion.begin(1), Ok(()));
        assert_eq!(portion.begin(1), Ok(()), "one is sent until it arrives");
    }
}
