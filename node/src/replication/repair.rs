//! The task that repairs what is damaged in the logs of this node: it fetches those segments from a replica that is in sync,
//! as a consumer does, and hands them to the partitions.
//!
//! It owns the stream it fetches on, one segment at a time. It must never take what is not committed, nor decide what is
//! damaged.

use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::{NodeId, Offset};
use headwater_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData, ReplicaState,
};
use headwater_protocol::kafka::{ErrorCode, decode_response, encode_request};
use headwater_protocol::primitives::Str;
use headwater_protocol::record::{BatchView, Batches};

use super::Leaders;
use super::fetcher::VERSION;
use super::stream::Stream;
use crate::metadata::View;
use crate::partition::{Damaged, Partition, Registry, Repair};
use crate::sys::Sys;
use crate::sys::budget::Budget;
use crate::sys::buffers::Buffers;
use crate::sys::task::Tasks;

/// How long another node may take to be reached, or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much is fetched at once, unless a batch is larger.
const FETCH_BYTES: i32 = 1 << 20;
/// How soon what failed is tried again, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What repairing works with.
pub(super) struct Repairer {
    pub(super) me: NodeId,
    pub(super) sys: Sys,
    pub(super) tasks: Tasks,
    pub(super) view: View,
    pub(super) registry: Registry,
    pub(super) leaders: Arc<dyn Leaders>,
}

/// What came of trying everything once.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    repaired: bool,
    /// Something is damaged still, though others hold it.
    failed: bool,
    /// Something is damaged still that nobody else holds, as far as is known.
    alone: bool,
}

impl Repairer {
    /// Repairs until cancelled. What nobody else holds waits until somebody does.
    pub(super) async fn run(self) {
        let cancel = self.tasks.cancelled();
        let (mut damaged, mut reconciled) = (self.registry.damaged(), self.registry.watch());
        let mut failures = 0;
        loop {
            damaged.mark_unchanged();
            reconciled.mark_unchanged();
            let Round {
                repaired,
                failed,
                alone,
            } = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                round = self.round(failures) => round,
            };
            let is_left = failed || alone;
            // Where some of it goes well, the rest is worth another try soon.
            failures = if is_left && !repaired { failures + 1 } else { 0 };
            let pause = RETRY_MIN * 2_u32.saturating_pow(failures.min(16));
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = damaged.changed() => if changed.is_err() { return },
                // Who is in sync is a matter of the metadata.
                changed = reconciled.changed(), if alone || !failed => if changed.is_err() { return },
                () = self.sys.clock.sleep(pause.min(RETRY_MAX)), if is_left => {}
            }
        }
    }

    /// Tries everything once.
    async fn round(&self, failures: u32) -> Round {
        let mut round = Round::default();
        for partition in self.registry.list() {
            for damaged in partition.damaged() {
                if !partition.can_be_repaired() || partition.offline().is_some() {
                    continue;
                }
                let sources = self.sources(&partition);
                let Err(reason) = self.repair(&sources, &partition, &damaged).await else {
                    round.repaired = true;
                    continue;
                };
                match sources.is_empty() {
                    true => round.alone = true,
                    false => round.failed = true,
                }
                let (from, until) = (damaged.from.value(), damaged.until.value());
                let partition = partition.name();
                if failures == 0 {
                    tracing::warn!(%partition, from, until, reason, "damage cannot be repaired yet");
                } else {
                    tracing::debug!(%partition, from, until, reason, failures, "damage cannot be repaired yet");
                }
            }
        }
        round
    }

    /// Repairs from the first replica that has it.
    async fn repair(
        &self,
        sources: &[NodeId],
        partition: &Partition,
        damaged: &Damaged,
    ) -> Result<(), String> {
        let mut reason = "no other replica is in sync".to_owned();
        for source in sources {
            match self.repair_from(*source, partition, damaged).await {
                Ok(()) => return Ok(()),
                Err(error) => reason = format!("from node {source}: {error}"),
            }
        }
        Err(reason)
    }

    /// Who has it: the leader first.
    fn sources(&self, partition: &Partition) -> Vec<NodeId> {
        let (leadership, image) = (partition.leadership(), self.view.image());
        let others = leadership.isr.iter().filter(|node| **node != self.me);
        let is_there = |node: &&NodeId| image.nodes.get(node).is_some_and(|node| node.is_active());
        let mut sources: Vec<NodeId> = others.filter(is_there).copied().collect();
        sources.sort_by_key(|node| *node != leadership.leader);
        sources
    }

    async fn repair_from(
        &self,
        source: NodeId,
        partition: &Partition,
        damaged: &Damaged,
    ) -> Result<(), String> {
        let (mut repair, until) = partition.begin_repair(damaged).await.map_err(text)?;
        let marks = *partition.watermarks().borrow();
        if marks.high_watermark < until {
            return Err(format!(
                "only what is below {} is committed",
                marks.high_watermark
            ));
        }
        repair.skip_to(marks.log_start);
        let connecting = self.leaders.connect(source);
        let ends = self.sys.clock.timeout(PATIENCE, connecting).await;
        let ends = ends
            .map_err(|_| "it was not reached in time".to_owned())?
            .map_err(text)?;
        let budget = Budget::new(2 * FETCH_BYTES as usize);
        let mut stream = Stream::new(ends, &self.tasks, budget, Buffers::new(0));
        while !repair.is_full() {
            repair = self.fetch(&mut stream, partition, repair, until).await?;
        }
        let finish = move || repair.finish();
        let repaired = partition.work_on_repair(finish).await.map_err(text)?;
        partition.adopt_repair(repaired).await.map_err(text)
    }

    /// Fetches once, and takes over what came.
    async fn fetch(
        &self,
        stream: &mut Stream,
        partition: &Partition,
        mut repair: Repair,
        until: Offset,
    ) -> Result<Repair, String> {
        let data = self.ask(stream, partition, repair.next()).await?;
        match ErrorCode(data.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                let start = Offset(data.log_start_offset);
                if start <= repair.next() || start >= until {
                    return Err("it does not have these offsets".to_owned());
                }
                repair.skip_to(start);
                return Ok(repair);
            }
            code => return Err(format!("it refuses: {code}")),
        }
        let records = data.records.filter(|records| !records.is_empty());
        let bytes = records.ok_or("it has nothing there")?.into_bytes();
        let batches: Result<Vec<BatchView>, _> = Batches::new(bytes).collect();
        let batches = batches.map_err(text)?;
        let before = repair.next();
        let append = move || repair.append(batches).map(|()| repair);
        let repair = partition.work_on_repair(append).await.map_err(text)?;
        if repair.next() <= before {
            return Err("what it has does not go on there".to_owned());
        }
        Ok(repair)
    }

    async fn ask(
        &self,
        stream: &mut Stream,
        partition: &Partition,
        at: Offset,
    ) -> Result<PartitionData, String> {
        let name = partition.name();
        let wanted = FetchPartition {
            partition: name.index.value(),
            current_leader_epoch: -1,
            fetch_offset: at.value(),
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: FETCH_BYTES,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            // A consumer's: what is fetched says nothing of how far this replica is.
            replica_state: ReplicaState {
                replica_id: -1,
                replica_epoch: -1,
                ..ReplicaState::default()
            },
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: FETCH_BYTES,
            session_id: 0,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic_id: name.topic_id.into(),
                partitions: vec![wanted],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let client_id = Str::from_static("headwater-repair");
        let frame = encode_request(&request, VERSION, 0, Some(&client_id)).map_err(text)?;
        if !stream.send(frame) {
            return Err("the request could not be sent".to_owned());
        }
        let answer = self.sys.clock.timeout(PATIENCE, stream.answer()).await;
        let answer = answer
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(text)?;
        let (_, response) = decode_response::<FetchRequest>(answer.bytes, VERSION).map_err(text)?;
        if ErrorCode(response.error_code) != ErrorCode::NONE {
            return Err(format!("it refuses: {}", ErrorCode(response.error_code)));
        }
        let found = response.responses.into_iter().flat_map(|topic| topic.partitions);
        found
            .into_iter()
            .next()
            .ok_or_else(|| "it says nothing of the partition".to_owned())
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
