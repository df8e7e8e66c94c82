//! Which records of a batch stay. Pure: the map of keys, the time and the rules are given, what is to be done is returned.
//!
//! Owns Kafka's rules of compaction:
//! - A record stays if none of the same key was written behind it, as far as the map reaches.
//! - One without a value, a tombstone, goes once the delete horizon of its batch is over: the batch gets it when the
//!   tombstone is met as the last of its key for the first time (KIP-534).
//! - One without a key goes: it could never be replaced.
//! - A batch of which nothing stays goes, but for three that stay without records: the last of a producer, which says what
//!   the producer's sequence is; the last of a file, so that the next file goes on where this one ends; and the first of a
//!   leader epoch, so that everybody who copies knows where the epoch begins.
//!
//! It must never judge a batch before those in front of it.

use std::collections::BTreeMap;

use headwater_protocol::ids::{LeaderEpoch, Offset, ProducerId};
use headwater_protocol::record::{
    self, BatchHeader, BatchView, Compression, ControlKind, EndTransaction, RECORDS_BYTES_MAX, Records,
};

use super::map::OffsetMap;
use super::transactions::Transactions;

/// What becomes of a batch.
#[derive(Debug)]
pub(super) enum Fate {
    /// It stays as it is.
    Keep,
    Drop,
    /// It stays without its records.
    Empty,
    /// Those of its records stay that [`Judge::kept`] says; with a new delete horizon, if there is one.
    Rewrite {
        records: Records,
        horizon_ms: Option<i64>,
    },
}

/// Whether a batch is the last of the file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Last,
    Before,
}

#[derive(Debug)]
pub(super) struct Judge {
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
    /// The last record of each producer that is remembered.
    pub(super) producers: BTreeMap<ProducerId, Offset>,
    pub(super) transactions: Transactions,
    /// Up to here the map reaches: what lies behind stays.
    pub(super) end: Offset,
    /// Of the batch before.
    pub(super) epoch: LeaderEpoch,
    /// Which records of the batch that was judged last stay.
    pub(super) kept: Vec<bool>,
    /// Markers of aborted transactions that do not stay, since this was taken last.
    pub(super) forgotten: Vec<Offset>,
}

impl Judge {
    pub(super) fn judge(
        &mut self,
        batch: &BatchView,
        map: &OffsetMap,
        place: Place,
    ) -> Result<Fate, record::Error> {
        let header = *batch.header();
        let begins_epoch = header.partition_leader_epoch > self.epoch;
        self.epoch = self.epoch.max(header.partition_leader_epoch);
        if header.base_offset >= self.end {
            return Ok(Fate::Keep);
        }
        let stays = begins_epoch || place == Place::Last || self.is_last_of_producer(&header);
        let nothing_left = |stays| if stays { Fate::Empty } else { Fate::Drop };
        if header.record_count == 0 {
            return Ok(if stays { Fate::Keep } else { Fate::Drop });
        }
        if header.is_control() {
            return self.judge_marker(batch, stays);
        }
        if self.transactions.is_aborted(&header) {
            return Ok(nothing_left(stays));
        }
        let records = batch.records(unfolded_max(batch))?;
        let has_tombstones = self.choose(&records, map)?;
        let horizon_ms = match header.delete_horizon_ms() {
            None if has_tombstones => Some(self.now_ms.saturating_add(self.delete_retention_ms)),
            None | Some(_) => None,
        };
        Ok(if self.kept.iter().all(|is_kept| !is_kept) {
            nothing_left(stays)
        } else if horizon_ms.is_none() && self.kept.iter().all(|is_kept| *is_kept) {
            Fate::Keep
        } else {
            Fate::Rewrite { records, horizon_ms }
        })
    }

    /// Judges every record. Whether a tombstone that the map reaches is among those that stay.
    fn choose(&mut self, records: &Records, map: &OffsetMap) -> Result<bool, record::Error> {
        let header = records.header();
        let is_over = self.is_over(header);
        let mut has_tombstones = false;
        self.kept.clear();
        for record in records {
            let record = record?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            if offset >= self.end {
                self.kept.push(true);
                continue;
            }
            let newest = record
                .key
                .map(|key| map.get(key).is_none_or(|newest| offset >= newest));
            let is_kept = newest.unwrap_or(false) && (record.value.is_some() || !is_over);
            has_tombstones |= is_kept && record.value.is_none();
            self.kept.push(is_kept);
        }
        Ok(has_tombstones)
    }

    fn judge_marker(&mut self, batch: &BatchView, stays: bool) -> Result<Fate, record::Error> {
        let header = *batch.header();
        let records = batch.records(unfolded_max(batch))?;
        let mark = match records.iter().next() {
            Some(record) => EndTransaction::parse(&record?)?,
            None => None,
        };
        let Some(mark) = mark else {
            // Of a kind that is not known here.
            return Ok(Fate::Keep);
        };
        if !self.transactions.ended(&header, mark.kind) {
            return Ok(Fate::Keep);
        }
        if self.is_over(&header) {
            if mark.kind == ControlKind::Abort {
                self.forgotten.push(header.base_offset);
            }
            return Ok(if stays { Fate::Empty } else { Fate::Drop });
        }
        if header.has_delete_horizon() {
            return Ok(Fate::Keep);
        }
        self.kept.clear();
        self.kept.resize(header.record_count as usize, true);
        let horizon_ms = Some(self.now_ms.saturating_add(self.delete_retention_ms));
        Ok(Fate::Rewrite { records, horizon_ms })
    }

    /// Whether the delete horizon of a batch lies behind.
    fn is_over(&self, header: &BatchHeader) -> bool {
        header
            .delete_horizon_ms()
            .is_some_and(|horizon_ms| horizon_ms <= self.now_ms)
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        header.is_idempotent()
            && !header.is_control()
            && self.producers.get(&header.producer_id) == Some(&header.last_offset())
    }
}

/// What the records of a batch may take.
pub(super) fn unfolded_max(batch: &BatchView) -> usize {
    match batch.header().compression() {
        Compression::None => batch.bytes().len(),
        Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => RECORDS_BYTES_MAX,
    }
}
