//! Writing to several partitions in one transaction.

use bytes::Bytes;
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::record::{BatchOptions, ProducerStamp};

use super::super::produce::{self, InTransaction};
use super::{Flow, Producer, Stop, Tenure, Transactor, Written, id_of};
use crate::client::Partition;
use crate::invariants::Violation;
use crate::invariants::transactions::{Part, TransactionNumber};

/// What an answer means to a batch.
enum Verdict {
    Acked(i64),
    Again,
    Stop(Stop),
}

impl Transactor {
    /// Records for two or three partitions.
    pub(super) async fn write(
        &mut self,
        tenure: &mut Tenure,
        of: TransactionNumber,
    ) -> Result<Written, Stop> {
        let wanted = 2 + self.client.random.below(2) as usize;
        let chosen = self.some_outputs(wanted);
        let is_named_at_once = self.client.random.one_in(2);
        if is_named_at_once {
            self.name_partitions(tenure, &chosen).await?;
        }
        let mut first = 0;
        for partition in &chosen {
            if !is_named_at_once {
                self.name_partitions(tenure, std::slice::from_ref(partition))
                    .await?;
            }
            let count = 1 + self.client.random.below(self.plan.records_max) as usize;
            let parts = Self::parts(of, first, &vec!["-".to_owned(); count]);
            first += parts.len() as u32;
            self.produce(tenure, partition, &parts).await?;
        }
        Ok(Written::Records)
    }

    /// So many different ones, or all there are.
    pub(super) fn some_outputs(&self, wanted: usize) -> Vec<Partition> {
        let mut left = self.outputs.clone();
        let mut chosen = Vec::new();
        while chosen.len() < wanted && !left.is_empty() {
            let place = self.client.random.below(left.len() as u64) as usize;
            chosen.push(left.swap_remove(place));
        }
        chosen
    }

    /// Sends one batch until it is acknowledged, or gives it up.
    pub(super) async fn produce(
        &mut self,
        tenure: &mut Tenure,
        partition: &Partition,
        parts: &[(Part, String)],
    ) -> Result<(), Stop> {
        let sequence = tenure.sequences.get(partition).copied().unwrap_or(0);
        let batch = self.batch(tenure.producer, sequence, parts);
        for (part, _) in parts {
            self.oracle.attempted_in_transaction(partition, *part);
        }
        let tries = 2 + self.client.random.below(20);
        for _ in 0..tries {
            if let Some(leader) = self.client.leader(partition).await {
                let sent = self.send(tenure, &leader.address, partition, batch.clone()).await;
                match sent {
                    Verdict::Acked(first) => {
                        let parts: Vec<Part> = parts.iter().map(|(part, _)| *part).collect();
                        self.oracle.acked_in_transaction(partition, first, &parts);
                        let count = i32::try_from(parts.len()).expect("a batch is small");
                        tenure.sequences.insert(partition.clone(), sequence + count);
                        return Ok(());
                    }
                    Verdict::Again => self.client.forget_leader(partition),
                    Verdict::Stop(stop) => return Err(stop),
                }
            }
            self.again().await?;
        }
        self.client.note(format_args!("gives up a batch for {partition}"));
        tenure.is_doubtful = true;
        Err(Stop::Undone)
    }

    fn batch(&self, producer: Producer, base_sequence: i32, parts: &[(Part, String)]) -> Bytes {
        let options = BatchOptions {
            producer: ProducerStamp {
                id: ProducerId(producer.id),
                epoch: ProducerEpoch(producer.epoch),
                base_sequence,
            },
            transactional: true,
            ..BatchOptions::PLAIN
        };
        let value = |(part, behind): &(Part, String)| (part.of.number, format!("{part}/{behind}/"));
        let values = parts.iter().map(value);
        produce::padded_batch(&self.client, options, self.plan.padding_max, values)
    }

    async fn send(
        &mut self,
        tenure: &mut Tenure,
        address: &str,
        partition: &Partition,
        batch: Bytes,
    ) -> Verdict {
        let transaction = InTransaction {
            id: id_of(self.owner),
            version: match tenure.flow {
                Flow::Client => 9,
                Flow::Leader => 12,
            },
        };
        let sent = produce::send(&mut self.client, address, partition, batch, Some(transaction));
        let Some((code, at)) = sent.await else {
            return Verdict::Again;
        };
        let Producer { id, epoch } = tenure.producer;
        self.client.note(format_args!(
            "produce {partition} as {id}/{epoch}: {code:?} at {at}"
        ));
        self.judge_produce(tenure, partition, code, at)
    }

    fn judge_produce(&self, tenure: &mut Tenure, partition: &Partition, code: ErrorCode, at: i64) -> Verdict {
        match code {
            ErrorCode::NONE => Verdict::Acked(at),
            ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => Verdict::Stop(Stop::Replaced),
            // Its leader was replaced between asking the coordinator and writing.
            ErrorCode::INVALID_TXN_STATE => {
                self.control.count("unverified");
                tenure.is_doubtful = true;
                Verdict::Stop(Stop::Undone)
            }
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
            | ErrorCode::UNKNOWN_PRODUCER_ID
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING => {
                let Producer { id, epoch } = tenure.producer;
                let what = format!(
                    "{partition}: {code:?} for x{} as {id}/{epoch}, who had every earlier batch acknowledged",
                    self.owner
                );
                self.oracle.wrong(Violation::new("sequence", what));
                Verdict::Stop(Stop::Replaced)
            }
            _ => Verdict::Again,
        }
    }
}
