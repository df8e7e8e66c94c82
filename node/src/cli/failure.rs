//! How a command fails: one sentence, a hint on what to do, an exit code.
//!
//! Owns the words a person reads when something went wrong outside of this program. It must never show a chain of
//! causes where one sentence says it.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use headwater_sdk::protocol::kafka::ErrorCode;
use headwater_sdk::{Error, SendError};

/// A command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    hint: Option<String>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failed,
    /// The arguments make no sense together.
    Usage,
    /// Whoever read the output went away: not worth a word.
    Unread,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            kind: Kind::Failed,
        }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Usage,
            ..Self::new(message)
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done before what went wrong.
    pub(super) fn during(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Tells the person, and says what to exit with.
    pub(super) fn report(&self) -> ExitCode {
        if self.kind == Kind::Unread {
            return ExitCode::SUCCESS;
        }
        // If standard error is gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{self}");
        match self.kind {
            Kind::Usage => ExitCode::from(2),
            Kind::Failed | Kind::Unread => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "headwater: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe {
            Kind::Unread
        } else {
            Kind::Failed
        };
        Self {
            kind,
            ..Self::new(error.to_string())
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            Error::UnknownTopic(name) => Self::new(format!("topic {name:?} does not exist"))
                .hint(format!("`headwater topic create {name}` makes it, `headwater topic list` shows what is there")),
            Error::Unreachable(_) | Error::Dial(_) => {
                failure.hint("--bootstrap says where the cluster is; `headwater node --data-dir DIR` starts one")
            }
            Error::Config(_) => failure.hint(
                "addresses are host:port, tls://host:port or quic://host:port; --ca, --fingerprint or --insecure say \
                 whom to trust",
            ),
            Error::UnknownPartition { topic, .. } => {
                failure.hint(format!("`headwater topic describe {topic}` shows its partitions"))
            }
            Error::Refused { code, .. } => match hint_for(code) {
                Some(hint) => failure.hint(hint),
                None => failure,
            },
            Error::Call(_)
            | Error::NoLeader { .. }
            | Error::TimedOut { .. }
            | Error::OffsetOutOfRange { .. }
            | Error::Corrupt { .. }
            | Error::Usage(_)
            | Error::Closed => failure,
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Client(error) => Self::from(*error),
            SendError::UnknownTopic(name) => Self::from(Error::UnknownTopic(name)),
            SendError::Refused { code, .. } if code == ErrorCode::POLICY_VIOLATION => {
                Self::new(error.to_string())
                    .hint("a mirror's copy is written by its link only; write to the source")
            }
            SendError::Refused { code, .. } => {
                let failure = Self::new(error.to_string());
                match hint_for(code) {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            SendError::TooLarge { .. }
            | SendError::Transaction(_)
            | SendError::Aborted
            | SendError::Full
            | SendError::UnknownPartition { .. }
            | SendError::TimedOut { .. }
            | SendError::Closed
            | SendError::Encode(_) => Self::new(error.to_string()),
        }
    }
}

fn hint_for(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::TOPIC_ALREADY_EXISTS => {
            "`headwater topic alter` changes it, --if-not-exists accepts it as it is"
        }
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "`headwater topic list` shows what is there",
        ErrorCode::INVALID_TOPIC_EXCEPTION => {
            "use letters, digits, dots, dashes and underscores, at most 249"
        }
        ErrorCode::TRANSACTIONAL_ID_NOT_FOUND => "`headwater transaction list` shows what is there",
        ErrorCode::MESSAGE_TOO_LARGE => "the topic's max.message.bytes is the limit",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_sentence_and_a_hint() {
        let shown = Failure::from(Error::UnknownTopic("x".into())).to_string();
        assert!(
            shown.starts_with("headwater: topic \"x\" does not exist\nhint: `headwater topic create x`"),
            "{shown}"
        );
        assert_eq!(Failure::new("b").during("a").to_string(), "headwater: a: b");
    }

    #[test]
    fn usage_exits_with_two_and_a_closed_pipe_with_nothing() {
        assert_eq!(Failure::usage("x").report(), ExitCode::from(2));
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(gone).report(), ExitCode::SUCCESS);
        assert_eq!(Failure::from(io::Error::other("x")).report(), ExitCode::FAILURE);
    }
}
