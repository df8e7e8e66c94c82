//! An operator takes a node out of the cluster, and a new one with an empty disk takes its number.
//!
//! He empties it, has it stopped for good, unregisters it, and lets the new one in. A node that was given replicas again
//! after it was emptied is started once more, since they may be the only ones.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use headwater_protocol::kafka::remove_raft_voter::RemoveRaftVoterRequest;
use headwater_protocol::kafka::unregister_broker::UnregisterBrokerRequest;
use headwater_protocol::primitives::Str;

use super::operate::Operator;
use super::{Alive, Control};

/// Refusals before a node that was stopped is started again.
const TRIES: u32 = 10;

/// The same where nobody can say whether it is a member: the others may be too few to decide anything without it.
const UNANSWERED_TRIES: u32 = 30;

/// Refusals of a vote before a node that does not come up is removed once more.
const STARTING_TRIES: u32 = 20;

/// Where a node is on its way out and in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    /// It is a member like any other.
    #[default]
    Member,
    /// It is being emptied, and given nothing.
    Emptied(i32),
    /// It is to be stopped, and not started any more.
    Leaving(i32),
    /// It does not run.
    Gone(i32),
    /// It is to be started as it was.
    Returning(i32),
    /// One with an empty disk is to be started in its place.
    Joining(i32),
}

impl Stage {
    /// The node that is given no replicas.
    pub(crate) fn node(self) -> Option<i32> {
        match self {
            Self::Member => None,
            Self::Emptied(node)
            | Self::Leaving(node)
            | Self::Gone(node)
            | Self::Returning(node)
            | Self::Joining(node) => Some(node),
        }
    }
}

impl Operator {
    pub(crate) async fn retire_nodes(mut self, pause_ms: u64) {
        let _alive = Alive::new(&self.control, |control| &control.operating);
        loop {
            self.client.pause_ms(pause_ms).await;
            if Control::is_set(&self.control.stop_operating) {
                return;
            }
            if Control::is_set(&self.control.ready) {
                let node = 1 + self.client.random.below(self.nodes as u64) as i32;
                self.replace(node).await;
            }
        }
    }

    async fn replace(&mut self, node: i32) {
        self.client.trace.say(format_args!("n{node} is to leave"));
        loop {
            self.control.set_stage(Stage::Emptied(node));
            while !self.is_empty(node).await {
                self.client.pause_ms(400).await;
            }
            self.control.set_stage(Stage::Leaving(node));
            self.reached(Stage::Gone(node)).await;
            if self.is_unregistered(node).await {
                break;
            }
            self.control.set_stage(Stage::Returning(node));
            self.reached(Stage::Member).await;
        }
        self.control.count("retired");
        self.control.set_stage(Stage::Joining(node));
        self.reached(Stage::Member).await;
        let mut in_vain = 0;
        while !self.give(node).await {
            self.client.pause_ms(500).await;
            in_vain = if self.control.is_running(node) {
                0
            } else {
                in_vain + 1
            };
            if in_vain == STARTING_TRIES {
                // A registration of its predecessor came when that was removed already, and it says so in its log.
                self.control.count("removed_again");
                self.control.note_farewell(node);
                self.control.set_stage(Stage::Emptied(node));
                while !self.is_empty(node).await {
                    self.client.pause_ms(400).await;
                }
                self.is_unregistered(node).await;
                self.control.set_stage(Stage::Member);
                in_vain = 0;
            }
        }
    }

    async fn reached(&self, stage: Stage) {
        while self.control.stage() != stage {
            self.client.pause_ms(20).await;
        }
    }

    /// Whether it holds nothing and has no vote; asks for what is missing.
    async fn is_empty(&mut self, node: i32) -> bool {
        let take = RemoveRaftVoterRequest {
            cluster_id: None,
            voter_id: node,
            ..Default::default()
        };
        let has_vote = match self.client.call(&self.client.any_node(), &take, 0).await {
            Ok(answer) if ErrorCode(answer.error_code) == ErrorCode::VOTER_NOT_FOUND => false,
            Ok(answer) => {
                if let Some(refused) = &answer.error_message {
                    self.client
                        .trace
                        .say(format_args!("n{node} keeps its vote: {refused}"));
                }
                true
            }
            Err(error) => {
                self.client
                    .trace
                    .say(format_args!("n{node} keeps its vote: {error}"));
                true
            }
        };
        let Some(held) = self.held_by(node).await else {
            self.client
                .trace
                .say(format_args!("nobody tells what n{node} holds"));
            return false;
        };
        for (topic, index, mut replicas) in held.iter().cloned() {
            let others: Vec<i32> = (1..=self.nodes)
                .filter(|other| *other != node && !replicas.contains(other))
                .collect();
            replicas.retain(|it| *it != node);
            if let Some(other) = others.get(self.client.random.below(others.len().max(1) as u64) as usize) {
                replicas.push(*other);
            }
            self.place(&topic, index, Some(replicas)).await;
        }
        held.is_empty() && !has_vote
    }

    /// The partitions with a replica on a node, as some node knows.
    async fn held_by(&mut self, node: i32) -> Option<Vec<(String, i32, Vec<i32>)>> {
        let topic = |topic: &super::admin::NewTopic| MetadataRequestTopic {
            name: Some(Str::from(topic.name.as_str())),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(self.topics.iter().map(topic).collect()),
            ..MetadataRequest::default()
        };
        let answer = self
            .client
            .call(&self.client.any_node(), &request, 9)
            .await
            .ok()?;
        let mut held = Vec::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                if partition.replica_nodes.contains(&node) {
                    let name = topic.name.as_deref().unwrap_or_default().to_owned();
                    held.push((name, partition.partition_index, partition.replica_nodes.clone()));
                }
            }
        }
        Some(held)
    }

    /// Whether a node that does not run is no member any more, after some tries.
    async fn is_unregistered(&mut self, node: i32) -> bool {
        let request = UnregisterBrokerRequest {
            broker_id: node,
            ..Default::default()
        };
        let (mut refused, mut unanswered) = (0, 0);
        while refused < TRIES && unanswered < UNANSWERED_TRIES {
            match self.client.call(&self.client.any_node(), &request, 0).await {
                Ok(answer) => match ErrorCode(answer.error_code) {
                    ErrorCode::NONE | ErrorCode::BROKER_ID_NOT_REGISTERED => return true,
                    ErrorCode::POLICY_VIOLATION => refused += 1,
                    _ => {
                        self.control.retried();
                        unanswered += 1;
                    }
                },
                Err(_) => {
                    // It may arrive when the new one is in, and is obeyed.
                    self.control.note_farewell(node);
                    unanswered += 1;
                }
            }
            self.client.pause_ms(400).await;
        }
        false
    }
}
