//! Partitions that another node leads, asked as a Kafka client asks: Produce, Fetch, DeleteRecords.

use super::{Cluster, PAUSE_MAX, READ_BYTES, failed};
use crate::partition::PartitionName;
use crate::transform::{OutsideError, Read};
use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{NodeId, Offset, ProducerId};
use headwater_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use headwater_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use headwater_protocol::kafka::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use headwater_protocol::kafka::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use headwater_protocol::kafka::{ErrorCode, Request};
use headwater_protocol::primitives::{Records, Str};
use headwater_protocol::record::{Aborted, Batches};
use std::time::Duration;

/// The first versions that name topics by their ids: a topic made again by the same name is another one.
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 13;
const DELETE_VERSION: i16 = 2;
const LIST_VERSION: i16 = 7;
/// Stands for the end, in ListOffsets.
const LATEST: i64 = -1;
const READ_COMMITTED: i8 = 1;
const ACKS_ALL: i16 = -1;
/// How long another node may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long another node waits for records that somebody here waits for.
const NEWER_WAIT_MS: i32 = 5_000;

impl Cluster {
    /// Appends on another node, and waits until all in-sync replicas have it. Gives the offset of the first record.
    pub(super) async fn produce(
        &self,
        leader: NodeId,
        to: &PartitionName,
        batches: Bytes,
        transactional_id: Option<&str>,
    ) -> Result<Offset, OutsideError> {
        let mut records = Records::default();
        records.push(batches);
        let data = TopicProduceData {
            topic_id: to.topic_id.into(),
            partition_data: vec![PartitionProduceData {
                index: to.index.value(),
                records: Some(records),
                ..PartitionProduceData::default()
            }],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            transactional_id: transactional_id.map(Str::from),
            acks: ACKS_ALL,
            timeout_ms: i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![data],
            ..ProduceRequest::default()
        };
        let answer = self.ask_node(leader, to, &request, PRODUCE_VERSION).await?;
        let topics = answer.responses.into_iter();
        let answered = topics.flat_map(|topic| topic.partition_responses).next();
        let answered = answered.ok_or_else(|| failed(to, "passed over by its leader"))?;
        let reason = || match &answered.error_message {
            Some(message) => message.to_string(),
            None => ErrorCode(answered.error_code).to_string(),
        };
        match ErrorCode(answered.error_code) {
            ErrorCode::NONE => Ok(Offset(answered.base_offset)),
            ErrorCode::CORRUPT_MESSAGE
            | ErrorCode::MESSAGE_TOO_LARGE
            | ErrorCode::RECORD_LIST_TOO_LARGE
            | ErrorCode::INVALID_RECORD
            | ErrorCode::INVALID_TIMESTAMP
            | ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
            | ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT => Err(OutsideError::Refused(reason())),
            ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::PRODUCER_FENCED
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING => Err(OutsideError::Fenced),
            _ => Err(failed(to, reason())),
        }
    }

    /// Where what is committed on another node ends. A new leader that does not know it yet is asked again.
    pub(super) async fn list_end(&self, leader: NodeId, of: &PartitionName) -> Result<Offset, OutsideError> {
        let partition = ListOffsetsPartition {
            partition_index: of.index.value(),
            current_leader_epoch: -1,
            timestamp: LATEST,
            ..ListOffsetsPartition::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: READ_COMMITTED,
            topics: vec![ListOffsetsTopic {
                name: Str::from(&*of.topic),
                partitions: vec![partition],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let until = self.parts.clock.now() + PATIENCE;
        loop {
            let answer = self.ask_node(leader, of, &request, LIST_VERSION).await?;
            let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
            let found = partitions.next();
            let found = found.ok_or_else(|| failed(of, "passed over by its leader"))?;
            match ErrorCode(found.error_code) {
                ErrorCode::NONE => return Ok(Offset(found.offset)),
                ErrorCode::OFFSET_NOT_AVAILABLE if self.parts.clock.now() < until => {
                    self.parts.clock.sleep(PAUSE_MAX).await;
                }
                code => return Err(failed(of, code)),
            }
        }
    }

    /// Reads what is committed on another node.
    pub(super) async fn fetch(
        &self,
        leader: NodeId,
        of: &PartitionName,
        from: Offset,
    ) -> Result<Read, OutsideError> {
        let mut from = from;
        loop {
            let data = self.fetch_once(leader, of, from, 0).await?;
            match ErrorCode(data.error_code) {
                ErrorCode::NONE => return seen(of, data, from),
                // Its beginning was deleted meanwhile.
                ErrorCode::OFFSET_OUT_OF_RANGE if data.log_start_offset > from.value() => {
                    from = Offset(data.log_start_offset);
                }
                code => return Err(failed(of, code)),
            }
        }
    }

    /// Returns when another node has records from an offset on, or has waited for some.
    pub(super) async fn await_newer(
        &self,
        leader: NodeId,
        of: &PartitionName,
        from: Offset,
    ) -> Result<(), OutsideError> {
        let data = self.fetch_once(leader, of, from, NEWER_WAIT_MS).await?;
        match ErrorCode(data.error_code) {
            // Whoever reads next begins where there is something.
            ErrorCode::NONE | ErrorCode::OFFSET_OUT_OF_RANGE => Ok(()),
            code => Err(failed(of, code)),
        }
    }

    async fn fetch_once(
        &self,
        leader: NodeId,
        of: &PartitionName,
        from: Offset,
        wait_ms: i32,
    ) -> Result<PartitionData, OutsideError> {
        let bytes_max = i32::try_from(READ_BYTES).unwrap_or(i32::MAX);
        let partition = FetchPartition {
            partition: of.index.value(),
            fetch_offset: from.value(),
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: bytes_max,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: i32::from(wait_ms > 0),
            max_bytes: bytes_max,
            isolation_level: READ_COMMITTED,
            topics: vec![FetchTopic {
                topic_id: of.topic_id.into(),
                partitions: vec![partition],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let answer = self.ask_node(leader, of, &request, FETCH_VERSION).await?;
        if answer.error_code != ErrorCode::NONE.0 {
            return Err(failed(of, ErrorCode(answer.error_code)));
        }
        let topics = answer.responses.into_iter();
        let data = topics.flat_map(|topic| topic.partitions).next();
        data.ok_or_else(|| failed(of, "passed over by its leader"))
    }

    pub(super) async fn delete(
        &self,
        leader: NodeId,
        of: &PartitionName,
        before: Offset,
    ) -> Result<(), OutsideError> {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: Str::from(&*of.topic),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: of.index.value(),
                    offset: before.value(),
                    ..DeleteRecordsPartition::default()
                }],
                ..DeleteRecordsTopic::default()
            }],
            timeout_ms: i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX),
            ..DeleteRecordsRequest::default()
        };
        let answer = self.ask_node(leader, of, &request, DELETE_VERSION).await?;
        let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        match partitions.next().map(|partition| ErrorCode(partition.error_code)) {
            Some(ErrorCode::NONE) => Ok(()),
            Some(code) => Err(failed(of, code)),
            None => Err(failed(of, "passed over by its leader")),
        }
    }

    async fn ask_node<R: Request>(
        &self,
        leader: NodeId,
        name: &PartitionName,
        request: &R,
        version: i16,
    ) -> Result<R::Response, OutsideError> {
        let client_id = Str::from_static("headwater-transform");
        let asked = self
            .parts
            .peers
            .ask(leader, request, version, &client_id, PATIENCE);
        asked.await.map_err(|error| failed(name, error))
    }
}

/// What a consumer that reads committed records sees of an answer.
fn seen(of: &PartitionName, data: PartitionData, from: Offset) -> Result<Read, OutsideError> {
    let records = data.records.unwrap_or_default().into_bytes();
    let bytes = records.len();
    let aborted = data.aborted_transactions.unwrap_or_default().into_iter();
    let aborted = aborted.map(|named| (ProducerId(named.producer_id), Offset(named.first_offset)));
    let mut aborted = Aborted::new(aborted);
    let (mut batches, mut next) = (BytesMut::with_capacity(bytes), from);
    for batch in Batches::new(records) {
        let batch = batch.map_err(|error| failed(of, error))?;
        next = next.max(batch.next_offset());
        let is_hidden = aborted.hides(&batch);
        // Markers are shown, whatever they end.
        if !is_hidden || batch.header().is_control() {
            batches.extend_from_slice(batch.bytes());
        }
    }
    Ok(Read {
        batches: batches.freeze(),
        bytes,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::ids::{PartitionIndex, ProducerEpoch, TopicId};
    use headwater_protocol::kafka::fetch::AbortedTransaction;
    use headwater_protocol::record::{
        BatchBuilder, BatchHeader, BatchOptions, ControlKind, EndTransaction, NewRecord, ProducerStamp,
    };

    /// A batch of one record at an offset; with an end, the marker of a transaction.
    fn batch(at: i64, producer: i64, end: Option<ControlKind>) -> Bytes {
        let end = end.map(|kind| EndTransaction {
            kind,
            coordinator_epoch: 0,
        });
        let mut builder = BatchBuilder::new(BatchOptions {
            producer: ProducerStamp {
                id: ProducerId(producer),
                epoch: ProducerEpoch(0),
                base_sequence: -1,
            },
            transactional: producer >= 0,
            control: end.is_some(),
            ..BatchOptions::PLAIN
        });
        let (key, value) = match end {
            Some(end) => (end.key().to_vec(), end.value().to_vec()),
            None => (Vec::new(), at.to_string().into_bytes()),
        };
        let record = NewRecord {
            key: Some(&key),
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
        let mut batch = BytesMut::from(builder.build().unwrap().unwrap().as_ref());
        BatchHeader::stamp(&mut batch, Offset(at), headwater_protocol::ids::LeaderEpoch(0));
        batch.freeze()
    }

    #[test]
    fn of_an_answer_only_what_was_committed_is_seen() {
        let (commit, abort) = (Some(ControlKind::Commit), Some(ControlKind::Abort));
        // Producer 7 gives up, begins anew and commits; 8 gives up what began before this answer; 12 is in no transaction.
        let log = [
            (10, 8, None),
            (11, 7, None),
            (12, -1, None),
            (13, 8, abort),
            (14, 7, abort),
            (15, 7, None),
            (16, 8, None),
            (17, 7, commit),
            (18, 8, commit),
        ];
        let mut records = Records::default();
        for (at, producer, end) in log {
            records.push(batch(at, producer, end));
        }
        let aborted = [(8, 4), (7, 11)].map(|(producer_id, first_offset)| AbortedTransaction {
            producer_id,
            first_offset,
            ..AbortedTransaction::default()
        });
        let data = PartitionData {
            records: Some(records),
            aborted_transactions: Some(aborted.into()),
            ..PartitionData::default()
        };
        let name = PartitionName {
            topic_id: TopicId([1; 16]),
            topic: "t".into(),
            index: PartitionIndex(0),
        };
        let read = seen(&name, data, Offset(10)).unwrap();
        let batches = Batches::new(read.batches).map(Result::unwrap);
        let offsets: Vec<_> = batches
            .filter(|batch| !batch.header().is_control())
            .map(|batch| batch.base_offset().value())
            .collect();
        assert_eq!(offsets, [12, 15, 16]);
        assert_eq!(read.next, Offset(19));
    }
}
