//! Why a transaction was not begun, carried on or ended. Each says whether asking again helps; only the edge turns it into a wire
//! code.

/// Why a request about a transaction came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Another node coordinates it, or soon will: find the coordinator again.
    #[error("this node does not coordinate the transaction")]
    NotCoordinator,
    /// Ask again.
    #[error("the transactions are being read")]
    Loading,
    /// Nothing could be written: ask again.
    #[error("the transaction's coordinator cannot write at the moment")]
    NotAvailable,
    /// The last transaction is not done with yet, or another request is under way: ask again.
    #[error("another request for this transactional id is under way")]
    Concurrent,
    #[error("a transactional id cannot be empty, nor longer than 32,000 bytes")]
    InvalidId,
    #[error("the timeout is not between 1 and transaction.max.timeout.ms")]
    InvalidTimeout,
    /// Another producer has taken over the transactional id, or its transaction was aborted for being too slow.
    #[error("a newer producer has this transactional id")]
    Fenced,
    /// The coordinator does not know the producer under this transactional id.
    #[error("the producer id does not belong to this transactional id")]
    UnknownProducer,
    /// Nothing of the kind is possible in the state the transaction is in.
    #[error("the transaction is not in a state for that")]
    InvalidState,
    /// A new producer id is needed first. Never told to clients.
    #[error("a new producer id is needed")]
    NeedsProducerId,
}

/// Why records were not appended; nothing of them is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotNow;
