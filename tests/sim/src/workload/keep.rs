//! A compacted topic: clients that write one version of a key after the other, tombstones among them, and readers that go through
//! it from front to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::record::{
    BatchBuilder, BatchOptions, BatchView, Batches, HeaderRef, NewRecord, ProducerStamp, RECORDS_BYTES_MAX,
};
use tokio::time::Instant;

use super::admin::NewTopic;
use super::consume::{Asked, Isolation, ask};
use super::{Alive, Control, produce};
use crate::client::{Client, Partition};
use crate::invariants::Violation;
use crate::invariants::keys::{Key, Pass, Version};
use crate::machine::EPOCH_MS;
use crate::oracle::Oracle;

/// The topic that is compacted.
pub(crate) const TOPIC: &str = "kept";
/// Where a record says which version it is: a tombstone has no value.
const VERSION: &str = "version";
/// One in so many records is a tombstone.
const TOMBSTONE_ONE_IN: u64 = 5;

/// What there is of a compacted topic in a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) topic: NewTopic,
    pub(crate) writers: u32,
    /// Of each writer.
    pub(crate) keys: u32,
    pub(crate) readers: u32,
    pub(crate) records_max: u64,
    pub(crate) padding_max: u64,
    pub(crate) pause_ms_max: u64,
    /// How long tombstones are kept.
    pub(crate) tombstones_ms: u64,
    /// How long the cleaner rests.
    pub(crate) rest_ms: u64,
}

pub(crate) struct Writer {
    pub(crate) number: u32,
    pub(crate) client: Client,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) plan: Plan,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

impl Writer {
    pub(crate) async fn run(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.producing);
        self.control.until_ready().await;
        let is_over = |control: &Control| Control::is_set(&control.stop_producing);
        let Some(id) = produce::identity(&mut self.client, &self.control, is_over).await else {
            return;
        };
        let mut sequences: BTreeMap<Partition, i32> = BTreeMap::new();
        let mut versions: BTreeMap<Key, u32> = BTreeMap::new();
        while !is_over(&self.control) {
            let place = self.client.random.below(self.partitions.len() as u64) as usize;
            let partition = self.partitions[place].clone();
            let records = self.next(place as u32, &mut versions);
            for (key, version) in &records {
                self.oracle.tried_key(&partition, *key, *version);
            }
            let sequence = sequences.entry(partition.clone()).or_default();
            let batch = self.batch(id, *sequence, &records);
            let Some(first) = self.deliver(&partition, batch).await else {
                return;
            };
            *sequence += i32::try_from(records.len()).expect("a batch is small");
            self.oracle.acked_keys(&partition, first, &records);
            self.client.pause_ms(self.plan.pause_ms_max).await;
        }
    }

    /// New versions of some of the keys that belong to a partition.
    fn next(&self, place: u32, versions: &mut BTreeMap<Key, u32>) -> Vec<(Key, Version)> {
        let partitions = self.partitions.len() as u32;
        let count = 1 + self.client.random.below(self.plan.records_max);
        let record = |_| {
            let number = self.client.random.below(u64::from(self.plan.keys)) as u32;
            let key = Key {
                writer: self.number,
                number: number * partitions + place,
            };
            let version = versions.entry(key).or_default();
            *version += 1;
            let is_tombstone = self.client.random.one_in(TOMBSTONE_ONE_IN);
            let number = *version;
            (key, Version { number, is_tombstone })
        };
        (0..count).map(record).collect()
    }

    fn batch(&self, id: ProducerId, base_sequence: i32, records: &[(Key, Version)]) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer: ProducerStamp {
                id,
                epoch: ProducerEpoch(0),
                base_sequence,
            },
            ..BatchOptions::PLAIN
        });
        for (key, version) in records {
            let padding = self.client.random.below(self.plan.padding_max + 1) as usize;
            let (key, value, number) = (key.to_string(), vec![b'x'; padding], version.number.to_string());
            let header = HeaderRef {
                key: VERSION,
                value: Some(number.as_bytes()),
            };
            let record = NewRecord {
                timestamp_ms: EPOCH_MS + i64::from(version.number),
                key: Some(key.as_bytes()),
                value: (!version.is_tombstone).then_some(value.as_slice()),
                headers: &[header],
            };
            builder.append(&record).expect("a small record fits");
        }
        builder
            .build()
            .expect("it can be built")
            .expect("it is not empty")
    }

    /// Sends until it is acknowledged; answers with the first offset. None when the run is over.
    async fn deliver(&mut self, partition: &Partition, batch: Bytes) -> Option<i64> {
        while !Control::is_set(&self.control.stop_producing) {
            if let Some(leader) = self.client.leader(partition).await {
                let sent = produce::send(&mut self.client, &leader.address, partition, batch.clone(), None);
                match sent.await {
                    Some((ErrorCode::NONE, first)) => return Some(first),
                    Some((ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, _)) => {
                        let what = format!("{partition}: a batch of writer {} is out of order", self.number);
                        self.oracle.wrong(Violation::new("sequence", what));
                    }
                    Some(_) | None => {}
                }
                self.client.forget_leader(partition);
            }
            self.control.retried();
            self.client.pause_ms(200).await;
        }
        None
    }
}

pub(crate) struct Reader {
    pub(crate) client: Client,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) tombstones: Duration,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

impl Reader {
    pub(crate) async fn run(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.consuming);
        self.control.until_ready().await;
        let is_over = |control: &Control| Control::is_set(&control.stop_consuming);
        while !is_over(&self.control) {
            let place = self.client.random.below(self.partitions.len() as u64) as usize;
            let partition = self.partitions[place].clone();
            if self.pass(&partition, is_over).await.is_some() {
                self.control.count("passes");
            }
            self.client.pause_ms(1_000).await;
        }
    }

    /// Goes through everything when nobody writes any more.
    pub(crate) async fn judge(mut self) {
        for partition in self.partitions.clone() {
            if let Some(end) = self.pass(&partition, |_| false).await {
                self.oracle.keys_end(&partition, end);
            }
        }
    }

    /// Reads a partition from front to end; answers with the end, if it came there.
    async fn pass(&mut self, partition: &Partition, is_over: impl Fn(&Control) -> bool) -> Option<i64> {
        let began = Instant::now();
        let mut pass = Pass::new(partition);
        let mut position = 0;
        while !is_over(&self.control) {
            match ask(&mut self.client, partition, position, Isolation::Uncommitted).await {
                Asked::Data { data, is_leader } => {
                    let high_watermark = data.high_watermark;
                    for batch in Batches::new(data.records.unwrap_or_default().into_bytes()) {
                        // The last may be cut off by the limit of a fetch.
                        let Ok(batch) = batch else { break };
                        self.see(&mut pass, position, &batch);
                        position = position.max(batch.next_offset().value());
                    }
                    if is_leader && position >= high_watermark {
                        let may_miss = began.elapsed() >= self.tombstones;
                        self.oracle.ends_pass(&pass, position, may_miss);
                        return Some(position);
                    }
                }
                Asked::Gone(violation) => self.oracle.wrong(violation),
                Asked::Nothing => {
                    self.control.retried();
                    self.client.forget_leader(partition);
                    self.client.pause_ms(100).await;
                }
            }
        }
        None
    }

    fn see(&self, pass: &mut Pass, position: i64, batch: &BatchView) {
        if let Err(error) = batch.check_crc() {
            self.oracle.wrong(Violation::new("checksums", error.to_string()));
            return;
        }
        let records = batch
            .records(RECORDS_BYTES_MAX)
            .expect("a produced batch unfolds");
        for record in records.iter() {
            let record = record.expect("a produced record can be read");
            let offset = batch.base_offset().value() + i64::from(record.offset_delta);
            if offset < position {
                continue;
            }
            let mut headers = record.headers.filter_map(Result::ok);
            let version = headers.find(|header| header.key == VERSION.as_bytes());
            let number = version.and_then(|header| std::str::from_utf8(header.value?).ok()?.parse().ok());
            let key = record.key.and_then(Key::read);
            let (Some(number), Some(key)) = (number, key) else {
                let what = format!("the record at {offset} is nobody's");
                self.oracle.wrong(Violation::new("no phantom", what));
                return;
            };
            let is_tombstone = record.value.is_none();
            let version = Version { number, is_tombstone };
            self.oracle.sees_key(pass, offset, key, version);
        }
    }
}
