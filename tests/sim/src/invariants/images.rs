//! Equal offset, equal image: what the metadata says after a record is the same on all nodes and in all their lives.

use std::collections::BTreeMap;

use super::Violation;
use crate::digest::Digest;

#[derive(Debug, Default)]
pub(crate) struct Images {
    by_offset: BTreeMap<i64, (Digest, i32)>,
    /// By node: its life, and the offset it showed last.
    last: BTreeMap<i32, (u64, i64)>,
}

impl Images {
    /// `life` is the how-manieth of the node.
    pub(crate) fn check(
        &mut self,
        node: i32,
        life: u64,
        offset: i64,
        digest: Digest,
    ) -> Result<(), Violation> {
        let (known, first) = *self.by_offset.entry(offset).or_insert((digest, node));
        if known != digest {
            let what = format!("n{first} and n{node} differ at metadata offset {offset}");
            return Err(Violation::new("equal offset, equal image", what));
        }
        match self.last.insert(node, (life, offset)) {
            Some((before, was)) if before == life && was > offset => {
                let what = format!("n{node} showed metadata offset {was}, and now {offset}");
                Err(Violation::new("images only advance", what))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this offset was judged on this node already: an image costs something to digest.
    pub(crate) fn is_known(&self, node: i32, life: u64, offset: i64) -> bool {
        self.last.get(&node) == Some(&(life, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_differ_or_go_back_are_found() {
        let mut images = Images::default();
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        assert_eq!(images.check(1, 1, 5, one), Ok(()));
        assert!(images.check(2, 1, 5, other).is_err());
        assert_eq!(images.check(2, 1, 5, one), Ok(()));
        assert_eq!(images.check(2, 1, 6, other), Ok(()));
        assert!(images.check(2, 1, 5, one).is_err(), "it went back");
        assert_eq!(images.check(2, 2, 5, one), Ok(()), "in another life");
    }
}
