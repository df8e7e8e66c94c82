//! Why something of a share group came to nothing. Only the edge turns it into a wire code.

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The member is to begin a session.
    #[error("there is no such share session")]
    SessionNotFound,
    #[error("the epoch is not the next one of the share session")]
    InvalidSessionEpoch,
    #[error("there are as many share sessions as there may be")]
    SessionLimit,
    #[error("the records are not acquired by this member")]
    InvalidState,
    /// Another node leads the partition, or another state of the group counts by now.
    #[error("the partition is not led here in this epoch")]
    NotLeader,
    /// What became of the records could not be written down or read: they are delivered again.
    #[error("the group's share coordinator is not available")]
    NotAvailable,
    /// Nothing is kept of such a group, nor is anything begun.
    #[error("there is no share group of that name")]
    NoGroup,
}

/// Why a state was not read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unkept {
    /// Nothing happened: the coordinator is another one, or cannot write at the moment.
    #[error("the share coordinator cannot do it at the moment")]
    Again,
    /// Somebody who leads the partition in a newer epoch has asked.
    #[error("the partition has a newer leader")]
    FencedLeader,
    /// The state was read by somebody else since, or is gone.
    #[error("the state has been read or altered since")]
    FencedState,
    /// As much is kept as may be, or it is more than is written at once: asking again does not help.
    #[error("the share coordinator has no room for it")]
    NoRoom,
    /// Only nodes may.
    #[error("it is not for clients to ask")]
    Refused,
    /// It may have happened.
    #[error("the share coordinator did not answer")]
    Unknown,
}

impl From<Unkept> for ShareError {
    fn from(unkept: Unkept) -> Self {
        match unkept {
            Unkept::Again | Unkept::NoRoom | Unkept::Refused | Unkept::Unknown => Self::NotAvailable,
            Unkept::FencedLeader | Unkept::FencedState => Self::NotLeader,
        }
    }
}
