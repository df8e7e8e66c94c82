//! Whom a fault is aimed at: not a number, but a part that a node plays for the pipelines when it comes.
//!
//! It owns the list of parts and the deck they are dealt from. Like its sibling `fault` it never asks more of a cluster than it
//! promises to survive.

use std::time::Duration;

use headwater_sdk::Client;
use headwater_tests::{PATIENCE, Random, until};

use super::pace::Pace;
use super::stages::{NAMES, PARTITIONS, SINKS, SOURCE, state_of, transactional_id};
use crate::fault::Fault;
use crate::lab::NodeNumber;
use crate::load;

/// Who is killed, or put to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Leads a partition of the source, and runs the pipelines that read it
    Source,
    /// Leads a partition of a sink, and runs the pipelines that read it if there are any
    Sink,
    /// Leads a partition of a transform's state
    State,
    /// Leads the partition of __transaction_state that has a pipeline's transactions
    Coordinator,
    /// Any node
    Node,
    /// All at once
    AllNodes,
    /// As `source`, put to sleep: it wakes and believes that it runs them still
    Sleeper,
}

const ALL: [Role; 7] = [
    Role::Source,
    Role::Sink,
    Role::State,
    Role::Coordinator,
    Role::Node,
    Role::AllNodes,
    Role::Sleeper,
];

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
            Self::State => "state",
            Self::Coordinator => "coordinator",
            Self::Node => "node",
            Self::AllNodes => "all-nodes",
            Self::Sleeper => "sleeper",
        }
    }
}

/// Parts in the order in which they come, each once before any comes again.
#[derive(Debug)]
pub(super) struct Deck {
    random: Random,
    nodes: Vec<NodeNumber>,
    roles: Vec<Role>,
    rest: Vec<Role>,
}

/// A fault to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dealt {
    pub(super) role: Role,
    pub(super) pause: Duration,
    pub(super) lasts: Duration,
    /// Otherwise the next one comes as soon as the cluster is back.
    pub(super) is_waited_for: bool,
    node: NodeNumber,
    stage: usize,
    partition: i32,
}

impl Deck {
    /// A deck of these parts, or of all.
    pub(super) fn new(random: Random, nodes: Vec<NodeNumber>, only: Vec<Role>) -> Self {
        Self {
            random,
            nodes,
            roles: if only.is_empty() { ALL.to_vec() } else { only },
            rest: Vec::new(),
        }
    }

    /// None if there is nobody to aim at.
    pub(super) fn deal(&mut self) -> Option<Dealt> {
        if self.rest.is_empty() {
            self.rest.clone_from(&self.roles);
        }
        if self.rest.is_empty() || self.nodes.is_empty() {
            return None;
        }
        let place = self.below(self.rest.len());
        let role = self.rest.remove(place);
        let lasts = match role {
            Role::Sleeper => 500..12_000,
            Role::Source | Role::Sink | Role::State | Role::Coordinator | Role::Node | Role::AllNodes => {
                0..3_000
            }
        };
        let node = self.below(self.nodes.len());
        let node = self.nodes[node];
        Some(Dealt {
            role,
            pause: Duration::from_millis(self.random.below(200..2_000)),
            lasts: Duration::from_millis(self.random.below(lasts)),
            is_waited_for: self.below(4) > 0,
            node,
            stage: self.below(NAMES.len()),
            partition: self.below(PARTITIONS as usize) as i32,
        })
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.below(0..end as u64) as usize
    }
}

impl Dealt {
    /// The fault, aimed at whoever plays the part now; and in words whom that is.
    pub(super) async fn aimed(&self, client: &Client, pace: &Pace) -> anyhow::Result<(Fault, String)> {
        let (transform, partition) = (NAMES[self.stage], self.partition);
        let leads = async |topic: &str| {
            anyhow::Ok((
                leader(client, topic, partition).await?,
                format!("leads {topic} {partition}"),
            ))
        };
        let (node, whom) = match self.role {
            Role::Source | Role::Sleeper => leads(SOURCE).await?,
            Role::Sink => leads(SINKS[self.stage]).await?,
            Role::State => leads(&state_of(transform)).await?,
            Role::Coordinator => {
                let node = pace.coordinator(&transactional_id(transform, partition)).await?;
                (NodeNumber(node), format!("coordinates {transform} {partition}"))
            }
            Role::Node => (self.node, String::new()),
            Role::AllNodes => return Ok((Fault::KillAll, String::new())),
        };
        let fault = match self.role {
            Role::Sleeper => Fault::Pause(node),
            Role::Source | Role::Sink | Role::State | Role::Coordinator | Role::Node | Role::AllNodes => {
                Fault::Kill(node)
            }
        };
        Ok((fault, whom))
    }
}

async fn leader(client: &Client, topic: &str, partition: i32) -> anyhow::Result<NodeNumber> {
    let leader = until(PATIENCE, "a leader", || load::leader_of(client, topic, partition)).await?;
    Ok(NodeNumber(u8::try_from(leader)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(seed: u64, only: Vec<Role>, count: usize) -> Vec<Dealt> {
        let mut deck = Deck::new(Random::seeded(seed), (1..=3).map(NodeNumber).collect(), only);
        (0..count).filter_map(|_| deck.deal()).collect()
    }

    #[test]
    fn a_seed_says_whom_the_faults_are_aimed_at() {
        assert_eq!(deal(7, Vec::new(), 50), deal(7, Vec::new(), 50));
        assert_ne!(deal(7, Vec::new(), 50), deal(8, Vec::new(), 50));
    }

    #[test]
    fn each_part_comes_before_any_comes_again() {
        for seed in 0..20 {
            let mut roles: Vec<_> = deal(seed, Vec::new(), ALL.len())
                .iter()
                .map(|dealt| dealt.role.name())
                .collect();
            roles.sort_unstable();
            roles.dedup();
            assert_eq!(roles.len(), ALL.len(), "seed {seed}");
        }
        assert!(
            deal(1, vec![Role::State], 9)
                .iter()
                .all(|dealt| dealt.role == Role::State)
        );
    }
}
