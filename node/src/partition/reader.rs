//! The reading half of the handle: it goes past the partition's task, straight to the log, between the published
//! watermarks.

use super::Partition;
use super::error::{LookupError, ReadError, Unavailable};
use super::request::{EpochEnd, Isolation, OffsetFound, OffsetQuery, ReadOutcome, ReadRequest, Watermarks};
use super::state::check_epoch;
use crate::log::{self, Found, Limits, LogReader, Oversize};
use headwater_protocol::ids::{LeaderEpoch, NodeId, Offset};

/// What lookups of offsets carry where no record is meant.
const NO_TIMESTAMP: i64 = -1;

impl Partition {
    /// Reads whole batches, the first of which holds `request.from`. Answers at once with nothing if nothing is there
    /// yet: whoever wants to wait watches `watermarks`. A follower answers, too, below its own watermark (KIP-392).
    /// Changes nothing if the future is dropped.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadOutcome, ReadError> {
        let reader = self.readable()?;
        let live = self.shared.live.load();
        let is_leader = live.is_leader;
        if !is_leader && (request.up_to_log_end || live.leadership.leader == NodeId::NONE) {
            return Err(Unavailable::NotLeader.into());
        }
        check_epoch(request.current_epoch, live.leader_epoch).map_err(Unavailable::from)?;
        drop(live);
        let watermarks = *self.shared.watermarks.borrow();
        let until = if request.up_to_log_end {
            watermarks.log_end
        } else {
            visible_end(&watermarks, request.isolation)
        };
        if !is_leader && request.from > watermarks.log_end {
            return Err(ReadError::NotYet {
                asked: request.from,
                end: watermarks.log_end,
            });
        }
        if request.from < watermarks.log_start || request.from > watermarks.log_end {
            return Err(ReadError::OutOfRange {
                asked: request.from,
                start: watermarks.log_start,
                end: until,
            });
        }
        if request.from >= until {
            return Ok(ReadOutcome {
                records: Vec::new(),
                bytes: 0,
                watermarks,
                next: request.from,
                aborted: Vec::new(),
            });
        }
        let oversize = if request.min_one {
            Oversize::Give
        } else {
            Oversize::Withhold
        };
        let limits = Limits {
            bytes_max: request.max_bytes,
            oversize,
            until,
        };
        let slice = reader
            .read(request.from, limits)
            .await
            .map_err(|error| self.failed(error, request.from))?;
        self.shared.meters.bytes_out.add(slice.bytes as u64);
        let aborted = match request.isolation {
            Isolation::Committed => self.shared.aborted_between(request.from, slice.next),
            Isolation::Uncommitted => Vec::new(),
        };
        Ok(ReadOutcome {
            records: slice.parts,
            bytes: slice.bytes,
            watermarks,
            next: slice.next,
            aborted,
        })
    }

    /// Bytes of all batches from the one that holds `from` on, up to the log's end.
    pub async fn bytes_from(&self, from: Offset) -> Result<u64, ReadError> {
        let counted = self.readable()?.bytes_from(from).await;
        counted.map_err(|error| self.failed(error, from))
    }

    /// Looks an offset up. None: no record is that late.
    pub async fn list_offset(
        &self,
        query: OffsetQuery,
        isolation: Isolation,
        current_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<OffsetFound>, LookupError> {
        let reader = self.readable()?.clone();
        self.check_current(current_epoch)?;
        let watermarks = *self.shared.watermarks.borrow();
        let until = visible_end(&watermarks, isolation);
        // A new leader may not know yet how far all is committed that consumers were shown by the one before (KIP-207).
        let is_certain = watermarks.high_watermark >= self.shared.live.load().epoch_start;
        let boundary = |offset, leader_epoch| {
            Ok(Some(OffsetFound {
                offset,
                timestamp_ms: NO_TIMESTAMP,
                leader_epoch,
            }))
        };
        let found = match query {
            OffsetQuery::Earliest => {
                return boundary(
                    watermarks.log_start,
                    reader.epochs().epoch_at(watermarks.log_start),
                );
            }
            OffsetQuery::Latest if !is_certain => return Err(LookupError::NotAvailable),
            OffsetQuery::Latest => return boundary(until, self.leader_epoch()),
            OffsetQuery::MaxTimestamp => self.search(move || reader.find_max_time(until)).await?,
            OffsetQuery::At(timestamp_ms) => {
                self.search(move || reader.find_time(timestamp_ms, until)).await?
            }
        };
        if found.is_none() && !is_certain {
            return Err(LookupError::NotAvailable);
        }
        Ok(found.map(
            |Found {
                 offset,
                 timestamp_ms,
                 leader_epoch,
             }| OffsetFound {
                offset,
                timestamp_ms,
                leader_epoch,
            },
        ))
    }

    async fn search(
        &self,
        work: impl FnOnce() -> Result<Option<Found>, log::ReadError> + Send + 'static,
    ) -> Result<Option<Found>, LookupError> {
        let found = self.shared.means.tasks.blocking("look up", work).await;
        found
            .map_err(|_| Unavailable::Stopped)?
            .map_err(|error| match error {
                log::ReadError::OutOfRange { asked, start, end } => {
                    LookupError::OutOfRange { asked, start, end }
                }
                log::ReadError::Stopped => Unavailable::Stopped.into(),
                log::ReadError::Corrupt(_) | log::ReadError::Io { .. } => {
                    self.shared.note_read_error(&error);
                    offline(&error).into()
                }
            })
    }

    /// Where `epoch`, or the one before it that is known, ends here (KIP-101).
    pub async fn epoch_end(
        &self,
        epoch: LeaderEpoch,
        current_epoch: Option<LeaderEpoch>,
    ) -> Result<EpochEnd, LookupError> {
        let reader = self.readable()?;
        self.check_current(current_epoch)?;
        Ok(match reader.epoch_end(epoch) {
            Some((epoch, end)) => EpochEnd { epoch, end },
            None => EpochEnd {
                epoch: LeaderEpoch::NONE,
                end: Offset(-1),
            },
        })
    }

    fn check_current(&self, current_epoch: Option<LeaderEpoch>) -> Result<(), Unavailable> {
        let live = self.shared.live.load();
        if !live.is_leader {
            return Err(Unavailable::NotLeader);
        }
        Ok(check_epoch(current_epoch, live.leader_epoch)?)
    }

    /// Why a read gave nothing, noted for those who repair.
    fn failed(&self, error: log::ReadError, from: Offset) -> ReadError {
        self.shared.note_read_error(&error);
        match error {
            log::ReadError::OutOfRange { asked, start, end } => ReadError::OutOfRange { asked, start, end },
            log::ReadError::Stopped => Unavailable::Stopped.into(),
            log::ReadError::Corrupt(_) => ReadError::Corrupt {
                at: from,
                reason: error.to_string(),
            },
            log::ReadError::Io { .. } => offline(&error).into(),
        }
    }

    /// Before this offset nothing is checked when the partition is opened after a crash; see [`LogReader::recovery_point`].
    pub fn recovery_point(&self) -> Result<Offset, Unavailable> {
        self.readable().map(LogReader::recovery_point)
    }

    /// The log, unless it could not even be opened.
    pub(super) fn readable(&self) -> Result<&LogReader, Unavailable> {
        self.shared.reader.as_ref().ok_or_else(|| Unavailable::Offline {
            reason: self.offline().unwrap_or_default(),
        })
    }
}

/// Up to where a consumer may see.
fn visible_end(watermarks: &Watermarks, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::Committed => watermarks.last_stable,
        Isolation::Uncommitted => watermarks.high_watermark,
    }
}

fn offline(error: &log::ReadError) -> Unavailable {
    Unavailable::Offline {
        reason: error.to_string(),
    }
}
