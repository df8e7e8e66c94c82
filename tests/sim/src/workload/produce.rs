//! An idempotent producer with `acks=all`: it sends each batch until it is answered, and never a record under two
//! sequence numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::init_producer_id::InitProducerIdRequest;
use headwater_protocol::kafka::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use headwater_protocol::primitives::{Records, Str};
use headwater_protocol::record::{BatchBuilder, BatchOptions, NewRecord, ProducerStamp};

use super::{Alive, Control};
use crate::client::{Client, Partition};
use crate::invariants::Violation;
use crate::machine::EPOCH_MS;
use crate::oracle::{Mark, Oracle};

/// How a producer works.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) records_max: u64,
    pub(crate) padding_max: u64,
    pub(crate) pause_ms_max: u64,
}

pub(crate) struct Producer {
    pub(crate) number: u32,
    pub(crate) client: Client,
    pub(crate) habits: Habits,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

/// A producer that has sent so many records takes its time from then on: more of them show nothing new, and cost much.
const EAGER_RECORDS: u64 = 10_000;
const PATIENT_MS: u64 = 60;

/// What comes next in one partition.
#[derive(Debug, Default, Clone, Copy)]
struct Next {
    sequence: i32,
    number: u32,
}

/// What an answer means to a batch.
enum Verdict {
    Acked { first: i64 },
    Again,
}

impl Producer {
    pub(crate) async fn run(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.producing);
        self.control.until_ready().await;
        let is_over = |control: &Control| Control::is_set(&control.stop_producing);
        let Some(id) = identity(&mut self.client, &self.control, is_over).await else {
            return;
        };
        let mut next: BTreeMap<Partition, Next> = BTreeMap::new();
        let mut sent = 0;
        while !self.is_over() {
            let index = self.client.random.below(self.habits.partitions.len() as u64) as usize;
            let partition = self.habits.partitions[index].clone();
            let at = next.entry(partition.clone()).or_default();
            let count = 1 + self.client.random.below(self.habits.records_max) as u32;
            let marks: Vec<Mark> = (0..count)
                .map(|i| Mark {
                    producer: self.number,
                    number: at.number + i,
                })
                .collect();
            let stamp = ProducerStamp {
                id,
                epoch: ProducerEpoch(0),
                base_sequence: at.sequence,
            };
            let batch = self.batch(&marks, stamp);
            marks
                .iter()
                .for_each(|mark| self.oracle.attempted(&partition, *mark));
            let Some(first) = self.deliver(&partition, batch, stamp).await else {
                return;
            };
            self.oracle.acked(&partition, first, &marks);
            at.number += count;
            at.sequence += i32::try_from(count).expect("a batch is small");
            sent += u64::from(count);
            let usual = self.habits.pause_ms_max;
            let pause = if sent < EAGER_RECORDS {
                usual
            } else {
                usual.max(PATIENT_MS)
            };
            self.client.pause_ms(pause).await;
        }
    }

    fn is_over(&self) -> bool {
        Control::is_set(&self.control.stop_producing)
    }

    fn batch(&self, marks: &[Mark], producer: ProducerStamp) -> Bytes {
        let options = BatchOptions {
            producer,
            ..BatchOptions::PLAIN
        };
        let values = marks.iter().map(|mark| (mark.number, format!("{mark}/")));
        padded_batch(&self.client, options, self.habits.padding_max, values)
    }

    /// Sends until it is acknowledged; answers with the first offset. None when the run is over.
    async fn deliver(&mut self, partition: &Partition, batch: Bytes, stamp: ProducerStamp) -> Option<i64> {
        while !self.is_over() {
            if let Some(leader) = self.client.leader(partition).await {
                match self.send(&leader.address, partition, batch.clone(), stamp).await {
                    Verdict::Acked { first } => return Some(first),
                    Verdict::Again => self.client.forget_leader(partition),
                }
            }
            self.control.retried();
            self.client.pause_ms(200).await;
        }
        None
    }

    async fn send(
        &mut self,
        address: &str,
        partition: &Partition,
        batch: Bytes,
        stamp: ProducerStamp,
    ) -> Verdict {
        let answer = send(&mut self.client, address, partition, batch, None).await;
        let Some((code, at)) = answer else {
            return Verdict::Again;
        };
        let sequence = stamp.base_sequence;
        self.client.note(format_args!(
            "produce {partition} sequence {sequence}: {code:?} at {at}"
        ));
        match code {
            ErrorCode::NONE => Verdict::Acked { first: at },
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
            | ErrorCode::UNKNOWN_PRODUCER_ID
            | ErrorCode::INVALID_PRODUCER_EPOCH => {
                let what = format!(
                    "{partition}: {code:?} for sequence {} of producer {}, who had every earlier batch acknowledged",
                    stamp.base_sequence, self.number
                );
                self.oracle.wrong(Violation::new("sequence", what));
                Verdict::Again
            }
            _ => Verdict::Again,
        }
    }
}

/// A batch of records with these numbers as their times, whose values begin so and are filled up at random.
pub(super) fn padded_batch(
    client: &Client,
    options: BatchOptions,
    padding_max: u64,
    records: impl Iterator<Item = (u32, String)>,
) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (number, mut value) in records {
        let padding = client.random.below(padding_max + 1) as usize;
        // Writing to a string cannot fail.
        let _ = write!(value, "{:x<padding$}", "");
        let record = NewRecord {
            timestamp_ms: EPOCH_MS + i64::from(number),
            value: Some(value.as_bytes()),
            ..NewRecord::default()
        };
        builder.append(&record).expect("a small record fits");
    }
    builder
        .build()
        .expect("it can be built")
        .expect("it is not empty")
}

/// An id for an idempotent producer. None when the run is over.
pub(super) async fn identity(
    client: &mut Client,
    control: &Control,
    is_over: impl Fn(&Control) -> bool,
) -> Option<ProducerId> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    while !is_over(control) {
        let address = client.any_node();
        let what = match client.call(&address, &request, 4).await {
            Ok(answer) if answer.error_code == 0 => return Some(ProducerId(answer.producer_id)),
            Ok(answer) => format!("{:?}", ErrorCode(answer.error_code)),
            Err(error) => error.to_string(),
        };
        client.note(format_args!("identity: {what}"));
        control.retried();
        client.pause_ms(200).await;
    }
    None
}

/// A transactional id, and the version of the request that says how a partition becomes part of the transaction.
pub(super) struct InTransaction {
    pub(super) id: String,
    pub(super) version: i16,
}

/// Sends one batch, once, with `acks=all`; answers with what came of it and where it begins.
pub(super) async fn send(
    client: &mut Client,
    address: &str,
    partition: &Partition,
    batch: Bytes,
    transaction: Option<InTransaction>,
) -> Option<(ErrorCode, i64)> {
    let request = ProduceRequest {
        transactional_id: transaction.as_ref().map(|of| Str::from(of.id.as_str())),
        acks: -1,
        timeout_ms: 2_000,
        topic_data: vec![TopicProduceData {
            name: Str::from(partition.topic.as_str()),
            partition_data: vec![PartitionProduceData {
                index: partition.index,
                records: Some(Records::from(batch)),
                ..PartitionProduceData::default()
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let version = transaction.map_or(9, |of| of.version);
    let answer = match client.call(address, &request, version).await {
        Ok(answer) => answer,
        Err(error) => {
            client.note(format_args!("produce {partition}: {error}"));
            return None;
        }
    };
    let mut answers = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    let answer = answers.next()?;
    Some((ErrorCode(answer.error_code), answer.base_offset))
}
