//! An operator at work while things go wrong: he moves replicas, takes votes away and gives them back, has preferred
//! leaders elected, and finalizes the feature level when an upgrade allows it.
//!
//! At most one vote is missing at a time. What has no answer may have happened, and is asked for again until it is so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headwater::metadata::features::{Level, VERSION};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_raft_voter::AddRaftVoterRequest;
use headwater_protocol::kafka::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use headwater_protocol::kafka::elect_leaders::ElectLeadersRequest;
use headwater_protocol::kafka::remove_raft_voter::RemoveRaftVoterRequest;
use headwater_protocol::kafka::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use headwater_protocol::primitives::Str;

use super::admin::NewTopic;
use super::{Alive, Control};
use crate::client::Client;
use crate::invariants::Violation;
use crate::oracle::Oracle;

/// What the operator does in a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Duties {
    /// The longest pause between two moves of replicas; None: replicas stay where they are.
    pub(crate) move_ms: Option<u64>,
    /// As above, for votes.
    pub(crate) vote_ms: Option<u64>,
    /// As above, for nodes that are taken out and replaced by empty ones.
    pub(crate) retire_ms: Option<u64>,
    /// As above, for upgrades: from one node to the next.
    pub(crate) upgrade_ms: Option<u64>,
}

pub(crate) struct Operator {
    pub(crate) client: Client,
    pub(crate) topics: Vec<NewTopic>,
    pub(crate) nodes: i32,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

impl Operator {
    /// Moves replicas from node to node.
    pub(crate) async fn move_replicas(mut self, pause_ms: u64) {
        let _alive = Alive::new(&self.control, |control| &control.operating);
        while !Control::is_set(&self.control.stop_operating) {
            self.client.pause_ms(pause_ms).await;
            if !Control::is_set(&self.control.ready) {
                continue;
            }
            match self.client.random.below(4) {
                0 => self.elect().await,
                1 => self.take_back().await,
                _ => self.reassign().await,
            }
        }
    }

    fn any_partition(&self) -> (NewTopic, i32) {
        let random = &self.client.random;
        let topic = &self.topics[random.below(self.topics.len() as u64) as usize];
        let index = random.below(u64::try_from(topic.partitions).unwrap_or(1)) as i32;
        (topic.clone(), index)
    }

    /// Another place for one partition.
    async fn reassign(&mut self) {
        let (topic, index) = self.any_partition();
        let leaving = self.control.stage().node();
        let mut nodes: Vec<i32> = (1..=self.nodes).filter(|node| Some(*node) != leaving).collect();
        let mut replicas = Vec::new();
        for _ in 0..topic.replicas {
            if nodes.is_empty() {
                return;
            }
            let place = self.client.random.below(nodes.len() as u64) as usize;
            replicas.push(nodes.remove(place));
        }
        self.place(&topic.name, index, Some(replicas)).await;
        if self.client.random.one_in(4) {
            self.place(&topic.name, index, None).await;
        }
    }

    async fn take_back(&mut self) {
        let (topic, index) = self.any_partition();
        self.place(&topic.name, index, None).await;
    }

    /// Asks for a partition's replicas to be there; None: where they were before.
    pub(super) async fn place(&mut self, topic: &str, index: i32, replicas: Option<Vec<i32>>) {
        let is_new = replicas.is_some();
        let said = format!("{topic}-{index} is to be on {replicas:?}");
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: Str::from(topic),
                partitions: vec![ReassignablePartition {
                    partition_index: index,
                    replicas,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let Ok(answer) = self.client.call(&self.client.any_node(), &request, 0).await else {
            return;
        };
        let mut results = answer.responses.iter().flat_map(|topic| &topic.partitions);
        for refused in results.clone().filter_map(|result| result.error_message.as_ref()) {
            self.client.trace.say(format_args!("{said}: {refused}"));
        }
        if answer.error_code == 0 && results.all(|result| result.error_code == 0) {
            self.control.count(if is_new { "moves" } else { "taken_back" });
            self.client.trace.say(said);
        }
    }

    async fn elect(&mut self) {
        let request = ElectLeadersRequest::default();
        if let Ok(answer) = self.client.call(&self.client.any_node(), &request, 2).await
            && answer.error_code == 0
        {
            self.control.count("elected");
        }
    }

    /// Takes a vote away, and gives it back.
    pub(crate) async fn change_voters(mut self, pause_ms: u64) {
        let _alive = Alive::new(&self.control, |control| &control.operating);
        loop {
            self.client.pause_ms(pause_ms).await;
            if Control::is_set(&self.control.stop_operating) {
                return;
            }
            let voter = 1 + self.client.random.below(self.nodes as u64) as i32;
            let take = RemoveRaftVoterRequest {
                cluster_id: None,
                voter_id: voter,
                ..Default::default()
            };
            let taken = self.client.call(&self.client.any_node(), &take, 0).await;
            if taken.is_ok_and(|answer| answer.error_code == 0) {
                self.control.count("votes_taken");
                self.client.trace.say(format_args!("n{voter} has no vote"));
            }
            self.client.pause_ms(pause_ms).await;
            while !self.give(voter).await {
                self.client.pause_ms(500).await;
            }
        }
    }

    /// Whether it has a vote now.
    pub(super) async fn give(&mut self, voter: i32) -> bool {
        let request = AddRaftVoterRequest {
            cluster_id: None,
            voter_id: voter,
            timeout_ms: 1_000,
            ..Default::default()
        };
        let Ok(answer) = self.client.call(&self.client.any_node(), &request, 0).await else {
            return false;
        };
        if let Some(refused) = &answer.error_message {
            self.client
                .trace
                .say(format_args!("n{voter} gets no vote: {refused}"));
        }
        if answer.error_code == 0 {
            self.control.count("votes_given");
            self.client.trace.say(format_args!("n{voter} has a vote again"));
        }
        [ErrorCode::NONE, ErrorCode::DUPLICATE_VOTER].contains(&ErrorCode(answer.error_code))
    }

    /// Asks for the newest level from the moment he may, until it is in force.
    pub(crate) async fn finalize(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.operating);
        let request = UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: Str::from_static(VERSION),
                max_version_level: Level::NEWEST.0,
                ..Default::default()
            }],
            timeout_ms: 1_000,
            ..Default::default()
        };
        loop {
            self.client.pause_ms(800).await;
            if !Control::is_set(&self.control.may_finalize) {
                continue;
            }
            let Ok(answer) = self.client.call(&self.client.any_node(), &request, 2).await else {
                continue;
            };
            let lowest = Level(self.control.lowest_level.load(Ordering::Relaxed));
            match ErrorCode(answer.error_code) {
                ErrorCode::NONE if lowest < Level::NEWEST => {
                    let what = format!("it was finalized while a node was at level {lowest}");
                    let violation = Violation::new("a level is raised when all read it", what);
                    return self.oracle.wrong(violation);
                }
                ErrorCode::NONE => {
                    self.client.trace.say("the level is finalized");
                    self.control.count("finalized");
                    return Control::set(&self.control.finalized);
                }
                ErrorCode::INVALID_UPDATE_VERSION | ErrorCode::UNSUPPORTED_VERSION => {
                    self.control.count("finalized_early");
                }
                _ => self.control.retried(),
            }
        }
    }
}
