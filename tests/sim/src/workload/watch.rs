//! A reader of what is committed (`read_committed`): it leaves out what the leader says was aborted, as every Kafka client does,
//! and tells what it saw and what it passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::kafka::fetch::{AbortedTransaction, PartitionData};
use headwater_protocol::record::{BatchView, Batches, ControlKind, EndTransaction, RECORDS_BYTES_MAX};

use super::consume::{Asked, Isolation, ask};
use super::{Alive, Control};
use crate::client::{Client, Partition};
use crate::invariants::Violation;
use crate::invariants::copies::Input;
use crate::invariants::transactions::Part;
use crate::oracle::Oracle;

/// It begins anew once in so many fetches.
const ANEW_ONE_IN: u64 = 150;

pub(crate) struct Watcher {
    pub(crate) client: Client,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) oracle: Oracle,
    pub(crate) control: Arc<Control>,
}

impl Watcher {
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
            if advance(&mut self.client, &self.oracle, &partition, position)
                .await
                .is_none()
            {
                self.control.retried();
                self.client.forget_leader(&partition);
                self.client.pause_ms(200).await;
            }
        }
    }
}

/// Reads everything of these partitions, which nobody writes to any more, from front to end.
pub(crate) async fn read_all(mut client: Client, oracle: Oracle, partitions: Vec<Partition>) {
    for partition in partitions {
        let mut position = 0;
        loop {
            match advance(&mut client, &oracle, &partition, &mut position).await {
                Some(Reach::End) => break,
                Some(Reach::More) => {}
                None => {
                    client.forget_leader(&partition);
                    client.pause_ms(100).await;
                }
            }
        }
    }
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To the end of what is in the log for good, transactions or not.
    End,
    More,
}

/// Reads what comes next, and tells of it. None: nobody answers.
async fn advance(
    client: &mut Client,
    oracle: &Oracle,
    partition: &Partition,
    position: &mut i64,
) -> Option<Reach> {
    let from = *position;
    let (data, is_leader) = match ask(client, partition, from, Isolation::Committed).await {
        Asked::Data { data, is_leader } => (data, is_leader),
        Asked::Gone(violation) => {
            oracle.wrong(violation);
            return None;
        }
        Asked::Nothing => return None,
    };
    let high_watermark = data.high_watermark;
    match read(from, *data) {
        Ok(Seen { parts, next }) => {
            oracle.read_committed(partition, from, next, &parts);
            *position = next;
            Some(match is_leader && next >= high_watermark {
                true => Reach::End,
                false => Reach::More,
            })
        }
        Err((invariant, what)) => {
            oracle.wrong(Violation::new(
                invariant,
                format!("{partition} from {from}: {what}"),
            ));
            None
        }
    }
}

/// What a fetch brought.
struct Seen {
    parts: BTreeMap<i64, (Part, Option<Input>)>,
    next: i64,
}

type Breach = (&'static str, String);

/// Takes the batches apart, and leaves out what was aborted.
fn read(position: i64, data: PartitionData) -> Result<Seen, Breach> {
    let mut seen = Seen {
        parts: BTreeMap::new(),
        next: position,
    };
    let last_stable = data.last_stable_offset;
    let mut aborting = Aborting::new(data.aborted_transactions.unwrap_or_default());
    for batch in Batches::new(data.records.unwrap_or_default().into_bytes()) {
        // The last may be cut off by the limit of a fetch.
        let Ok(batch) = batch else { break };
        if let Err(error) = batch.check_crc() {
            return Err(("checksums", error.to_string()));
        }
        let (base, next) = (batch.base_offset().value(), batch.next_offset().value());
        if base > seen.next {
            let what = format!("a batch at {base} follows offset {}", seen.next);
            return Err(("gapless offsets", what));
        }
        if next > last_stable {
            let what = format!("a batch ends at {next}, and all is stable up to {last_stable}");
            return Err(("reads end at the last stable offset", what));
        }
        if !aborting.hides(&batch)? {
            see(&batch, position, &mut seen.parts)?;
        }
        seen.next = seen.next.max(next);
    }
    Ok(seen)
}

fn see(
    batch: &BatchView,
    position: i64,
    parts: &mut BTreeMap<i64, (Part, Option<Input>)>,
) -> Result<(), Breach> {
    let records = batch
        .records(RECORDS_BYTES_MAX)
        .expect("a produced batch unfolds");
    for record in records.iter() {
        let record = record.expect("a produced record can be read");
        let offset = batch.base_offset().value() + i64::from(record.offset_delta);
        let Some((part, behind)) = Part::read(record.value.unwrap_or_default()) else {
            return Err(("no phantom", format!("the record at {offset} is nobody's")));
        };
        if offset >= position {
            parts.insert(offset, (part, Input::read(part.of.owner, behind)));
        }
    }
    Ok(())
}

/// Which producers' records are not to be seen, from batch to batch.
struct Aborting {
    /// By their first offset, the last one first.
    coming: Vec<AbortedTransaction>,
    under_way: BTreeSet<i64>,
}

impl Aborting {
    fn new(mut coming: Vec<AbortedTransaction>) -> Self {
        coming.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
        Self {
            coming,
            under_way: BTreeSet::new(),
        }
    }

    /// Whether a batch holds nothing for a consumer: a marker, or what was aborted.
    fn hides(&mut self, batch: &BatchView) -> Result<bool, Breach> {
        let header = batch.header();
        let last = header.last_offset().value();
        while let Some(aborted) = self.coming.pop_if(|aborted| aborted.first_offset <= last) {
            self.under_way.insert(aborted.producer_id);
        }
        let producer = header.producer_id.value();
        if !header.is_control() {
            return Ok(header.is_transactional() && self.under_way.contains(&producer));
        }
        let records = batch.records(RECORDS_BYTES_MAX).expect("a marker unfolds");
        for record in records.iter() {
            let record = record.expect("a marker can be read");
            let marker = EndTransaction::parse(&record);
            let marker = marker.map_err(|error| ("markers can be read", error.to_string()))?;
            if marker.is_some_and(|marker| marker.kind == ControlKind::Abort) {
                self.under_way.remove(&producer);
            }
        }
        Ok(true)
    }
}
