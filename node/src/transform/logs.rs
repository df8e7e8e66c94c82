//! What modules say in the log: a bounded ring per transform, for whoever asks, and the node's own log.
//! It owns both bounds: lines kept, and lines taken from one call. It must never let a talkative module fill memory
//! or drown the node's log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_protocol::ids::PartitionIndex;

use crate::sys::clock::Clock;

/// Lines a transform's ring keeps, of at most 1 KiB each; the oldest goes first.
const LINES_MAX: usize = 256;
/// What is kept of a message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Lines taken from one call of a guest; the rest is counted.
const LINES_PER_CALL_MAX: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line, as a module or the node wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at_ms: i64,
    pub level: LogLevel,
    pub partition: PartitionIndex,
    pub message: String,
}

/// The latest lines of one transform, over all its partitions on this node.
#[derive(Debug, Default)]
pub(crate) struct LogRing {
    lines: Mutex<VecDeque<LogLine>>,
}

impl LogRing {
    /// Oldest first.
    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    fn push(&self, line: LogLine) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Writes the lines of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Logger {
    transform: Arc<str>,
    partition: PartitionIndex,
    ring: Arc<LogRing>,
    clock: Clock,
    left: u32,
    dropped: u64,
    /// The last thing the module called an error in this call: a panic says there what it is about.
    last_error: Option<String>,
}

impl Logger {
    pub(crate) fn new(transform: &str, partition: PartitionIndex, ring: Arc<LogRing>, clock: Clock) -> Self {
        Self {
            transform: transform.into(),
            partition,
            ring,
            clock,
            left: LINES_PER_CALL_MAX,
            dropped: 0,
            last_error: None,
        }
    }

    /// A guest is called: it may write again.
    pub(crate) fn begin_call(&mut self) {
        self.left = LINES_PER_CALL_MAX;
        self.last_error = None;
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.line(
                LogLevel::Warn,
                format!("{dropped} lines dropped: a call may write {LINES_PER_CALL_MAX}"),
            );
        }
    }

    /// A line of the module's own.
    pub(crate) fn guest_line(&mut self, level: LogLevel, mut message: String) {
        cut(&mut message);
        if level == LogLevel::Error {
            self.last_error = Some(message.clone());
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.line(level, message);
            }
            None => self.dropped += 1,
        }
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// A line about the module.
    pub(crate) fn line(&self, level: LogLevel, mut message: String) {
        cut(&mut message);
        let (transform, partition) = (&*self.transform, self.partition.value());
        match level {
            LogLevel::Debug => tracing::debug!(transform, partition, "{message}"),
            LogLevel::Info => tracing::info!(transform, partition, "{message}"),
            LogLevel::Warn => tracing::warn!(transform, partition, "{message}"),
            LogLevel::Error => tracing::error!(transform, partition, "{message}"),
        }
        self.ring.push(LogLine {
            at_ms: self.clock.unix_ms(),
            level,
            partition: self.partition,
            message,
        });
    }
}

/// Cuts a message at a character's border.
pub(crate) fn cut(message: &mut String) {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_latest_and_a_call_writes_only_so_much() {
        let ring = Arc::new(LogRing::default());
        let mut logger = Logger::new("t", PartitionIndex(0), Arc::clone(&ring), Clock::manual(5));
        for call in 0..40 {
            logger.begin_call();
            for line in 0..20 {
                logger.guest_line(LogLevel::Info, format!("{call}/{line}"));
            }
        }
        let lines = ring.lines();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines.last().map(|line| &*line.message), Some("39/15"));
        assert!(
            lines
                .iter()
                .any(|line| line.message.starts_with("4 lines dropped"))
        );
    }
}
