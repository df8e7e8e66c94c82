//! What of a restored state a pipeline can go on with: that of the same source, and of windows and entries those that its module wrote.

use std::sync::Arc;

use headwater_protocol::ids::{Offset, TopicId};

use super::changelog::{Owner, Restored};
use super::logs::{LogLevel, Logger};
use super::windows::{GroupKey, Settings, Windows};
use crate::metadata::{Transform, WindowShape};

/// What of a restored state can be gone on with.
pub(crate) struct TakenUp {
    pub(crate) position: Option<Offset>,
    pub(crate) watermark_ms: Option<i64>,
    pub(crate) groups: Vec<(GroupKey, Arc<[u8]>)>,
    pub(crate) entries: Vec<(Arc<[u8]>, Arc<[u8]>)>,
}

pub(crate) fn take_up(restored: Restored, source: TopicId, owner: &Owner, logger: &Logger) -> TakenUp {
    let nothing = TakenUp {
        position: None,
        watermark_ms: None,
        groups: Vec::new(),
        entries: Vec::new(),
    };
    let Some(commit) = restored.commit else {
        return nothing;
    };
    if commit.source != source {
        logger.line(
            LogLevel::Warn,
            "the source is another topic than before: begun anew".to_owned(),
        );
        return nothing;
    }
    if commit.owner != *owner {
        logger.line(
            LogLevel::Warn,
            "another module, or windows of another shape: the state from before is dropped".to_owned(),
        );
        return TakenUp {
            position: Some(commit.position),
            ..nothing
        };
    }
    TakenUp {
        position: Some(commit.position),
        watermark_ms: commit.watermark_ms,
        groups: restored.groups.into_iter().collect(),
        entries: restored.entries.into_iter().collect(),
    }
}

pub(crate) fn restore_windows(transform: &Transform, taken_up: &TakenUp) -> Windows {
    let settings = Settings {
        // Checked at deployment.
        shape: transform
            .shape()
            .unwrap_or(WindowShape::Tumbling { size_ms: 60_000 }),
        lateness_ms: transform.lateness_ms.max(0),
    };
    Windows::restore(settings, taken_up.watermark_ms, taken_up.groups.iter().cloned())
}
