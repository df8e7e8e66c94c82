//! Copies one partition: compares the copy with its source, then fetches and appends until something ends it.
//!
//! The copy's own log end is the resume point: there is no second record of progress that could disagree with it. Each
//! batch is asked for once per connection; the next request is sent before the batches of the last one are appended, so
//! the way is never idle while the disk works. It holds at most two answers in memory.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::ids::{Offset, TopicId};
use headwater_protocol::kafka::ErrorCode;
use headwater_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use headwater_protocol::primitives::Str;
use headwater_protocol::record::BatchHeader;
use headwater_sdk::connection::{Answer, CallError, Connection, ConnectionOptions};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Cell};
use super::control::FlowState;
use super::mapping::Offered;
use super::resume::{CopyState, Verdict, judge};
use super::session::Verifier;
use super::{Settings, marks};
use crate::metadata::GapPolicy;
use crate::partition::{AppendError, LookupError, Partition};
use crate::sys::Sys;
use crate::transport::{Session, SessionError};

/// How long the source may hold an empty answer back. The connection's own keep-alive finds a dead peer.
const LONG_POLL: Duration = Duration::from_secs(30);
/// Past the long poll, before an answer is given up.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a copy that cannot go on looks whether it can.
const STUCK_RETRY: Duration = Duration::from_secs(5);

/// One partition's copying.
pub(super) struct Fetcher {
    pub(super) sys: Sys,
    pub(super) settings: Settings,
    pub(super) session: Session,
    pub(super) verifier: Verifier,
    pub(super) board: Arc<Board>,
    pub(super) cell: Arc<Cell>,
    pub(super) copy: Partition,
    /// The source's topic as it was when the copy was made.
    pub(super) begun_from: TopicId,
    pub(super) source: Offered,
    pub(super) on_gap: GapPolicy,
}

/// Why copying stopped for now.
#[derive(Debug, thiserror::Error)]
enum Pause {
    #[error("the source does not answer for the partition")]
    NoSource,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the source refuses: {0}")]
    Source(ErrorCode),
    #[error("the copy does not take it: {0}")]
    Append(#[from] AppendError),
    #[error("the copy does not answer: {0}")]
    Copy(#[from] LookupError),
    #[error("the source sent what is no batch: {0}")]
    Malformed(#[from] headwater_protocol::record::Error),
    /// Nothing to do until a person acts or the source changes.
    #[error("{1}")]
    Stuck(FlowState, String),
}

/// Runs until cancelled.
pub(super) async fn run(fetcher: Fetcher, cancelled: CancellationToken) {
    let mut delay = RETRY_MIN;
    loop {
        let before = fetcher.copied();
        let ended = tokio::select! {
            biased;
            () = cancelled.cancelled() => break,
            ended = fetcher.copy_on() => ended,
        };
        let wait = match &ended {
            Pause::Stuck(state, reason) => {
                fetcher.note(*state, Some(reason.clone()));
                STUCK_RETRY
            }
            other => {
                fetcher.note(FlowState::Waiting, Some(other.to_string()));
                delay = if fetcher.copied() > before {
                    RETRY_MIN
                } else {
                    (delay * 2).min(RETRY_MAX)
                };
                delay
            }
        };
        tokio::select! {
            biased;
            () = cancelled.cancelled() => break,
            () = fetcher.sys.clock.sleep(wait) => {}
        }
    }
    let keeps_reason = fetcher.cell.read().state.is_stuck();
    if !keeps_reason {
        fetcher.note(FlowState::Waiting, None);
    }
}

impl Fetcher {
    /// Compares, then copies for as long as it goes.
    async fn copy_on(&self) -> Pause {
        match self.start().await {
            Ok(start) => match self.follow(start).await {
                Ok(never) => match never {},
                Err(pause) => pause,
            },
            Err(pause) => pause,
        }
    }

    /// Where to go on, if the copy can.
    async fn start(&self) -> Result<Start, Pause> {
        let watermarks = *self.copy.watermarks().borrow();
        let copy = CopyState {
            topic_id: self.begun_from,
            start: watermarks.log_start,
            end: watermarks.log_end,
            last: marks::before(&self.copy, watermarks.log_end).await,
        };
        let key = self.cell.key();
        let source = self
            .verifier
            .ask(&key.topic, key.partition, copy.end)
            .await
            .ok_or(Pause::NoSource)?;
        self.cell.update(|progress| {
            progress.copied = watermarks.high_watermark;
            progress.source_end = source.end;
        });
        match judge(&copy, &source) {
            Verdict::Resume => Ok(Start {
                at: copy.end,
                anew: false,
            }),
            Verdict::Begin { at } => Ok(Start { at, anew: true }),
            Verdict::Gap { from, to } => match self.on_gap {
                GapPolicy::MarkGap => {
                    tracing::warn!(topic = %key.topic, partition = key.partition, %from, %to, "gap in the mirror");
                    Ok(Start { at: to, anew: false })
                }
                GapPolicy::Hold { .. } => Err(Pause::Stuck(
                    FlowState::Gap,
                    format!("the source deleted offsets {from} to {to} before they were copied"),
                )),
            },
            Verdict::Diverged(how) => Err(Pause::Stuck(FlowState::Diverged, how.to_string())),
        }
    }

    /// Fetches and appends from `start` on.
    async fn follow(&self, start: Start) -> Result<std::convert::Infallible, Pause> {
        let stream = self.session.open_stream().await?;
        let options = ConnectionOptions {
            client_id: "headwater-link".to_owned(),
            ..ConnectionOptions::default()
        };
        let connection = Connection::over(stream.reader, stream.writer, options).await?;
        let mut watermarks = self.copy.watermarks();
        let mut at = start.at;
        let mut anew = start.anew;
        let mut answer = self.ask(&connection, at).await?;
        self.note(FlowState::CatchingUp, None);
        loop {
            let response = {
                let waiting = answer.wait();
                tokio::pin!(waiting);
                loop {
                    tokio::select! {
                        biased;
                        response = &mut waiting => break response?,
                        changed = watermarks.changed() => {
                            changed.map_err(|_| Pause::Append(AppendError::Stopped))?;
                            self.note_copied(watermarks.borrow_and_update().high_watermark);
                        }
                    }
                }
            };
            let fetched = Fetched::read(response)?;
            if anew && let Some(base) = fetched.base {
                // The source's first batch may begin below its log start, when records were deleted by hand.
                self.copy.restart_at(base).await?;
                self.copy.delete_records(Some(at)).await?;
                anew = false;
            }
            at = fetched.next.unwrap_or(at);
            answer = self.ask(&connection, at).await?;
            if !fetched.records.is_empty() {
                self.board.count_payload(fetched.records.len());
                // Whether it is safe is told by the copy's high watermark, which this loop follows.
                drop(self.copy.append_copy(fetched.records).await?);
            }
            self.note_source(fetched.source_end, at);
        }
    }

    async fn ask(&self, connection: &Connection, at: Offset) -> Result<Answer<FetchRequest>, Pause> {
        let bytes_max = i32::try_from(self.settings.fetch_bytes_max).unwrap_or(i32::MAX);
        let partition = FetchPartition {
            partition: self.cell.key().partition,
            fetch_offset: at.0,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: bytes_max,
            ..FetchPartition::default()
        };
        let topic = FetchTopic {
            topic: Str::from(self.source.name.as_str()),
            topic_id: self.source.id.into(),
            partitions: vec![partition],
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_wait_ms: i32::try_from(LONG_POLL.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: bytes_max,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        Ok(connection.submit(&request, LONG_POLL + ANSWER_PATIENCE).await?)
    }

    fn copied(&self) -> Offset {
        self.copy.watermarks().borrow().log_end
    }

    fn note(&self, state: FlowState, detail: Option<String>) {
        self.cell.update(|progress| {
            progress.state = state;
            progress.detail = detail;
        });
    }

    fn note_copied(&self, copied: Offset) {
        let now_ms = self.sys.clock.unix_ms();
        self.cell.update(|progress| {
            if copied > progress.copied {
                progress.last_progress_ms = Some(now_ms);
            }
            progress.copied = copied;
            progress.state = state_at(copied, progress.source_end);
        });
    }

    fn note_source(&self, source_end: Offset, appended: Offset) {
        self.cell.update(|progress| {
            progress.source_end = progress.source_end.max(source_end).max(appended);
            progress.state = state_at(progress.copied, progress.source_end);
            progress.detail = None;
        });
    }
}

fn state_at(copied: Offset, source_end: Offset) -> FlowState {
    if copied >= source_end {
        FlowState::CaughtUp
    } else {
        FlowState::CatchingUp
    }
}

/// Where copying begins, and whether the copy is to be begun there anew.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Offset,
    anew: bool,
}

/// What one answer brought.
struct Fetched {
    records: Bytes,
    /// Offset of the first batch, if there is one.
    base: Option<Offset>,
    /// The offset after the last batch.
    next: Option<Offset>,
    source_end: Offset,
}

impl Fetched {
    fn read(response: FetchResponse) -> Result<Self, Pause> {
        let refused = |code: i16| match ErrorCode(code) {
            ErrorCode::NONE => ControlFlow::Continue(()),
            code => ControlFlow::Break(Pause::Source(code)),
        };
        if let ControlFlow::Break(pause) = refused(response.error_code) {
            return Err(pause);
        }
        let partition = response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next();
        let partition: PartitionData = partition.ok_or(Pause::NoSource)?;
        if let ControlFlow::Break(pause) = refused(partition.error_code) {
            return Err(pause);
        }
        let records = partition
            .records
            .map(|records| records.into_bytes())
            .unwrap_or_default();
        let (base, next) = ends(&records)?;
        Ok(Self {
            records,
            base,
            next,
            source_end: Offset(partition.high_watermark),
        })
    }
}

/// Offset of the first batch and the offset after the last one, by the headers alone.
fn ends(records: &Bytes) -> Result<(Option<Offset>, Option<Offset>), headwater_protocol::record::Error> {
    let mut rest = records.as_ref();
    let (mut base, mut next) = (None, None);
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest)?;
        base.get_or_insert(header.base_offset);
        next = Some(header.next_offset());
        let needed = header.total_bytes();
        let cut = || headwater_protocol::record::Error::Incomplete {
            needed,
            available: rest.len(),
        };
        rest = rest.get(needed..).ok_or_else(cut)?;
    }
    Ok((base, next))
}
