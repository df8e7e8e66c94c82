//! Log lines on standard error, as text for people or as JSON for machines.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log filter {filter:?} is not valid: {reason}")]
    Filter { filter: String, reason: String },
    #[error("logging is started already")]
    Started,
}

/// Starts writing log lines for the whole process. Called once, by `main`.
pub fn start(format: Format, filter: &str) -> Result<(), LoggingError> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| LoggingError::Filter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr);
    let started = match format {
        Format::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .try_init(),
        Format::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|_| LoggingError::Started)
}
