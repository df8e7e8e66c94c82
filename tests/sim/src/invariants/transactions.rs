//! A transaction is seen whole or not at all by whoever reads what is committed, and as it was ended.
//!
//! - Nobody sees a record of a transaction whose commit was never asked for, or was refused.
//! - Who passes over one record of a transaction sees none of it, and neither does anybody else.
//! - A commit that was acknowledged is seen, each record once, where its own acknowledgement said.
//! - Whoever was replaced under its transactional id commits nothing any more.
//!
//! A commit that was asked for and has no answer may have happened or not. A reader tells what it saw and how far it came, so
//! that what it did not see counts, too.

use std::collections::BTreeMap;
use std::fmt;

use super::Violation;
use crate::client::Partition;

/// The how-manieth transaction under which transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransactionNumber {
    pub(crate) owner: u32,
    pub(crate) number: u32,
}

/// One record of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    pub(crate) of: TransactionNumber,
    pub(crate) index: u32,
}

impl fmt::Display for TransactionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}/{}", self.owner, self.number)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.of, self.index)
    }
}

impl Part {
    /// The front of a record's value, and what stands behind it.
    pub(crate) fn read(value: &[u8]) -> Option<(Self, &str)> {
        let text = std::str::from_utf8(value).ok()?.strip_prefix('x')?;
        let mut words = text.splitn(4, '/');
        let (owner, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let index = words.next()?.parse().ok()?;
        let of = TransactionNumber { owner, number };
        Some((Self { of, index }, words.next()?))
    }
}

/// How a transaction was ended, as far as its owner knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    /// It is open, or was aborted, or left open by an owner that died.
    #[default]
    NotCommitted,
    Asked,
    Committed,
    /// Its owner was fenced, and had never asked before.
    Refused,
}

#[derive(Debug, Default)]
struct Transaction {
    end: End,
    /// Where each of its records was to go.
    parts: BTreeMap<u32, Partition>,
    /// Where each was seen.
    seen: BTreeMap<u32, i64>,
    /// One of its records that a reader has passed over.
    passed_over: Option<(Partition, i64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Transactions {
    known: BTreeMap<TransactionNumber, Transaction>,
    /// What was acknowledged to stand where.
    acked: BTreeMap<Partition, BTreeMap<i64, Part>>,
    /// By owner: the newest producer that was told that it has the transactional id.
    newest: BTreeMap<u32, (i64, i16)>,
    commits: u64,
}

const WHOLE: &str = "a transaction is seen whole or not at all";
const COMMITTED: &str = "only what is committed is seen";
const KEPT: &str = "no lost acknowledged commit";

impl Transactions {
    /// A new transaction under this transactional id.
    pub(crate) fn begins(&mut self, owner: u32) -> TransactionNumber {
        let all = TransactionNumber { owner, number: 0 }..=TransactionNumber {
            owner,
            number: u32::MAX,
        };
        let last = self.known.range(all).next_back();
        let number = last.map_or(0, |(last, _)| last.number + 1);
        let begun = TransactionNumber { owner, number };
        self.known.insert(begun, Transaction::default());
        begun
    }

    /// A producer was told that the transactional id is its own.
    pub(crate) fn owned_by(&mut self, owner: u32, producer: i64, epoch: i16) {
        let newest = self.newest.entry(owner).or_insert((producer, epoch));
        *newest = (*newest).max((producer, epoch));
    }

    /// Whether somebody newer was told that the transactional id is its own.
    pub(crate) fn is_replaced(&self, owner: u32, producer: i64, epoch: i16) -> bool {
        self.newest
            .get(&owner)
            .is_some_and(|newest| *newest > (producer, epoch))
    }

    pub(crate) fn attempted(&mut self, partition: &Partition, part: Part) {
        let transaction = self.known.entry(part.of).or_default();
        transaction.parts.insert(part.index, partition.clone());
    }

    pub(crate) fn acked(&mut self, partition: &Partition, offset: i64, part: Part) {
        let of_partition = self.acked.entry(partition.clone()).or_default();
        of_partition.insert(offset, part);
    }

    pub(crate) fn commit_is_asked(&mut self, of: TransactionNumber) {
        self.known.entry(of).or_default().end = End::Asked;
    }

    pub(crate) fn commit_is_refused(&mut self, of: TransactionNumber) -> Result<(), Violation> {
        let transaction = self.known.entry(of).or_default();
        transaction.end = End::Refused;
        match transaction.seen.is_empty() {
            true => Ok(()),
            false => Err(Violation::new(
                COMMITTED,
                format!("{of} is seen, and was refused"),
            )),
        }
    }

    pub(crate) fn committed(&mut self, of: TransactionNumber) -> Result<(), Violation> {
        let transaction = self.known.entry(of).or_default();
        transaction.end = End::Committed;
        self.commits += 1;
        match &transaction.passed_over {
            Some((partition, offset)) => {
                let what = format!("{of} is committed, and a reader has passed over {partition} at {offset}");
                Err(Violation::new(KEPT, what))
            }
            None => Ok(()),
        }
    }

    /// Commits that were acknowledged.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// A reader of what is committed went through a partition from one offset to another, and saw these records on the way.
    pub(crate) fn read(
        &mut self,
        partition: &Partition,
        from: i64,
        until: i64,
        seen: &BTreeMap<i64, Part>,
    ) -> Result<(), Violation> {
        for (offset, part) in seen {
            self.seen(partition, *offset, *part)?;
        }
        let Some(acked) = self.acked.get(partition) else {
            return Ok(());
        };
        for (offset, part) in acked.range(from..until.max(from)) {
            match seen.get(offset) {
                Some(found) if found == part => {}
                Some(found) => {
                    let what =
                        format!("{partition} shows {found} at {offset}, where {part} was acknowledged");
                    return Err(Violation::new("one record, one offset", what));
                }
                None => {
                    let transaction = self.known.entry(part.of).or_default();
                    transaction.passed_over = Some((partition.clone(), *offset));
                    if transaction.end == End::Committed {
                        let what = format!("{part} is committed, and not seen in {partition} at {offset}");
                        return Err(Violation::new(KEPT, what));
                    }
                    if !transaction.seen.is_empty() {
                        let what =
                            format!("{part} is not seen in {partition} at {offset}, and others of it are");
                        return Err(Violation::new(WHOLE, what));
                    }
                }
            }
        }
        Ok(())
    }

    fn seen(&mut self, partition: &Partition, offset: i64, part: Part) -> Result<(), Violation> {
        let here = format!("{part} is seen in {partition} at {offset}");
        let Some(transaction) = self.known.get_mut(&part.of) else {
            return Err(Violation::new("no phantom", here));
        };
        if transaction.parts.get(&part.index) != Some(partition) {
            return Err(Violation::new("no phantom", here));
        }
        match transaction.end {
            End::NotCommitted => {
                let what = format!("{here}, and nobody ever asked for its commit");
                return Err(Violation::new(COMMITTED, what));
            }
            End::Refused => {
                let what = format!("{here}, and its commit was refused");
                return Err(Violation::new(COMMITTED, what));
            }
            End::Asked | End::Committed => {}
        }
        if let Some((other, at)) = &transaction.passed_over {
            let what = format!("{here}, and a reader has passed over {other} at {at}");
            return Err(Violation::new(WHOLE, what));
        }
        match transaction.seen.insert(part.index, offset) {
            Some(before) if before != offset => {
                let what = format!("{here}, and was at {before}");
                Err(Violation::new("no duplicate", what))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// When everything was read from front to end: every transaction is there as a whole or not at all.
    pub(crate) fn judge(&self) -> Result<(), Violation> {
        for (of, transaction) in &self.known {
            let missing = transaction
                .parts
                .keys()
                .find(|index| !transaction.seen.contains_key(*index));
            let Some(missing) = missing else { continue };
            let what = format!("{of}/{missing} is not there at the end");
            if transaction.end == End::Committed {
                return Err(Violation::new(KEPT, what));
            }
            if !transaction.seen.is_empty() {
                return Err(Violation::new(WHOLE, format!("{what}, and others of it are")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::made_up::partition;

    /// A transaction of two records in two partitions, at offset 5 in both, ended somehow.
    fn made_up(end: impl FnOnce(&mut Transactions, TransactionNumber)) -> (Transactions, [Part; 2]) {
        let mut all = Transactions::default();
        let of = all.begins(1);
        let parts = [0, 1].map(|index| Part { of, index });
        for (at, part) in (0..).zip(parts) {
            all.attempted(&partition(at), part);
            all.acked(&partition(at), 5, part);
        }
        end(&mut all, of);
        (all, parts)
    }

    fn breach(result: Result<(), Violation>) -> &'static str {
        result.expect_err("broken").invariant
    }

    #[test]
    fn a_record_says_what_it_is() {
        let of = TransactionNumber { owner: 3, number: 17 };
        let part = Part { of, index: 2 };
        assert_eq!(
            Part::read(format!("{part}/behind/it").as_bytes()),
            Some((part, "behind/it"))
        );
        assert_eq!(Part::read(b"p1/2/"), None);
    }

    #[test]
    fn what_nobody_committed_and_what_was_refused_is_found() {
        let (mut all, [first, _]) = made_up(|_, _| {});
        let seen = BTreeMap::from([(5, first)]);
        assert_eq!(breach(all.read(&partition(0), 0, 6, &seen)), COMMITTED);
        let (mut all, [first, _]) = made_up(|all, of| all.commit_is_refused(of).expect("not seen"));
        let seen = BTreeMap::from([(5, first)]);
        assert_eq!(breach(all.read(&partition(0), 0, 6, &seen)), COMMITTED);
    }

    #[test]
    fn a_torn_transaction_is_found_in_either_order() {
        for (seen_in, passed_in) in [(0, 1), (1, 0)] {
            let (mut all, parts) = made_up(|all, of| all.commit_is_asked(of));
            let seen = BTreeMap::from([(5, parts[seen_in as usize])]);
            assert_eq!(all.read(&partition(seen_in), 0, 6, &seen), Ok(()));
            assert_eq!(all.read(&partition(passed_in), 0, 5, &BTreeMap::new()), Ok(()));
            let torn = all.read(&partition(passed_in), 0, 6, &BTreeMap::new());
            assert_eq!(breach(torn), WHOLE);
            assert_eq!(breach(all.read(&partition(seen_in), 0, 6, &seen)), WHOLE);
        }
    }

    #[test]
    fn a_lost_commit_is_found_whoever_comes_first() {
        let (mut all, _) = made_up(|all, of| all.committed(of).expect("nobody has read"));
        assert_eq!(breach(all.read(&partition(0), 5, 6, &BTreeMap::new())), KEPT);
        let (mut all, [first, _]) = made_up(|all, of| all.commit_is_asked(of));
        assert_eq!(all.read(&partition(0), 5, 6, &BTreeMap::new()), Ok(()));
        assert_eq!(breach(all.committed(first.of)), KEPT);
    }

    #[test]
    fn a_record_twice_or_elsewhere_is_found() {
        let (mut all, parts) = made_up(|all, of| all.committed(of).expect("nobody has read"));
        let seen = |offset| BTreeMap::from([(offset, parts[0])]);
        assert_eq!(all.read(&partition(0), 5, 6, &seen(5)), Ok(()));
        assert_eq!(breach(all.judge()), KEPT, "the other one was not read");
        assert_eq!(breach(all.read(&partition(0), 6, 9, &seen(7))), "no duplicate");
        assert_eq!(breach(all.read(&partition(1), 6, 9, &seen(7))), "no phantom");
    }

    #[test]
    fn an_owner_is_replaced_by_a_newer_one() {
        let mut all = Transactions::default();
        all.owned_by(1, 7, 2);
        assert!(!all.is_replaced(1, 7, 2) && all.is_replaced(1, 7, 1) && !all.is_replaced(2, 7, 1));
    }
}
