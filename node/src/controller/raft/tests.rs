//! What a node that has nothing does with the log of a cluster that it was in before, and a leader that starts again.

use std::time::Duration;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::storage::RaftLogStorage;
use openraft::{CommittedLeaderId, EntryPayload};

use super::network::Request;
use super::*;
use crate::config::BrokerConfig;
use crate::controller::{self, Controller, Options};

const LEADER: NodeId = NodeId(2);
const TERM: u64 = 8;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, LEADER), index)
}

/// Node 1 alone votes, or node 2 while node 1 observes.
fn voter(term: u64, index: u64, voter: NodeId) -> Entry {
    let nodes = [NodeId(1), LEADER].map(|node| (node, BasicNode::new("n:1")));
    let members = openraft::Membership::new(vec![BTreeSet::from([voter])], BTreeMap::from(nodes));
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Membership(members),
    }
}

async fn ask(node: &Controller, request: Request) -> Result<Bytes, String> {
    let body = serde_json::to_vec(&request).unwrap();
    node.quorum.answer(Kind::Raft, Bytes::from(body)).await
}

/// The leader sends entries, which the node takes.
async fn append(node: &Controller, before: Option<LogId>, entries: Vec<Entry>) {
    append_until(node, before, entries, 3).await;
}

/// The same, of a leader who has committed so much.
async fn append_until(node: &Controller, before: Option<LogId>, entries: Vec<Entry>, committed: u64) {
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(TERM, LEADER),
        prev_log_id: before,
        entries,
        leader_commit: Some(id(TERM, committed)),
    };
    let answer = ask(node, Request::Append(request)).await.unwrap();
    let answer: Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>> =
        serde_json::from_slice(&answer).unwrap();
    assert!(answer.unwrap().is_success());
}

/// Node 3 stands for election, with all there is.
async fn is_voted_for(node: &Controller) -> bool {
    let request = VoteRequest {
        vote: Vote::new(TERM + 1, NodeId(3)),
        last_log_id: Some(id(TERM, 3)),
    };
    ask(node, Request::Vote(request)).await.is_ok()
}

#[tokio::test]
async fn a_newcomer_is_not_elected_by_a_configuration_of_the_past() {
    let sys = Sys::simulated(1);
    let options = Options {
        voters: BTreeMap::new(),
        ..Options::alone("lab", BrokerConfig::new(BTreeMap::new()), &sys)
    };
    let (node, _) = controller::start(options).await.unwrap();
    // Whoever votes alone is elected within a heartbeat, which is 20 ms: nothing else tells of what does not happen.
    let many_heartbeats = Duration::from_millis(300);

    append(&node, None, vec![voter(0, 0, NodeId(1)), voter(1, 1, NodeId(1))]).await;
    tokio::time::sleep(many_heartbeats).await;
    assert_eq!(
        node.quorum.state().voters,
        BTreeSet::from([NodeId(1)]),
        "it is the only one"
    );
    node.quorum.elect().await;
    tokio::time::sleep(many_heartbeats).await;
    assert_eq!(node.quorum.state().term, TERM, "it stood for election");
    assert!(!is_voted_for(&node).await);

    append(&node, Some(id(1, 1)), vec![voter(1, 2, NodeId(1))]).await;
    assert!(!is_voted_for(&node).await);
    append(&node, Some(id(1, 2)), vec![voter(TERM, 3, LEADER)]).await;
    assert!(is_voted_for(&node).await, "it has all that was committed");
    sys.tasks.cancel();
}

/// Returns in which term it leads.
async fn lead_again(sys: &Sys, change: impl AsyncFnOnce(&Quorum)) -> u64 {
    let options = Options::alone("lab", BrokerConfig::new(BTreeMap::new()), sys);
    let (node, _) = controller::start(options).await.unwrap();
    let mut watch = node.quorum.watch();
    while watch.state().leader != Some(NodeId(1)) {
        assert!(watch.changed().await, "it runs");
    }
    change(&node.quorum).await;
    let term = node.quorum.state().term;
    sys.tasks
        .stop(&sys.clock, Duration::from_secs(1))
        .await
        .expect("every task watches its token");
    term
}

#[tokio::test]
async fn a_leader_that_starts_again_is_elected_anew_once_others_hold_its_log() {
    let disk = Sys::simulated(1).disk;
    let sys = || Sys {
        disk: Arc::clone(&disk),
        ..Sys::simulated(1)
    };
    let nothing = async |_: &Quorum| {};
    let first = lead_again(&sys(), nothing).await;
    let observed = async |quorum: &Quorum| quorum.add_observer(NodeId(2), "n:1").await.expect("added");
    assert_eq!(
        lead_again(&sys(), observed).await,
        first,
        "nobody else has anything"
    );
    assert_eq!(lead_again(&sys(), nothing).await, first + 1);
}

/// The quorum shrinks to nodes 2 and 3, and node 1 is the only one that has heard of it when all of them stop.
#[tokio::test]
async fn who_was_taken_out_votes_for_those_that_stay_and_missed_it() {
    let nodes = || [1, 2, 3].map(|id| (NodeId(id), BasicNode::new("n:1")));
    let all = BTreeSet::from([1, 2, 3].map(NodeId));
    let rest = BTreeSet::from([2, 3].map(NodeId));
    let members = |index, configs: Vec<BTreeSet<NodeId>>| Entry {
        log_id: id(TERM, index),
        payload: EntryPayload::Membership(openraft::Membership::new(configs, BTreeMap::from(nodes()))),
    };
    let sys = Sys::simulated(1);
    let options = Options {
        voters: BTreeMap::new(),
        ..Options::alone("lab", BrokerConfig::new(BTreeMap::new()), &sys)
    };
    let (node, _) = controller::start(options).await.unwrap();
    let entries = vec![
        members(0, vec![all.clone()]),
        members(1, vec![all.clone()]),
        members(2, vec![all, rest.clone()]),
        members(3, vec![rest]),
    ];
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(TERM, LEADER),
        prev_log_id: None,
        entries,
        leader_commit: Some(id(TERM, 2)),
    };
    ask(&node, Request::Append(request)).await.unwrap();
    let is_given = async |term, last| {
        let request = VoteRequest {
            vote: Vote::new(term, NodeId(3)),
            last_log_id: Some(last),
        };
        let answer = ask(&node, Request::Vote(request)).await.unwrap();
        let answer: Result<VoteResponse<NodeId>, RaftError<NodeId>> =
            serde_json::from_slice(&answer).unwrap();
        answer.unwrap().vote_granted
    };
    // Nobody is voted for while the leader may be there; no event tells that this is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !is_given(TERM + 1, id(TERM, 1)).await,
        "that is less than was committed"
    );
    assert!(is_given(TERM + 2, id(TERM, 2)).await);
    sys.tasks.cancel();
}

/// Node 1 begins as one of three, as it would again if it had lost its disk.
#[tokio::test]
async fn a_voter_that_begins_with_nothing_votes_at_first_for_those_that_have_nothing_either() {
    let disk = Sys::simulated(1).disk;
    let begin = async || {
        let sys = Sys {
            disk: Arc::clone(&disk),
            ..Sys::simulated(1)
        };
        let options = Options {
            voters: [1, 2, 3].map(|id| (NodeId(id), "n:1".to_owned())).into(),
            ..Options::alone("lab", BrokerConfig::new(BTreeMap::new()), &sys)
        };
        (controller::start(options).await.unwrap().0, sys)
    };
    let is_heard = async |node: &Controller, index| {
        let request = VoteRequest {
            vote: Vote::new(1, NodeId(3)),
            last_log_id: Some(id(1, index)),
        };
        ask(node, Request::Vote(request)).await.is_ok()
    };
    let (node, sys) = begin().await;
    assert!(node.quorum.store.may_stand(), "somebody has to be elected first");
    assert!(is_heard(&node, 15).await);
    assert!(!is_heard(&node, 16).await, "the cluster is not new");

    let first = |index| voter(TERM, index, LEADER);
    let before = node
        .quorum
        .store
        .clone()
        .get_log_state()
        .await
        .unwrap()
        .last_log_id;
    append_until(&node, before, (1..=16).map(first).collect(), 900).await;
    assert!(!node.quorum.store.may_stand());
    assert!(!is_heard(&node, 15).await);
    sys.tasks.stop(&sys.clock, Duration::from_secs(1)).await.unwrap();

    let (node, sys) = begin().await;
    assert!(!node.quorum.store.may_stand(), "half of it is not all of it");
    append_until(&node, Some(id(TERM, 16)), vec![first(17)], 17).await;
    assert!(node.quorum.store.may_stand());
    assert!(is_heard(&node, 900).await);
    sys.tasks.cancel();
}
