//! What of a restored state a pipeline can go on with: that of the same source, and of windows and entries those that its module wrote.

use std::sync::Arc;

use headwater_protocol::ids::{Offset, TopicId};

use super::changelog::{Owner, Restored, Right};
use super::join::Joiner;
use super::keyed::Age;
use super::logs::{LogLevel, Logger};
use super::windows::{GroupKey, Settings, Windows};
use crate::metadata::{Join, Transform, WindowShape};

/// What of a restored state can be gone on with.
pub(crate) struct TakenUp {
    pub(crate) position: Option<Offset>,
    pub(crate) watermark_ms: Option<i64>,
    pub(crate) age: Age,
    pub(crate) groups: Vec<(GroupKey, Arc<[u8]>)>,
    pub(crate) entries: Vec<(Arc<[u8]>, Arc<[u8]>)>,
    /// Of a join, if it is the one that was kept.
    pub(crate) right: Option<TakenRight>,
    /// There was a state that nobody goes on with: it must not come back.
    pub(crate) is_dropped: bool,
}

/// What of a join can be gone on with.
pub(crate) struct TakenRight {
    pub(crate) position: Offset,
    pub(crate) clock_ms: Option<i64>,
    pub(crate) entries: Vec<(Arc<[u8]>, Arc<[u8]>)>,
}

/// Who writes the state of a transform.
pub(crate) fn owner_of(transform: &Transform) -> Owner {
    Owner {
        module: transform.module.name.clone(),
        window_ms: transform.window_ms,
        window: transform.window,
    }
}

/// The time of the keyed store, and whether what is kept is not what is taken up: entries look different now, or are gone.
/// Then all of the state is written once more.
pub(crate) fn age(transform: &Transform, taken_up: &TakenUp) -> (Age, bool) {
    let age = Age {
        ttl_ms: transform.state_ttl_ms,
        ..taken_up.age
    };
    let is_known = taken_up.position.is_some();
    let is_other = age.is_stamped != age.ttl_ms.is_some();
    (age, taken_up.is_dropped || (is_known && is_other))
}

/// The second source of a transform.
#[derive(Clone, Copy)]
pub(crate) struct Second<'j> {
    pub(crate) source: TopicId,
    pub(crate) join: &'j Join,
}

pub(crate) fn take_up(
    mut restored: Restored,
    source: TopicId,
    owner: &Owner,
    second: Option<Second<'_>>,
    logger: &Logger,
) -> TakenUp {
    let nothing = TakenUp {
        position: None,
        watermark_ms: None,
        age: Age::default(),
        groups: Vec::new(),
        entries: Vec::new(),
        right: None,
        is_dropped: false,
    };
    let Some(mut commit) = restored.commit.take() else {
        return nothing;
    };
    if commit.source != source {
        logger.line(
            LogLevel::Warn,
            "the source is another topic than before: begun anew".to_owned(),
        );
        return nothing;
    }
    let before = commit.right.take();
    let had_join = before.is_some();
    let right = take_up_right(before, &mut restored, second);
    let is_other_join = had_join && right.is_none();
    if is_other_join {
        logger.line(
            LogLevel::Warn,
            "another join, or none: what was kept for it is dropped".to_owned(),
        );
    }
    if commit.owner != *owner {
        logger.line(
            LogLevel::Warn,
            "another module, or windows of another shape: the state from before is dropped".to_owned(),
        );
        return TakenUp {
            position: Some(commit.position),
            right,
            is_dropped: true,
            ..nothing
        };
    }
    TakenUp {
        position: Some(commit.position),
        watermark_ms: commit.watermark_ms,
        age: Age {
            ttl_ms: None,
            clock_ms: commit.clock_ms,
            is_stamped: commit.is_stamped,
        },
        groups: restored.groups.into_iter().collect(),
        entries: restored.entries.into_iter().collect(),
        right,
        is_dropped: is_other_join,
    }
}

fn take_up_right(
    before: Option<Right>,
    restored: &mut Restored,
    second: Option<Second<'_>>,
) -> Option<TakenRight> {
    let (before, second) = (before?, second?);
    (before.source == second.source && before.join == *second.join).then(|| TakenRight {
        position: before.position,
        clock_ms: before.clock_ms,
        entries: std::mem::take(&mut restored.joins).into_iter().collect(),
    })
}

/// The join of a transform, as it was left, or with nothing.
pub(crate) fn restore_join(join: &Join, bytes_max: usize, right: Option<TakenRight>) -> Joiner {
    let (clock_ms, entries) = right.map_or((None, Vec::new()), |right| (right.clock_ms, right.entries));
    Joiner::restore(join, bytes_max, clock_ms, entries)
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
