//! What the records that one answer makes may take. An output is small whose key and value are its input's: an answer
//! within its limit could make a million records of a mebibyte each.

use super::super::instance::CallError;
use super::super::outbox::Outgoing;

/// What an answer spends on an output at least.
const OUTPUT_BYTES_MIN: usize = 5;

/// - What is taken of it is never more than `bytes_max`.
/// - An answer within its limit that sends every input on once has room.
#[derive(Debug)]
pub(super) struct Room {
    bytes_max: usize,
    left: usize,
}

impl Room {
    /// Beside what an answer may have itself, its records may have what is in the inputs, once.
    pub(super) fn new(answer_bytes_max: u64, input_bytes: usize) -> Self {
        let answer_bytes_max = usize::try_from(answer_bytes_max).unwrap_or(usize::MAX);
        let bytes_max = answer_bytes_max.saturating_add(input_bytes);
        Self {
            bytes_max,
            left: bytes_max,
        }
    }

    pub(super) fn take(&mut self, record: &Outgoing<'_>) -> Result<(), CallError> {
        let left = self.left.checked_sub(OUTPUT_BYTES_MIN + record.bytes());
        self.left = left.ok_or(CallError::RecordsTooLarge {
            limit_bytes: self.bytes_max as u64,
        })?;
        Ok(())
    }
}
