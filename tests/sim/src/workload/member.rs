//! Members of a group, by the classic protocol or the consumer protocol: they join, share partitions, consume, commit, and die or leave.
//!
//! A commit that has no answer may come late, and would then move an offset back; in another generation it is refused. So a
//! member with such a commit commits nothing else, and leaves.

mod coordinate;
mod reconcile;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Alive, Control, consume};
use crate::client::{Client, Coordinated, Partition};
use crate::oracle::Oracle;

/// From the end of a member to the next.
const AWAY_MS: u64 = 3_000;
/// Fetches between two commits, at most.
const FETCHES_MAX: u64 = 12;
/// Fetches of one partition after another, when nobody disturbs.
const CALM_FETCHES: u32 = 20;

/// What there is of groups in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) groups: u32,
    /// So many of them use the consumer protocol (KIP-848).
    pub(crate) reconciled: u32,
    /// Of each group.
    pub(crate) members: u32,
    pub(crate) session_ms: u64,
    pub(crate) rebalance_ms: u64,
    /// A member lives at most so long, as long as things go wrong.
    pub(crate) life_ms: u64,
    pub(crate) pause_ms_max: u64,
    /// How long the first member of a group waits for others.
    pub(crate) first_ms: u64,
}

pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) protocol: Protocol,
    pub(crate) client: Client,
    /// What the group consumes.
    pub(crate) partitions: Vec<Partition>,
    pub(crate) plan: Plan,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

/// Who divides the partitions: the first of the members, or the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Classic,
    Consumer,
}

/// A member's place in one generation.
#[derive(Debug, Clone)]
struct Place {
    member: String,
    generation: i32,
}

/// Why a member does not go on in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Over,
    /// Another generation begins, and it may be in it.
    Rebalance,
    /// The group does not know it any more.
    Unknown,
    /// A commit of it may come late.
    Doubtful,
}

impl Plan {
    /// The groups by their names.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (String, Protocol)> + use<> {
        let reconciled = self.reconciled;
        (0..self.groups).map(move |group| match group < reconciled {
            true => (format!("r{group}"), Protocol::Consumer),
            false => (format!("m{group}"), Protocol::Classic),
        })
    }
}

impl Member {
    pub(crate) async fn run(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.consuming);
        self.control.until_ready().await;
        while !self.is_over() {
            self.client.pause_ms(AWAY_MS).await;
            let drawn = 1 + self.client.random.below(self.plan.life_ms);
            let life = match Control::is_set(&self.control.calm) {
                true => Duration::from_secs(3_600),
                false => Duration::from_millis(drawn),
            };
            if tokio::time::timeout(life, self.live()).await.is_err() {
                self.control.count("members_killed");
            }
            self.client.hang_up();
        }
    }

    fn is_over(&self) -> bool {
        Control::is_set(&self.control.stop_consuming)
    }

    fn coordinated(&self) -> Coordinated {
        Coordinated::Group(self.group.clone())
    }

    async fn again(&mut self) -> Result<(), Stop> {
        if self.is_over() {
            return Err(Stop::Over);
        }
        self.control.retried();
        self.client.pause_ms(200).await;
        Ok(())
    }

    async fn live(&mut self) {
        match self.protocol {
            Protocol::Classic => self.live_by_generations().await,
            Protocol::Consumer => self.live_by_heartbeats().await,
        }
    }

    /// From joining to being unknown.
    async fn live_by_generations(&mut self) {
        let mut member = String::new();
        loop {
            let stop = match self.join(&mut member).await {
                Ok((place, share)) => self.work(&place, &share).await,
                Err(stop) => stop,
            };
            match stop {
                Stop::Rebalance => {}
                Stop::Unknown => return,
                Stop::Over | Stop::Doubtful => return self.leave(&member).await,
            }
        }
    }

    /// Consumes its share as long as its generation lasts.
    async fn work(&mut self, place: &Place, share: &[Partition]) -> Stop {
        let mut positions = BTreeMap::new();
        for partition in share {
            match self.position(place, partition).await {
                Ok(position) => positions.insert(partition.clone(), position),
                Err(stop) => return stop,
            };
        }
        let every = Duration::from_millis(self.plan.session_ms / 4);
        let mut next_beat = Instant::now();
        let mut until_commit = self.client.random.below(FETCHES_MAX);
        loop {
            if self.is_over() {
                return Stop::Over;
            }
            if Instant::now() >= next_beat {
                next_beat = Instant::now() + every;
                if let Err(stop) = self.beat(place).await {
                    // What it has consumed it may commit until the next generation begins.
                    if stop == Stop::Rebalance
                        && let Err(stop) = self.commit(place, &positions).await
                    {
                        return stop;
                    }
                    return stop;
                }
            }
            if share.is_empty() {
                self.client.pause_ms(every.as_millis() as u64).await;
                continue;
            }
            self.consume(share, &mut positions, next_beat).await;
            match until_commit.checked_sub(1) {
                Some(left) => until_commit = left,
                None => {
                    if let Err(stop) = self.commit(place, &positions).await {
                        return stop;
                    }
                    until_commit = self.client.random.below(FETCHES_MAX);
                }
            }
            self.client.pause_ms(self.plan.pause_ms_max).await;
        }
    }

    /// Reads a partition a little, or up to its end when everything is healed, as long as it may be silent.
    async fn consume(
        &mut self,
        share: &[Partition],
        positions: &mut BTreeMap<Partition, i64>,
        next_beat: Instant,
    ) {
        let partition = &share[self.client.random.below(share.len() as u64) as usize];
        let position = positions.entry(partition.clone()).or_default();
        let fetches = match Control::is_set(&self.control.calm) {
            true => CALM_FETCHES,
            false => 1,
        };
        for _ in 0..fetches {
            let Some(found) = consume::fetch(&mut self.client, partition, *position).await else {
                self.control.retried();
                self.client.forget_leader(partition);
                return self.client.pause_ms(100).await;
            };
            if let Some(violation) = found.wrong {
                self.oracle.wrong(violation);
            }
            self.oracle
                .consumed(&self.group, partition, *position, found.next);
            *position = found.next;
            if found.is_end || Instant::now() >= next_beat {
                return;
            }
        }
    }
}
