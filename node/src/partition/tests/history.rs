//! Random histories: producers that send ahead and resend in order, a disk that crashes, fills up and fails. In the
//! end every record is there once, each producer's in its order, and whatever was acknowledged is where it was said.

use super::*;
use std::collections::VecDeque;

const PRODUCERS: usize = 3;
const IN_FLIGHT_MAX: usize = 5;

/// One idempotent client: it numbers its batches, sends ahead, and sends again what was not acknowledged, in order.
struct Client {
    id: i64,
    next: i32,
    /// Batches without an acknowledgement: first sequence, records, the answer if one is on its way.
    unacknowledged: VecDeque<(i32, usize, Option<Pending>)>,
    /// First sequence and offset of each acknowledged batch.
    acknowledged: Vec<(i32, i64)>,
}

/// Records that say whose they are and which: `7 41`, `7 42`, ...
fn numbered_batch(id: i64, sequence: i32, count: usize) -> Bytes {
    let producer = ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
        base_sequence: sequence,
    };
    let values: Vec<_> = (sequence..)
        .take(count)
        .map(|number| format!("{id} {number}"))
        .collect();
    batch(
        BatchOptions {
            producer,
            ..BatchOptions::PLAIN
        },
        &values,
    )
}

impl Client {
    async fn send_new(&mut self, partition: &Partition, count: usize) {
        if self.unacknowledged.len() == IN_FLIGHT_MAX {
            self.settle(partition).await;
        }
        if self.unacknowledged.len() < IN_FLIGHT_MAX {
            let bytes = numbered_batch(self.id, self.next, count);
            let pending = partition.submit(bytes, ALL).await.ok();
            self.unacknowledged.push_back((self.next, count, pending));
            self.next += count as i32;
        }
    }

    /// Waits for what is on its way, then sends again what was refused, once, in order.
    async fn settle(&mut self, partition: &Partition) {
        for _ in 0..2 {
            let mut left = VecDeque::new();
            for (sequence, count, pending) in self.unacknowledged.drain(..) {
                let answer = match pending {
                    Some(pending) => pending.await.ok(),
                    None => None,
                };
                match answer {
                    Some(appended) => self.acknowledged.push((sequence, appended.base_offset.value())),
                    None => left.push_back((sequence, count, None)),
                }
            }
            for (sequence, count, pending) in &mut left {
                let bytes = numbered_batch(self.id, *sequence, *count);
                *pending = partition.submit(bytes, ALL).await.ok();
            }
            self.unacknowledged = left;
        }
    }
}

async fn run(seed: u64) {
    let random = Random::seeded(seed);
    let mut rig = Rig::new().await;
    rig.topic(1, &[("segment.bytes", "3000")]).await;
    let client = |id| Client {
        id,
        next: 0,
        unacknowledged: VecDeque::new(),
        acknowledged: Vec::new(),
    };
    let mut clients: Vec<Client> = (0..PRODUCERS as i64).map(client).collect();
    for _ in 0..120 {
        let partition = rig.get("t");
        let client = &mut clients[random.below(PRODUCERS as u64) as usize];
        match random.below(20) {
            0..12 => client.send_new(&partition, 1 + random.below(4) as usize).await,
            12..16 => client.settle(&partition).await,
            16 => rig.disk.set_capacity(random.below(2) * (1 << 30)),
            17 => rig
                .disk
                .fail(Operation::Sync, random.below(3), io::ErrorKind::Other),
            18 => rig
                .disk
                .fail(Operation::Write, random.below(3), io::ErrorKind::Other),
            _ => {
                rig.disk.set_capacity(1 << 30);
                rig = rig.crash().await;
                // Whoever connects again begins with what was not acknowledged.
                for client in &mut clients {
                    client.settle(&rig.get("t")).await;
                }
            }
        }
    }
    rig.disk.set_capacity(1 << 30);
    rig = rig.crash().await;
    let partition = rig.get("t");
    for client in &mut clients {
        for _ in 0..3 {
            client.settle(&partition).await;
        }
        assert!(
            client.unacknowledged.is_empty(),
            "seed {seed}: producer {} is stuck",
            client.id
        );
    }
    judge(&clients, &consume(&partition, 0).await, seed);
}

fn judge(clients: &[Client], found: &[(i64, String)], seed: u64) {
    assert!(
        found.iter().map(|(offset, _)| *offset).eq(0..found.len() as i64),
        "seed {seed}: offsets have gaps"
    );
    for client in clients {
        let prefix = format!("{} ", client.id);
        let own = found
            .iter()
            .filter_map(|(offset, value)| Some((*offset, value.strip_prefix(&prefix)?)));
        let own: Vec<(i64, i32)> = own
            .map(|(offset, number)| (offset, number.parse().expect("a number")))
            .collect();
        let sequences: Vec<i32> = own.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!(
            sequences,
            (0..client.next).collect::<Vec<_>>(),
            "seed {seed}: producer {}",
            client.id
        );
        for (sequence, offset) in &client.acknowledged {
            assert!(
                own.contains(&(*offset, *sequence)),
                "seed {seed}: {sequence} is not at {offset}"
            );
        }
    }
}

#[tokio::test]
async fn every_record_is_there_once_whatever_the_disk_does() {
    for seed in 0..60 {
        run(seed).await;
    }
}
