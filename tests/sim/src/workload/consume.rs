//! A consumer that reads every partition it is given from the front, now and then anew, and at last to the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use headwater_protocol::primitives::Str;
use headwater_protocol::record::{Batches, RECORDS_BYTES_MAX};

use super::{Alive, Control};
use crate::client::{Client, Partition};
use crate::invariants::Violation;
use crate::oracle::{Mark, Oracle};

/// It begins anew once in so many fetches.
const ANEW_ONE_IN: u64 = 300;
/// It asks any replica once in so many fetches (KIP-392), else the leader.
const REPLICA_ONE_IN: u64 = 4;

pub(crate) struct Consumer {
    pub(crate) number: u32,
    pub(crate) client: Client,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

impl Consumer {
    pub(crate) async fn run(mut self) {
        let _alive = Alive::new(&self.control, |control| &control.consuming);
        self.control.until_ready().await;
        let mut positions: BTreeMap<Partition, i64> = BTreeMap::new();
        while !Control::is_set(&self.control.stop_consuming) {
            let index = self.client.random.below(self.partitions.len() as u64) as usize;
            let partition = self.partitions[index].clone();
            let position = positions.entry(partition.clone()).or_default();
            if self.client.random.one_in(ANEW_ONE_IN) {
                *position = 0;
            }
            self.advance(&partition, position).await;
        }
        // What is left, up to the end.
        for partition in self.partitions.clone() {
            let position = positions.entry(partition.clone()).or_default();
            while !self.advance(&partition, position).await {}
        }
    }

    /// Reads what comes next. Whether that was all there is.
    async fn advance(&mut self, partition: &Partition, position: &mut i64) -> bool {
        if *position == 0 {
            self.oracle.reads_from(self.number, partition, 0);
        }
        let Some(found) = fetch(&mut self.client, partition, *position).await else {
            self.control.retried();
            self.client.forget_leader(partition);
            self.client.pause_ms(200).await;
            return false;
        };
        for (offset, mark) in found.records {
            self.oracle.fetched(self.number, partition, offset, mark);
        }
        if let Some(violation) = found.wrong {
            self.oracle.wrong(violation);
        }
        *position = found.next;
        found.is_end
    }
}

/// What a fetch brought.
pub(crate) struct Found {
    pub(crate) records: Vec<(i64, Mark)>,
    pub(crate) next: i64,
    /// The leader has no more that is committed.
    pub(crate) is_end: bool,
    pub(crate) wrong: Option<Violation>,
}

/// What a node answered.
pub(super) enum Asked {
    Data {
        data: Box<PartitionData>,
        is_leader: bool,
    },
    /// What was there once is not there any more.
    Gone(Violation),
    /// None that helps.
    Nothing,
}

/// What consumers see: all that is committed to the log, or of transactions only those that are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    Uncommitted,
    Committed,
}

/// Fetches one partition from `position` on; None when there is no answer, or none that helps.
pub(crate) async fn fetch(client: &mut Client, partition: &Partition, position: i64) -> Option<Found> {
    match ask(client, partition, position, Isolation::Uncommitted).await {
        Asked::Data { data, is_leader } => {
            let high_watermark = data.high_watermark;
            let mut found = read(partition, position, *data);
            found.is_end = is_leader && found.next >= high_watermark;
            Some(found)
        }
        Asked::Gone(violation) => Some(Found {
            records: Vec::new(),
            next: position,
            is_end: false,
            wrong: Some(violation),
        }),
        Asked::Nothing => None,
    }
}

/// Asks the leader, or now and then another replica, for what lies from `position` on.
pub(super) async fn ask(
    client: &mut Client,
    partition: &Partition,
    position: i64,
    isolation: Isolation,
) -> Asked {
    let Some(leader) = client.leader(partition).await else {
        return Asked::Nothing;
    };
    let any = client.random.below(leader.replicas.len().max(1) as u64) as usize;
    let replica = leader
        .replicas
        .get(any)
        .filter(|_| client.random.one_in(REPLICA_ONE_IN));
    let asked = replica.unwrap_or(&leader.address);
    let is_leader = *asked == leader.address;
    let request = FetchRequest {
        max_wait_ms: i32::try_from(client.random.below(300)).unwrap_or(0),
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: i8::from(isolation == Isolation::Committed),
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: Str::from(partition.topic.as_str()),
            partitions: vec![FetchPartition {
                partition: partition.index,
                fetch_offset: position,
                // A leader of the past must not answer for the present.
                current_leader_epoch: leader.epoch,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: 1 + i32::try_from(client.random.below(200_000)).unwrap_or(0),
                high_watermark: i64::MAX,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let Ok(mut answer) = client.call(asked, &request, 12).await else {
        return Asked::Nothing;
    };
    let Some(data) = answer
        .responses
        .pop()
        .and_then(|mut topic| topic.partitions.pop())
    else {
        return Asked::Nothing;
    };
    let code = ErrorCode(data.error_code);
    client.note(format_args!(
        "fetch {partition} from {position}: {code:?}, high watermark {}",
        data.high_watermark
    ));
    match code {
        ErrorCode::NONE => Asked::Data {
            data: Box::new(data),
            is_leader,
        },
        // Nothing is ever removed here: what could be read once must be there. A replica out of sync may lack it.
        ErrorCode::OFFSET_OUT_OF_RANGE if position > 0 && is_leader => {
            let what =
                format!("{partition}: offset {position} was reached by a consumer and is out of range now");
            Asked::Gone(Violation::new("committed data stays", what))
        }
        _ => Asked::Nothing,
    }
}

/// Takes the batches apart; each must be whole, and none may be missing between them.
fn read(partition: &Partition, position: i64, data: PartitionData) -> Found {
    let mut found = Found {
        records: Vec::new(),
        next: position,
        is_end: false,
        wrong: None,
    };
    let bytes = data.records.unwrap_or_default().into_bytes();
    for batch in Batches::new(bytes) {
        let wrong =
            |name, what: String| Some(Violation::new(name, format!("{partition} at {position}: {what}")));
        let batch = match batch {
            Ok(batch) => batch,
            // The last may be cut off by the limit of a fetch.
            Err(_) => break,
        };
        if let Err(error) = batch.check_crc() {
            found.wrong = wrong("checksums", error.to_string());
            break;
        }
        let (base, next) = (batch.base_offset().value(), batch.next_offset().value());
        if base > found.next {
            found.wrong = wrong(
                "gapless offsets",
                format!("a batch at {base} follows offset {}", found.next),
            );
            break;
        }
        let records = batch
            .records(RECORDS_BYTES_MAX)
            .expect("a produced batch unfolds");
        for record in records.iter() {
            let record = record.expect("a produced record can be read");
            let offset = base + i64::from(record.offset_delta);
            let Some(mark) = Mark::read(record.value.unwrap_or_default()) else {
                found.wrong = wrong("no phantom", format!("the record at {offset} is nobody's"));
                return found;
            };
            if offset >= position {
                found.records.push((offset, mark));
            }
        }
        found.next = found.next.max(next);
    }
    found
}
