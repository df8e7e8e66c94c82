//! Clients with transactional ids: they write to several partitions at once, or copy records together with the offset up to
//! which they have copied, and are killed and replaced meanwhile.
//!
//! Several have one id and take it over from one another: whoever was replaced goes on until it hears of it. They use either
//! flow: naming each partition to the coordinator, or leaving that to the partition's leader (KIP-890). In the first an epoch is
//! that of many transactions, so that a request that comes late may do harm; as the Java client does, they then ask for a new
//! epoch (KIP-360) before they go on.

mod coordinate;
pub(crate) mod copy;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::admin::NewTopic;
use super::{Alive, Control};
use crate::client::{Client, Partition};
use crate::invariants::transactions::{Part, TransactionNumber};
use crate::oracle::Oracle;

/// A client lives at most so long.
const LIFE_MS: u64 = 8_000;
/// From the end of one to the next.
const AWAY_MS: u64 = 3_000;

/// What there is of transactions in a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The first is written to, the second is copied to.
    pub(crate) topics: [NewTopic; 2],
    /// Transactional ids of those who write, and of those who copy.
    pub(crate) writers: u32,
    pub(crate) copiers: u32,
    /// Clients that share an id.
    pub(crate) rivals: u32,
    pub(crate) watchers: u32,
    pub(crate) records_max: u64,
    pub(crate) padding_max: u64,
    pub(crate) pause_ms_max: u64,
    pub(crate) timeout_ms_max: u64,
}

/// What a transaction is made of.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Write,
    /// From these partitions.
    Copy(Vec<Partition>),
}

pub(crate) struct Transactor {
    /// The number of its transactional id.
    pub(crate) owner: u32,
    pub(crate) client: Client,
    pub(crate) work: Work,
    pub(crate) outputs: Vec<Partition>,
    pub(crate) plan: Plan,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

/// Who says that a partition is part of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Client,
    Leader,
}

/// A producer id with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Producer {
    id: i64,
    epoch: i16,
}

/// The time in which a client has its transactional id, or believes so.
struct Tenure {
    flow: Flow,
    producer: Producer,
    /// What comes next in each partition, in this epoch.
    sequences: BTreeMap<Partition, i32>,
    /// Up to where inputs are copied and committed.
    positions: BTreeMap<Partition, i64>,
    /// A request of this epoch may still come to pass, when it is out of place.
    is_doubtful: bool,
}

/// Why a client does not go on.
enum Stop {
    /// The run is over.
    Over,
    /// Another one has its id, or it took too long.
    Replaced,
    /// What is open can only be aborted.
    Undone,
}

/// What a transaction holds when it is to be ended.
enum Written {
    Nothing,
    Records,
    /// Copies, up to this offset of an input.
    Copies(Partition, i64),
}

/// The name of a transactional id.
pub(crate) fn id_of(owner: u32) -> String {
    format!("x{owner}")
}

/// The group in which a copier commits.
pub(crate) fn group_of(owner: u32) -> String {
    format!("g{owner}")
}

impl Transactor {
    pub(crate) async fn run(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.transacting);
        self.control.until_ready().await;
        while !self.is_over() {
            self.client.pause_ms(AWAY_MS).await;
            let life = Duration::from_millis(1 + self.client.random.below(LIFE_MS));
            match tokio::time::timeout(life, self.live()).await {
                Ok(Stop::Replaced | Stop::Undone) => self.control.count("replaced"),
                Ok(Stop::Over) => {}
                Err(_) => self.control.count("clients_killed"),
            }
            self.client.hang_up();
        }
    }

    fn is_over(&self) -> bool {
        Control::is_set(&self.control.stop_producing)
    }

    /// Before something is tried again.
    async fn again(&mut self) -> Result<(), Stop> {
        if self.is_over() {
            return Err(Stop::Over);
        }
        self.control.retried();
        self.client.pause_ms(200).await;
        Ok(())
    }

    /// From taking the id over to being replaced.
    async fn live(&mut self) -> Stop {
        let flow = match self.client.random.one_in(2) {
            true => Flow::Client,
            false => Flow::Leader,
        };
        let timeout_ms = 500 + self.client.random.below(self.plan.timeout_ms_max);
        let producer = match self.take_over(None, timeout_ms).await {
            Ok(producer) => producer,
            Err(stop) => return stop,
        };
        let mut tenure = Tenure {
            flow,
            producer,
            sequences: BTreeMap::new(),
            positions: BTreeMap::new(),
            is_doubtful: false,
        };
        while !self.is_over() {
            let done = match self.transact(&mut tenure).await {
                Ok(()) => self.clear_doubts(&mut tenure, timeout_ms).await,
                Err(stop) => Err(stop),
            };
            if let Err(stop) = done {
                return stop;
            }
            self.client.pause_ms(self.plan.pause_ms_max).await;
        }
        Stop::Over
    }

    /// One transaction, from its first record to its end.
    async fn transact(&mut self, tenure: &mut Tenure) -> Result<(), Stop> {
        let of = self.oracle.begins_transaction(self.owner);
        let written = match self.work.clone() {
            Work::Write => self.write(tenure, of).await,
            Work::Copy(inputs) => self.copy(tenure, of, &inputs).await,
        };
        let (is_commit, copied) = match written {
            Ok(Written::Nothing) => return Ok(()),
            Ok(Written::Records) => (!self.client.random.one_in(4), None),
            Ok(Written::Copies(input, next)) => (!self.client.random.one_in(4), Some((input, next))),
            Err(Stop::Undone) => (false, None),
            Err(stop) => return Err(stop),
        };
        // Whoever looks finds it open for a while.
        self.client.pause_ms(self.plan.pause_ms_max).await;
        tenure.positions.clear();
        self.end(tenure, of, is_commit).await?;
        if is_commit {
            tenure.positions.extend(copied);
        }
        Ok(())
    }

    /// Begins a new epoch, if something of this one may come late. Where each transaction has its own, nothing can.
    async fn clear_doubts(&mut self, tenure: &mut Tenure, timeout_ms: u64) -> Result<(), Stop> {
        if tenure.flow == Flow::Client && tenure.is_doubtful {
            let next = self.take_over(Some(tenure.producer), timeout_ms).await?;
            self.control.count("epochs_raised");
            self.goes_on_as(tenure, next);
        }
        tenure.is_doubtful = false;
        Ok(())
    }

    fn goes_on_as(&self, tenure: &mut Tenure, next: Producer) {
        if tenure.producer != next {
            tenure.producer = next;
            tenure.sequences.clear();
        }
    }

    /// Records of a transaction, with what stands behind their marks.
    fn parts(of: TransactionNumber, first: u32, behind: &[String]) -> Vec<(Part, String)> {
        let part = |(index, behind): (u32, &String)| (Part { of, index }, behind.clone());
        (first..).zip(behind).map(part).collect()
    }
}
