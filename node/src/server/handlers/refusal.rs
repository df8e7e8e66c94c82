//! A refusal with its sentence, for the answers that have room for one.

use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::primitives::Str;

use crate::controller::ProposeError;
use crate::server::errors;

pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The message field of an answer.
    pub(super) fn text(&self) -> Option<Str> {
        Some(Str::from(self.message.clone()))
    }
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        Self::new(errors::of_propose(&error), error.to_string())
    }
}
