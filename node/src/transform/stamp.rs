//! The stamp of a producer on finished batches: who wrote them, in which order, in a transaction or not. It never touches a record.

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use headwater_protocol::record::{self, BatchHeader, BatchView, CRC_COVERS_FROM, ProducerStamp};

/// Where the lower half of a batch's attributes lies.
const ATTRIBUTES_AT: usize = CRC_COVERS_FROM + 1;
const TRANSACTIONAL: u8 = 1 << 4;

/// The batch without its producer's stamp: sequence numbers count in the source's partition, not in the sink's.
pub(crate) fn unstamped(batch: &BatchView) -> Bytes {
    let header = batch.header();
    if !header.is_idempotent() && !header.is_transactional() {
        return batch.bytes().clone();
    }
    let mut bytes = BytesMut::from(batch.bytes().as_ref());
    bytes[ATTRIBUTES_AT] &= !TRANSACTIONAL;
    set_producer(&mut bytes, ProducerStamp::NONE);
    bytes.freeze()
}

/// The batches of `bytes`, each with the stamp of a producer in a transaction. `sequence` is that of the next record.
pub(crate) fn in_transaction(
    bytes: Bytes,
    producer: ProducerId,
    epoch: ProducerEpoch,
    sequence: &mut i32,
) -> Result<Vec<Bytes>, record::Error> {
    stamped(bytes, producer, epoch, sequence, TRANSACTIONAL)
}

/// The same of a producer that writes in no transaction: who has a higher epoch fences it all the same.
pub(crate) fn alone(
    bytes: Bytes,
    producer: ProducerId,
    epoch: ProducerEpoch,
    sequence: &mut i32,
) -> Result<Vec<Bytes>, record::Error> {
    stamped(bytes, producer, epoch, sequence, 0)
}

fn stamped(
    mut bytes: Bytes,
    producer: ProducerId,
    epoch: ProducerEpoch,
    sequence: &mut i32,
    attributes: u8,
) -> Result<Vec<Bytes>, record::Error> {
    let mut stamped = Vec::with_capacity(1);
    while !bytes.is_empty() {
        let batch = BatchView::split_from(&mut bytes)?;
        let records = batch.header().last_offset_delta.saturating_add(1);
        let batch = batch.into_bytes();
        // Copied only where somebody else still has it.
        let mut batch = batch
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        batch[ATTRIBUTES_AT] |= attributes;
        let stamp = ProducerStamp {
            id: producer,
            epoch,
            base_sequence: *sequence,
        };
        set_producer(&mut batch, stamp);
        *sequence = sequence.wrapping_add(records) & i32::MAX;
        stamped.push(batch.freeze());
    }
    Ok(stamped)
}

fn set_producer(batch: &mut [u8], producer: ProducerStamp) {
    BatchHeader::stamp(batch, Offset::ZERO, LeaderEpoch::NONE);
    producer.put(batch);
}

#[cfg(test)]
mod tests {
    use headwater_protocol::record::{BatchBuilder, BatchOptions, NewRecord};

    use super::*;

    fn batch(values: &[&str]) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for value in values {
            let record = NewRecord {
                timestamp_ms: 7,
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            };
            builder.append(&record).unwrap();
        }
        builder.build().unwrap().unwrap()
    }

    #[test]
    fn each_batch_is_numbered_behind_the_one_before_and_can_be_freed_of_it() {
        let plain = [batch(&["a", "b", "c"]), batch(&["d"])];
        let mut sequence = 0;
        let stamped = in_transaction(
            plain.concat().into(),
            ProducerId(9),
            ProducerEpoch(4),
            &mut sequence,
        );
        let stamped = stamped.unwrap();
        assert_eq!((stamped.len(), sequence), (2, 4));
        for (batch, (first, was)) in stamped.into_iter().zip([0, 3].into_iter().zip(&plain)) {
            let batch = BatchView::parse(batch).unwrap();
            batch.check_produced().unwrap();
            let header = batch.header();
            assert!(header.is_transactional() && !header.is_control());
            assert_eq!(
                (header.producer_id, header.producer_epoch, header.base_sequence),
                (ProducerId(9), ProducerEpoch(4), first)
            );
            assert_eq!(unstamped(&batch), *was);
        }
    }
}
