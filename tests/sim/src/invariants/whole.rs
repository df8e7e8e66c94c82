//! A log is whole: offsets follow one another without a gap, epochs never fall along it, every checksum holds.
//!
//! Looked at on the disk, past the node: up to the high watermark, for what lies behind may be half written.

use super::Violation;
use crate::digest::Digest;

/// One batch as it lies on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) epoch: i32,
    pub(crate) checksum_holds: bool,
    /// Of everything, the epoch and the base offset included.
    pub(crate) digest: Digest,
}

/// `log` is what is being looked at, for the message.
pub(crate) fn check(log: &str, batches: &[Batch], high_watermark: i64) -> Result<(), Violation> {
    let committed = batches.iter().take_while(|batch| batch.base < high_watermark);
    let mut end = batches.first().map_or(high_watermark, |first| first.base);
    let mut epoch = i32::MIN;
    for batch in committed {
        let at = batch.base;
        if at != end {
            let what = format!("{log}: a batch at {at} follows offset {end}");
            return Err(Violation::new("gapless offsets", what));
        }
        if batch.epoch < epoch {
            let what = format!("{log}: epoch {} at {at} follows epoch {epoch}", batch.epoch);
            return Err(Violation::new("epochs rise along a log", what));
        }
        if !batch.checksum_holds {
            return Err(Violation::new(
                "checksums",
                format!("{log}: the batch at {at} is damaged"),
            ));
        }
        (end, epoch) = (batch.next, batch.epoch);
    }
    if end < high_watermark {
        let what = format!("{log}: it ends at {end}, below its high watermark {high_watermark}");
        return Err(Violation::new("no hole below the watermark", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base: i64, next: i64, epoch: i32) -> Batch {
        Batch {
            base,
            next,
            epoch,
            checksum_holds: true,
            digest: Digest::of(&base.to_le_bytes()),
        }
    }

    #[test]
    fn gaps_damage_and_fallen_epochs_are_found() {
        let good = [batch(0, 3, 1), batch(3, 5, 1), batch(5, 6, 2)];
        assert_eq!(check("log", &good, 6), Ok(()));
        let invariant = |batches: &[Batch]| check("log", batches, 6).expect_err("broken").invariant;
        assert_eq!(invariant(&[good[0], good[2]]), "gapless offsets");
        assert_eq!(invariant(&good[..2]), "no hole below the watermark");
        assert_eq!(
            invariant(&[good[0], good[1], batch(5, 6, 0)]),
            "epochs rise along a log"
        );
        let damaged = Batch {
            checksum_holds: false,
            ..good[1]
        };
        assert_eq!(invariant(&[good[0], damaged, good[2]]), "checksums");
        assert_eq!(
            check("log", &[good[0], damaged], 3),
            Ok(()),
            "behind the watermark"
        );
    }
}
