//! Copying: records of an input go to an output, and the offset up to which they were copied is committed, in one transaction.

use std::collections::BTreeMap;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::add_offsets_to_txn::AddOffsetsToTxnRequest;
use headwater_protocol::kafka::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use headwater_protocol::kafka::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use headwater_protocol::primitives::Str;

use super::coordinate::Asked;
use super::{Flow, Stop, Tenure, Transactor, Written, group_of, id_of};
use crate::client::{Client, Coordinated, Partition};
use crate::invariants::copies::Input;
use crate::invariants::transactions::TransactionNumber;
use crate::workload::consume;

/// Of one input, in one transaction.
const RECORDS_MAX: u64 = 6;
/// Before a commit of offsets is given up.
const TRIES: u32 = 15;

impl Transactor {
    /// Copies what comes next of an input, to one or two outputs.
    pub(super) async fn copy(
        &mut self,
        tenure: &mut Tenure,
        of: TransactionNumber,
        inputs: &[Partition],
    ) -> Result<Written, Stop> {
        let input = &inputs[self.client.random.below(inputs.len() as u64) as usize];
        let position = match tenure.positions.get(input) {
            Some(position) => *position,
            None => self.position(input).await?,
        };
        let Some(found) = consume::fetch(&mut self.client, input, position).await else {
            self.client.forget_leader(input);
            self.again().await?;
            return Ok(Written::Nothing);
        };
        let count = 1 + self.client.random.below(RECORDS_MAX) as usize;
        let offsets: Vec<i64> = found
            .records
            .iter()
            .map(|(offset, _)| *offset)
            .take(count)
            .collect();
        let Some(next) = offsets.last().map(|last| last + 1) else {
            self.client.pause_ms(300).await;
            return Ok(Written::Nothing);
        };
        let (copier, index) = (self.owner, input.index);
        let mut by_output: BTreeMap<Partition, Vec<String>> = BTreeMap::new();
        let outputs = self.some_outputs(2);
        for offset in offsets {
            let output = &outputs[self.client.random.below(outputs.len() as u64) as usize];
            let copied = Input {
                copier,
                index,
                offset,
            };
            by_output
                .entry(output.clone())
                .or_default()
                .push(copied.to_string());
        }
        let mut first = 0;
        for (output, copied) in by_output {
            let parts = Self::parts(of, first, &copied);
            first += parts.len() as u32;
            self.name_partitions(tenure, std::slice::from_ref(&output))
                .await?;
            self.produce(tenure, &output, &parts).await?;
        }
        self.commit_offset(tenure, input, next).await?;
        Ok(Written::Copies(input.clone(), next))
    }

    /// Where it goes on, when no transaction is open that may still move that.
    async fn position(&mut self, input: &Partition) -> Result<i64, Stop> {
        let what = Coordinated::Group(group_of(self.owner));
        loop {
            if let Some(position) = committed(&mut self.client, &what, input).await {
                return Ok(position.max(0));
            }
            self.again().await?;
        }
    }

    async fn commit_offset(&mut self, tenure: &mut Tenure, input: &Partition, next: i64) -> Result<(), Stop> {
        self.name_offsets(tenure).await?;
        let request = TxnOffsetCommitRequest {
            transactional_id: Str::from(id_of(self.owner).as_str()),
            group_id: Str::from(group_of(self.owner).as_str()),
            producer_id: tenure.producer.id,
            producer_epoch: tenure.producer.epoch,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: Str::from(input.topic.as_str()),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: input.index,
                    committed_offset: next,
                    committed_leader_epoch: -1,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let version = match tenure.flow {
            Flow::Client => 3,
            Flow::Leader => 5,
        };
        let what = Coordinated::Group(group_of(self.owner));
        for _ in 0..TRIES {
            match self.ask(&what, &request, version).await {
                Asked::Answer(answer) => {
                    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
                    let code = partitions.next().map(|partition| ErrorCode(partition.error_code));
                    match code {
                        Some(ErrorCode::NONE) => return Ok(()),
                        Some(code) => self.heed(code, tenure, &what)?,
                        None => {}
                    }
                }
                Asked::NotSent => {}
                // One that comes late would move the offset back.
                Asked::Unanswered => tenure.is_doubtful = true,
            }
            self.again().await?;
        }
        tenure.is_doubtful = true;
        Err(Stop::Undone)
    }

    /// Makes the group's offsets part of the transaction, where that is the client's to do.
    async fn name_offsets(&mut self, tenure: &Tenure) -> Result<(), Stop> {
        if tenure.flow == Flow::Leader {
            return Ok(());
        }
        let request = AddOffsetsToTxnRequest {
            transactional_id: Str::from(id_of(self.owner).as_str()),
            producer_id: tenure.producer.id,
            producer_epoch: tenure.producer.epoch,
            group_id: Str::from(group_of(self.owner).as_str()),
            ..AddOffsetsToTxnRequest::default()
        };
        let what = Coordinated::Transaction(id_of(self.owner));
        loop {
            if let Asked::Answer(answer) = self.ask(&what, &request, 3).await {
                match ErrorCode(answer.error_code) {
                    ErrorCode::NONE => return Ok(()),
                    code => self.heed(code, tenure, &what)?,
                }
            }
            self.again().await?;
        }
    }
}

/// The offset that a group has committed of a partition, -1 if none. None: nobody says, or it may still change.
pub(crate) async fn committed(client: &mut Client, what: &Coordinated, of: &Partition) -> Option<i64> {
    let request = OffsetFetchRequest {
        group_id: Str::from(what.key()),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: Str::from(of.topic.as_str()),
            partition_indexes: vec![of.index],
            ..OffsetFetchRequestTopic::default()
        }]),
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    let address = client.coordinator(what).await?;
    let answer = client.call(&address, &request, 7).await;
    let found = answer.ok().and_then(|answer| {
        let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        partitions.next().map(|found| (answer.error_code, found))
    });
    let Some((0, found)) = found.filter(|(_, found)| found.error_code == 0) else {
        client.forget_coordinator(what);
        return None;
    };
    client.note(format_args!(
        "hears that {what:?} committed {of}: {}",
        found.committed_offset
    ));
    Some(found.committed_offset)
}
