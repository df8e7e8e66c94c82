//! Offsets by time.
//! Owns the walk from a time to the record. Must never name an offset outside of what may be read.

use headwater_protocol::ids::{LeaderEpoch, Offset};
use headwater_protocol::record::{BatchView, Compression, RECORDS_BYTES_MAX};

use super::damage::{corrupt, failed};
use super::error::ReadError;
use super::reader::LogReader;
use super::scan::Placed;
use super::segment::Segment;

/// A record that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub leader_epoch: LeaderEpoch,
}

impl LogReader {
    /// The first record below `until` whose timestamp is `timestamp_ms` or later. Waits for the device, and
    /// unpacks one batch: call it on a blocking thread.
    pub fn find_time(&self, timestamp_ms: i64, until: Offset) -> Result<Option<Found>, ReadError> {
        let _uncut = self.shared.uncut();
        self.first_at(timestamp_ms, until)
    }

    /// The same, for whoever holds the log uncut.
    fn first_at(&self, timestamp_ms: i64, until: Offset) -> Result<Option<Found>, ReadError> {
        let start = self.start();
        for segment in self.shared.segments.load().iter() {
            let failed = |cause| failed(segment, cause);
            if segment.bytes() == 0 || segment.max_timestamp().map_err(failed)? < timestamp_ms {
                continue;
            }
            let Some(batch) = segment.find_time(timestamp_ms).map_err(failed)? else {
                continue;
            };
            let found = first_in(segment, &batch, start, |time| time >= timestamp_ms)?;
            // A batch that lies across the log's start may have had it before the start: look on behind it.
            let found = match found {
                Some(found) => Some(found),
                None => self.find_behind(segment, &batch, timestamp_ms, start)?,
            };
            if let Some(found) = found {
                return Ok(Some(found).filter(|found| found.offset < until));
            }
        }
        Ok(None)
    }

    fn find_behind(
        &self,
        segment: &Segment,
        batch: &Placed,
        timestamp_ms: i64,
        start: Offset,
    ) -> Result<Option<Found>, ReadError> {
        let mut next = batch.header.next_offset().max(start);
        while let Some(batch) = segment.find(next).map_err(|cause| failed(segment, cause))? {
            if batch.header.max_timestamp >= timestamp_ms {
                let found = first_in(segment, &batch, start, |time| time >= timestamp_ms)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            next = batch.header.next_offset();
        }
        Ok(None)
    }

    /// The first of the records with the largest timestamp, below `until`. Waits as `find_time` does.
    pub fn find_max_time(&self, until: Offset) -> Result<Option<Found>, ReadError> {
        let _uncut = self.shared.uncut();
        let mut best: Option<i64> = None;
        let start = self.start();
        for segment in self.shared.segments.load().iter() {
            let failed = |cause| failed(segment, cause);
            if segment.bytes() == 0 || segment.next() <= start || segment.base() >= until {
                continue;
            }
            let mut max = segment.max_timestamp().map_err(failed)?;
            if segment.next() > until || segment.base() < start {
                // Only a part of the segment counts.
                let part = self.max_between(segment, start, until, HasRecords::Whatever)?;
                max = part.unwrap_or(-1);
            }
            best = best.max((max >= 0).then_some(max));
        }
        let Some(time) = best else { return Ok(None) };
        match self.first_at(time, until)? {
            Some(found) => Ok(Some(found)),
            // The time of a batch that compaction has emptied: only records count.
            None => match self.max_of_records(start, until)? {
                Some(time) => self.first_at(time, until),
                None => Ok(None),
            },
        }
    }

    /// The largest timestamp of the batches that have records.
    fn max_of_records(&self, start: Offset, until: Offset) -> Result<Option<i64>, ReadError> {
        let mut max = None;
        for segment in self.shared.segments.load().iter() {
            if segment.next() <= start || segment.base() >= until {
                continue;
            }
            max = max.max(self.max_between(segment, start, until, HasRecords::Yes)?);
        }
        Ok(max)
    }

    fn max_between(
        &self,
        segment: &Segment,
        start: Offset,
        until: Offset,
        wanted: HasRecords,
    ) -> Result<Option<i64>, ReadError> {
        let (mut next, mut max) = (start.max(segment.base()), None);
        while let Some(batch) = segment.find(next).map_err(|cause| failed(segment, cause))? {
            if batch.header.next_offset() > until {
                break;
            }
            if wanted == HasRecords::Whatever || batch.header.record_count > 0 {
                max = max.max(Some(batch.header.max_timestamp));
            }
            next = batch.header.next_offset();
        }
        Ok(max.filter(|max| *max >= 0))
    }
}

/// Which batches are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HasRecords {
    Yes,
    Whatever,
}

/// The first record of a batch, not before `start`, whose time is wanted.
fn first_in(
    segment: &Segment,
    batch: &Placed,
    start: Offset,
    wanted: impl Fn(i64) -> bool,
) -> Result<Option<Found>, ReadError> {
    let corrupt = |reason: String| corrupt(segment, (batch.position, reason));
    let total = batch.header.total_bytes();
    let mut bytes = Vec::with_capacity(total);
    let file = segment.file().map_err(|cause| failed(segment, cause))?;
    file.read_at(batch.position, &mut bytes, total)
        .map_err(|cause| failed(segment, cause))?;
    let view = BatchView::parse(bytes.into()).map_err(|error| corrupt(error.to_string()))?;
    view.check_crc().map_err(|error| corrupt(error.to_string()))?;
    let header = *view.header();
    let bound = match header.compression() {
        Compression::None => total,
        Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => RECORDS_BYTES_MAX,
    };
    let records = view.records(bound).map_err(|error| corrupt(error.to_string()))?;
    for record in &records {
        let record = record.map_err(|error| corrupt(error.to_string()))?;
        let offset = header.base_offset.plus(i64::from(record.offset_delta));
        let timestamp_ms = header.timestamp_of(record.timestamp_delta);
        if offset >= start && wanted(timestamp_ms) {
            return Ok(Some(Found {
                offset,
                timestamp_ms,
                leader_epoch: header.partition_leader_epoch,
            }));
        }
    }
    Ok(None)
}
