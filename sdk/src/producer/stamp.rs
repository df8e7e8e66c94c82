//! [`Stamp`]: the numbers by which a broker knows a batch, and changing them in a finished one.
//!
//! Owns the rewriting of a batch's header. It must never change a record.

use bytes::{Bytes, BytesMut};
use headwater_protocol::ids::{ProducerEpoch, ProducerId};
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, ProducerStamp, RECORDS_BYTES_MAX};

/// Producer id, epoch and the sequence number of a batch's first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    pub(super) sequence: i32,
}

impl Stamp {
    /// No idempotence.
    pub(super) const NONE: Self = Self {
        id: ProducerStamp::NONE.id,
        epoch: ProducerStamp::NONE.epoch,
        sequence: -1,
    };

    /// The sequence number behind `count` records. Numbers go on at 0 after the largest.
    pub(super) fn next(self, count: u32) -> i32 {
        if self.sequence < 0 {
            return self.sequence;
        }
        (self.sequence as u32).wrapping_add(count) as i32 & i32::MAX
    }

    /// The stamp behind `count` records.
    pub(super) fn after(self, count: u32) -> Self {
        Self {
            sequence: self.next(count),
            ..self
        }
    }
}

impl From<Stamp> for ProducerStamp {
    fn from(stamp: Stamp) -> Self {
        Self {
            id: stamp.id,
            epoch: stamp.epoch,
            base_sequence: stamp.sequence,
        }
    }
}

/// A copy of a batch with another stamp, and the checksum that goes with it.
pub(super) fn restamped(batch: &Bytes, stamp: Stamp) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    ProducerStamp::from(stamp).put(&mut bytes);
    bytes.freeze()
}

/// The records of a batch as two batches of half as many, with the count of each, unstamped. `None` when
/// there is only one record, or the batch cannot be read.
pub(super) fn split(batch: &Bytes) -> Option<((Bytes, u32), (Bytes, u32))> {
    let view = BatchView::parse(batch.clone()).ok()?;
    let count = u32::try_from(view.header().record_count)
        .ok()
        .filter(|count| *count > 1)?;
    let records = view.records(RECORDS_BYTES_MAX).ok()?;
    let header = records.header();
    let options = BatchOptions {
        timestamps: header.timestamp_type(),
        transactional: header.is_transactional(),
        ..BatchOptions::compressed(header.compression())
    };
    let (mut front, mut back) = (BatchBuilder::new(options), BatchBuilder::new(options));
    let half = count / 2;
    for (index, record) in (0..).zip(records.iter()) {
        let record = record.ok()?;
        let builder = if index < half { &mut front } else { &mut back };
        let timestamp_ms = header.timestamp_of(record.timestamp_delta);
        builder
            .append_forwarded(timestamp_ms, record.key, record.value, record.headers)
            .ok()?;
    }
    Some(((front.build().ok()??, half), (back.build().ok()??, count - half)))
}

/// Builds a batch and stamps it; the time-consuming part when it is compressed.
pub(super) fn build(
    builder: &mut BatchBuilder,
    stamp: Stamp,
) -> Result<Option<Bytes>, headwater_protocol::record::Error> {
    builder.options_mut().producer = stamp.into();
    builder.build()
}

#[cfg(test)]
mod tests {
    use headwater_protocol::record::NewRecord;

    use super::*;

    const RECORD_COUNT_AT: usize = 57;

    #[test]
    fn a_new_stamp_changes_the_numbers_alone() {
        let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
        for value in [b"a", b"b", b"c"] {
            builder
                .append(&NewRecord {
                    value: Some(value),
                    ..Default::default()
                })
                .unwrap();
        }
        let plain = builder.build().unwrap().unwrap();
        let stamp = Stamp {
            id: ProducerId(9),
            epoch: ProducerEpoch(2),
            sequence: i32::MAX - 1,
        };
        let stamped = BatchView::parse(restamped(&plain, stamp)).unwrap();
        stamped.check_produced().unwrap();
        assert_eq!(stamped.header().producer_id, ProducerId(9));
        assert_eq!(stamped.header().last_sequence(), 0, "numbers go round");
        assert_eq!(stamp.next(3), 1);
        assert_eq!(stamped.bytes()[RECORD_COUNT_AT..], plain[RECORD_COUNT_AT..]);
        let ((front, one), (back, two)) = split(stamped.bytes()).unwrap();
        assert_eq!((one, two), (1, 2));
        let values = |bytes: &Bytes| {
            let records = BatchView::parse(bytes.clone()).unwrap().records(1 << 20).unwrap();
            records
                .iter()
                .map(|record| record.unwrap().value.unwrap().to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!([values(&front), values(&back)].concat(), [b"a", b"b", b"c"]);
        assert!(split(&front).is_none(), "one record stays one");
    }
}
