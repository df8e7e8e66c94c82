//! The live tail of a topic: server-sent events with the records as they arrive.
//!
//! A slow client slows nobody: while it does not read, nothing is read for it, and when it does, what is too old to
//! matter is passed over and counted.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use headwater_protocol::ids::Offset;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, ErrorBody, Path, Query};
use super::records::{chosen, read};
use super::topics::find;
use crate::partition::Partition;

/// Records sent in one event.
const EVENT_RECORDS: usize = 100;
/// How far a partition's tail may fall behind before it skips to the newest.
const BEHIND_RECORDS: i64 = 2000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct TailQuery {
    /// All partitions if absent.
    #[param(nullable = false)]
    pub partition: Option<i32>,
    /// `latest` (what comes from now on) if absent.
    #[param(inline, nullable = false)]
    pub offset: Option<TailFrom>,
    /// Only records whose key or value contains this text.
    #[param(nullable = false)]
    pub filter: Option<String>,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TailFrom {
    Latest,
    Earliest,
}

/// Data of the event `skipped`: records that were passed over to keep up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Skipped {
    pub count: i64,
}

#[utoipa::path(
    get, path = "/api/v1/topics/{topic}/tail", tag = "records", params(("topic" = String, Path), TailQuery),
    responses(
        (status = 200, description = "Events `records` (data: an array of RecordView) and `skipped` (data: Skipped)", body = String, content_type = "text/event-stream"), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)
    )
)]
pub(super) async fn tail(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<TailQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let topic = find(&api, &name)?;
    let partitions = chosen(&api, &topic, query.partition)?;
    let earliest = query.offset == Some(TailFrom::Earliest);
    let follow = |partition: Partition| {
        let watermarks = *partition.watermarks().borrow();
        let next = if earliest {
            watermarks.log_start
        } else {
            watermarks.last_stable
        };
        Followed {
            watermarks: partition.watermarks(),
            partition,
            next,
        }
    };
    let follower = Follower {
        partitions: partitions.into_iter().map(follow).collect(),
        api,
        filter: query.filter.filter(|text| !text.is_empty()),
        skips: !earliest,
        turn: 0,
        // Sent at once: with it the answer's head goes out, and the client knows that it follows.
        ready: VecDeque::from([Event::default().comment("following")]),
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

struct Followed {
    partition: Partition,
    watermarks: tokio::sync::watch::Receiver<crate::partition::Watermarks>,
    next: Offset,
}

struct Follower {
    api: Api,
    partitions: Vec<Followed>,
    filter: Option<String>,
    skips: bool,
    /// Whose turn it is, so that one busy partition does not hide the others.
    turn: usize,
    ready: VecDeque<Event>,
}

impl Follower {
    /// The next event; nothing when the topic is gone or the node stops.
    async fn next(&mut self) -> Option<Event> {
        let stopping = self.api.sys.tasks.cancelled();
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.round().await? {
                continue;
            }
            let changes = self
                .partitions
                .iter_mut()
                .map(|followed| Box::pin(followed.watermarks.changed()));
            tokio::select! {
                biased;
                () = stopping.cancelled() => return None,
                (changed, _, _) = futures_util::future::select_all(changes) => changed.ok()?,
            }
        }
    }

    /// Reads a little from each partition that has something; answers whether any had.
    async fn round(&mut self) -> Option<bool> {
        let mut any = false;
        let count = self.partitions.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let followed = self.partitions.get_mut(at)?;
            let watermarks = *followed.watermarks.borrow_and_update();
            let behind = watermarks.last_stable.0 - followed.next.0;
            if behind <= 0 {
                continue;
            }
            any = true;
            if self.skips && behind > BEHIND_RECORDS {
                let to = Offset(watermarks.last_stable.0 - EVENT_RECORDS as i64);
                let skipped = Skipped {
                    count: to.0 - followed.next.0,
                };
                followed.next = to;
                self.ready
                    .extend(Event::default().event("skipped").json_data(skipped));
            }
            followed.next = followed.next.max(watermarks.log_start);
            let (records, next) = read(
                &self.api,
                &followed.partition,
                followed.next,
                EVENT_RECORDS,
                self.filter.clone(),
            )
            .await
            .ok()?;
            followed.next = next;
            if !records.is_empty() {
                self.ready
                    .extend(Event::default().event("records").json_data(records));
            }
        }
        self.turn = self.turn.wrapping_add(1) % count.max(1);
        Some(any)
    }
}
