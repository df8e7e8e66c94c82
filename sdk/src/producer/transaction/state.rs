//! [`State`]: where a producer's transaction stands, and what may be done then.
//!
//! Pure. It must never let a transaction be committed of which a record may be missing.

use std::collections::BTreeSet;

use super::TransactionError;
use crate::producer::batcher::PartitionKey;
use crate::producer::sequencer::Identity;

/// How partitions become part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::producer) enum Flow {
    /// The producer names each to the coordinator first, and keeps its epoch from transaction to transaction.
    Named,
    /// Their leaders tell the coordinator, and each transaction has an epoch of its own (KIP-890).
    Implied,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::producer) enum End {
    Commit,
    Abort,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// The producer has no identity yet.
    Beginning,
    /// A transaction may begin.
    Ready,
    /// Records may be sent.
    Open,
    /// It can only be aborted, because of this.
    Broken(TransactionError),
    Ending(End),
    /// The producer is of no use any more.
    Over(TransactionError),
}

/// One producer's transactions.
///
/// - There is an identity in every phase but `Beginning` and `Over`.
/// - `known` is empty, and `announced` false, unless a transaction is open or being ended.
pub(super) struct State {
    phase: Phase,
    identity: Option<Identity>,
    flow: Flow,
    /// Counts transactions up.
    number: u64,
    /// The coordinator may have heard that something is part of the transaction.
    announced: bool,
    /// Partitions of which the coordinator has heard.
    known: BTreeSet<PartitionKey>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Beginning,
            identity: None,
            flow: Flow::Named,
            number: 0,
            announced: false,
            known: BTreeSet::new(),
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announced
    }

    /// The coordinator has given an identity: the first one, or the next.
    pub(super) fn identified(&mut self, identity: Identity, flow: Flow) {
        self.identity = Some(identity);
        self.flow = flow;
        if matches!(self.phase, Phase::Beginning) {
            self.phase = Phase::Ready;
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), TransactionError> {
        match &self.phase {
            Phase::Ready => {
                self.phase = Phase::Open;
                self.number += 1;
                Ok(())
            }
            Phase::Open | Phase::Broken(_) => Err(TransactionError::Misuse(
                "a transaction is open already; commit or abort it first",
            )),
            Phase::Ending(_) | Phase::Beginning => Err(ending_or_beginning(&self.phase)),
            Phase::Over(error) => Err(error.clone()),
        }
    }

    /// Whether records and offsets may become part of the transaction.
    pub(super) fn may_send(&self) -> Result<(), TransactionError> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Ready => Err(TransactionError::Misuse(
                "no transaction is open; begin one before sending",
            )),
            Phase::Ending(_) | Phase::Beginning => Err(ending_or_beginning(&self.phase)),
            Phase::Broken(error) | Phase::Over(error) => Err(error.clone()),
        }
    }

    /// The transaction is to be ended. Asked again, the same end goes on.
    pub(super) fn end(&mut self, end: End) -> Result<(), TransactionError> {
        match (&self.phase, end) {
            (Phase::Open, _) | (Phase::Broken(_), End::Abort) => {
                self.phase = Phase::Ending(end);
                Ok(())
            }
            (Phase::Ending(begun), _) if *begun == end => Ok(()),
            (Phase::Ready, _) => Err(TransactionError::Misuse(
                "no transaction is open; begin one first",
            )),
            (Phase::Ending(_) | Phase::Beginning, _) => Err(ending_or_beginning(&self.phase)),
            (Phase::Broken(error), End::Commit) | (Phase::Over(error), _) => Err(error.clone()),
        }
    }

    /// It has ended, and the producer goes on.
    pub(super) fn ended(&mut self, identity: Identity, flow: Flow) {
        if let Phase::Ending(_) = self.phase {
            self.phase = Phase::Ready;
            self.identity = Some(identity);
            self.flow = flow;
            self.announced = false;
            self.known.clear();
        }
    }

    /// What keeps the transaction from being committed, or the producer from going on.
    pub(super) fn fail(&mut self, error: TransactionError) {
        match &self.phase {
            Phase::Over(_) => {}
            _ if error.is_fatal() => {
                self.identity = None;
                self.phase = Phase::Over(error);
            }
            Phase::Open | Phase::Ending(End::Commit) => self.phase = Phase::Broken(error),
            // The first reason is the one that is told; and who aborts anyway need not know.
            Phase::Broken(_) | Phase::Ending(End::Abort) | Phase::Beginning | Phase::Ready => {}
        }
    }

    /// The coordinator is about to hear that something is part of the transaction, whose number this gives.
    pub(super) fn announce(&mut self) -> u64 {
        self.announced = true;
        self.number
    }

    /// The coordinator has heard of these, as part of a transaction that may be over.
    pub(super) fn added(&mut self, number: u64, partitions: &[PartitionKey]) {
        if self.number == number && self.announced {
            self.known.extend(partitions);
        }
    }

    pub(super) fn admits(&mut self, partition: PartitionKey) -> bool {
        match self.flow {
            Flow::Named => self.known.contains(&partition),
            Flow::Implied => {
                self.announced = true;
                true
            }
        }
    }
}

fn ending_or_beginning(phase: &Phase) -> TransactionError {
    TransactionError::Misuse(match phase {
        Phase::Ending(End::Commit) => "the transaction is being committed; call commit again",
        Phase::Ending(End::Abort) => "the transaction is being aborted; call abort again",
        _ => "no transaction is open; begin one first",
    })
}

#[cfg(test)]
mod tests {
    use headwater_protocol::ids::{ProducerEpoch, ProducerId};

    use super::*;

    const ZERO: Identity = Identity {
        id: ProducerId(1),
        epoch: ProducerEpoch(0),
    };

    fn ready() -> State {
        let mut state = State::new();
        state.identified(ZERO, Flow::Named);
        state
    }

    fn open() -> State {
        let mut state = ready();
        state.begin().unwrap();
        state
    }

    fn broken() -> TransactionError {
        TransactionError::MustAbort { cause: "x".into() }
    }

    fn fenced() -> TransactionError {
        TransactionError::Fenced {
            transactional_id: "id".into(),
            code: headwater_protocol::kafka::ErrorCode::PRODUCER_FENCED,
        }
    }

    /// What is answered to begin, send, commit and abort: `y`es, `m`isuse, must `a`bort, `f`enced.
    fn answers(make: impl Fn() -> State) -> String {
        let letter = |answer: Result<(), TransactionError>| match answer {
            Ok(()) => 'y',
            Err(TransactionError::Misuse(_)) => 'm',
            Err(TransactionError::MustAbort { .. }) => 'a',
            Err(TransactionError::Fenced { .. }) => 'f',
            Err(other) => panic!("{other}"),
        };
        [
            letter(make().begin()),
            letter(make().may_send()),
            letter(make().end(End::Commit)),
            letter(make().end(End::Abort)),
        ]
        .iter()
        .collect()
    }

    #[test]
    fn each_phase_takes_what_makes_sense() {
        let ending = |end| {
            let mut state = open();
            state.end(end).unwrap();
            state
        };
        let failed = |mut state: State, error| {
            state.fail(error);
            state
        };
        assert_eq!(answers(State::new), "mmmm");
        assert_eq!(answers(ready), "ymmm");
        assert_eq!(answers(open), "myyy");
        assert_eq!(answers(|| ending(End::Commit)), "mmym");
        assert_eq!(answers(|| ending(End::Abort)), "mmmy");
        assert_eq!(answers(|| failed(open(), broken())), "maay");
        assert_eq!(answers(|| failed(ending(End::Commit), broken())), "maay");
        assert_eq!(answers(|| failed(ending(End::Abort), broken())), "mmmy");
        assert_eq!(answers(|| failed(ready(), broken())), "ymmm");
        for make in [State::new, ready, open] {
            assert_eq!(answers(|| failed(make(), fenced())), "ffff");
        }
        assert_eq!(answers(|| failed(ending(End::Abort), fenced())), "ffff");
    }

    #[test]
    fn a_transaction_ends_with_what_was_known_of_it() {
        let mut state = open();
        assert!(!state.admits((0, 0)) && !state.is_announced());
        let number = state.announce();
        state.added(number, &[(0, 0)]);
        assert!(state.admits((0, 0)) && !state.admits((0, 1)));
        state.end(End::Commit).unwrap();
        state.ended(ZERO, Flow::Implied);
        assert!(!state.is_announced());
        state.begin().unwrap();
        assert!(state.admits((0, 1)) && state.is_announced());
        state.end(End::Abort).unwrap();
        state.ended(ZERO, Flow::Named);
        state.begin().unwrap();
        state.announce();
        state.added(number, &[(0, 1)]);
        assert!(!state.admits((0, 1)), "it was part of another transaction");
    }
}
