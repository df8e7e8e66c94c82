//! Why a record, a parameter or a table was refused: one sentence for a person.

use std::fmt;

/// A reason in words, lower case and without a full stop.
///
/// For a record it becomes the failure that the host files with the dead letter; for a parameter the answer that the
/// person who deploys sees. Any text converts into it, so `.ok_or("no value")?` works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    message: String,
}

impl Error {
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    pub(crate) fn into_message(self) -> String {
        self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

// Not `std::error::Error` itself: that would forbid the conversion below, which lets authors use `?` on any error.
impl<E: Into<Box<dyn std::error::Error>>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error.into().to_string())
    }
}

/// What a filter closure may answer: a plain `bool`, or a `Result` when records can fail.
pub trait IntoVerdict {
    /// # Errors
    /// Why the record could not be judged.
    fn into_verdict(self) -> Result<bool, Error>;
}

impl IntoVerdict for bool {
    fn into_verdict(self) -> Result<bool, Error> {
        Ok(self)
    }
}

impl IntoVerdict for Result<bool, Error> {
    fn into_verdict(self) -> Result<bool, Error> {
        self
    }
}
