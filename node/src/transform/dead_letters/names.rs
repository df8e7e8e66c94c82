//! The names of the headers that dead letters, and records written back from them, carry beside their own.

pub(crate) const REASON: &str = "headwater-error-reason";
pub(crate) const MESSAGE: &str = "headwater-error-message";
pub(crate) const TRANSFORM: &str = "headwater-error-transform";
pub(crate) const MODULE: &str = "headwater-error-module";
pub(crate) const MODULE_VERSION: &str = "headwater-error-module-version";
pub(crate) const TOPIC: &str = "headwater-error-topic";
pub(crate) const PARTITION: &str = "headwater-error-partition";
pub(crate) const OFFSET: &str = "headwater-error-offset";
pub(crate) const TIMESTAMP: &str = "headwater-error-timestamp";
/// Set when the letter is a window of an aggregate, which no single record stands behind: where the window ends.
pub(crate) const WINDOW_END: &str = "headwater-error-window-end";
/// Set when the letter is what came of joining a record: no single one stands behind it.
pub(crate) const JOINED: &str = "headwater-error-joined";
/// Set when the record itself did not fit the dead-letter topic.
pub(crate) const OMITTED: &str = "headwater-error-omitted";

/// What a record says of each time that it was written back: these four, in this order, once for each.
pub(crate) const REDRIVE_COUNT: &str = "headwater-redrive-count";
/// The letter, as TOPIC-PARTITION@OFFSET.
pub(crate) const REDRIVE_FROM: &str = "headwater-redrive-from";
pub(crate) const REDRIVE_REASON: &str = "headwater-redrive-reason";
pub(crate) const REDRIVE_TIMESTAMP: &str = "headwater-redrive-timestamp";
