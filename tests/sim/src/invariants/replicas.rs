//! Replicas agree: below the lower of their watermarks two replicas hold the same bytes.
//!
//! A replica may lack what lies behind its own watermark, and may hold there what it will cut off.

use super::Violation;
use super::whole::Batch;

/// One replica's log and how far it is committed, as that replica knows.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) node: i32,
    pub(crate) high_watermark: i64,
    pub(crate) batches: Vec<Batch>,
}

pub(crate) fn check(partition: &str, one: &Copy, other: &Copy) -> Result<(), Violation> {
    let until = one.high_watermark.min(other.high_watermark);
    let from = |copy: &Copy| copy.batches.first().map_or(until, |batch| batch.base);
    let start = from(one).max(from(other));
    let part = |copy: &Copy| {
        let inside = |batch: &&Batch| batch.base >= start && batch.next <= until;
        copy.batches
            .iter()
            .copied()
            .filter(|batch| inside(&batch))
            .collect::<Vec<_>>()
    };
    let (ours, theirs) = (part(one), part(other));
    let differs = ours.iter().zip(&theirs).find(|(one, other)| one != other);
    let at = match differs {
        Some((one, _)) => one.base,
        None if ours.len() == theirs.len() => return Ok(()),
        None => ours.len().min(theirs.len()) as i64,
    };
    let what = format!(
        "{partition}: n{} and n{} differ at {at}, below their watermarks {} and {}",
        one.node, other.node, one.high_watermark, other.high_watermark
    );
    Err(Violation::new("replicas agree", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn replicas_that_differ_below_the_watermark_are_found() {
        let batch = |base: i64, content: &[u8]| Batch {
            base,
            next: base + 2,
            epoch: 1,
            checksum_holds: true,
            digest: Digest::of(content),
        };
        let copy = |node, high_watermark, contents: &[&[u8]]| Copy {
            node,
            high_watermark,
            batches: (0..)
                .step_by(2)
                .zip(contents)
                .map(|(base, content)| batch(base, content))
                .collect(),
        };
        let one = copy(1, 6, &[b"a", b"b", b"c"]);
        assert_eq!(check("t-0", &one, &copy(2, 6, &[b"a", b"b", b"c"])), Ok(()));
        assert_eq!(check("t-0", &one, &copy(2, 4, &[b"a", b"b", b"x"])), Ok(()));
        assert!(check("t-0", &one, &copy(2, 6, &[b"a", b"x", b"c"])).is_err());
        assert!(check("t-0", &one, &copy(2, 6, &[b"a", b"b"])).is_err());
    }
}
