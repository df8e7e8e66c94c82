//! Two streams joined: a record meets those of the other side with its key that are no further away in time than `within`.
//!
//! It owns how long a record is kept: until the time of both sides, less the grace, has passed all that it could meet. Then, if it
//! met nothing and its side is an outer one, it is told of alone.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use headwater_protocol::ids::Offset;
use headwater_protocol::record::Headers;

use super::{Given, Half, Pair, Side, Store, Taken, Tell, prefix};
use crate::metadata::JoinKind;

/// Timestamp and offset, behind the key.
pub(super) const PLACE_BYTES: usize = 8 + 8;
/// Side and the key's length, before it.
const HEAD_BYTES: usize = 1 + 4;
/// Flags, count of the headers, their bytes: before them and the value.
const KEPT_HEAD_BYTES: usize = 1 + 4 + 4;
const MET: u8 = 1;

#[derive(Debug)]
pub(super) struct Stream {
    within_ms: i64,
    grace_ms: i64,
    /// Every entry of the store by its time.
    by_time: BTreeSet<(i64, Arc<[u8]>)>,
}

/// A record that waits for others.
struct Kept<'a> {
    has_met: bool,
    half: Half<'a>,
}

impl<'a> Kept<'a> {
    /// None: it is no record, which only damage can do.
    fn read(entry: &'a [u8]) -> Option<Self> {
        let (head, rest) = entry.split_first_chunk::<KEPT_HEAD_BYTES>()?;
        let [flags, c0, c1, c2, c3, b0, b1, b2, b3] = *head;
        let bytes = usize::try_from(u32::from_le_bytes([b0, b1, b2, b3])).ok()?;
        let (headers, value) = rest.split_at_checked(bytes)?;
        Some(Self {
            has_met: flags & MET != 0,
            half: Half {
                value,
                headers: Headers::new(headers, i32::from_le_bytes([c0, c1, c2, c3])),
            },
        })
    }

    fn write(&self) -> Arc<[u8]> {
        let headers = self.half.headers.encoded();
        let mut entry = Vec::with_capacity(KEPT_HEAD_BYTES + headers.len() + self.half.value.len());
        entry.push(if self.has_met { MET } else { 0 });
        entry.extend(self.half.headers.header_count().to_le_bytes());
        entry.extend((headers.len() as u32).to_le_bytes());
        entry.extend_from_slice(headers);
        entry.extend_from_slice(self.half.value);
        entry.into()
    }
}

/// Where an entry's record stood. None: it is no entry of a stream.
fn place(key: &[u8]) -> Option<(Side, &[u8], i64, Offset)> {
    let (side, rest) = key.split_first()?;
    let side = Side::BOTH.into_iter().find(|known| known.byte() == *side)?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (rest, offset) = rest.split_last_chunk::<8>()?;
    let (own, time) = rest.split_last_chunk::<8>()?;
    Some((
        side,
        own,
        from_ordered(*time),
        Offset(i64::from_be_bytes(*offset)),
    ))
}

/// Bytes that stand in the order of the times.
fn ordered(time_ms: i64) -> [u8; 8] {
    ((time_ms as u64) ^ (1 << 63)).to_be_bytes()
}

fn from_ordered(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

fn entry_key(side: Side, key: &[u8], time_ms: i64, offset: Offset) -> Arc<[u8]> {
    let mut name = prefix(side, key);
    debug_assert_eq!(name.len(), HEAD_BYTES + key.len());
    name.extend(ordered(time_ms));
    name.extend(offset.value().to_be_bytes());
    name.into()
}

/// Whether records of a side that meet nothing are told of.
const fn is_outer(kind: JoinKind, side: Side) -> bool {
    match (kind, side) {
        (JoinKind::Inner, _) | (JoinKind::Left, Side::Right) => false,
        (JoinKind::Left, Side::Left) | (JoinKind::Outer, _) => true,
    }
}

impl Stream {
    pub(super) const fn new(within_ms: i64, grace_ms: i64) -> Self {
        Self {
            within_ms,
            grace_ms,
            by_time: BTreeSet::new(),
        }
    }

    /// Takes note of an entry that is in the store.
    pub(super) fn remember(&mut self, key: &Arc<[u8]>) {
        let time_ms = place(key).map_or(i64::MIN, |(_, _, time_ms, _)| time_ms);
        self.by_time.insert((time_ms, Arc::clone(key)));
    }

    pub(super) fn take(
        &mut self,
        kind: JoinKind,
        store: &mut Store,
        clock_ms: i64,
        given: &Given<'_>,
        tell: Tell<'_>,
    ) -> Taken {
        let watermark_ms = clock_ms.saturating_sub(self.grace_ms);
        self.expire(kind, store, watermark_ms, tell);
        let Some(value) = given.value else {
            return Taken::Dropped;
        };
        if self.is_over(given.timestamp_ms, watermark_ms) {
            return Taken::Late;
        }
        let own = Half {
            value,
            headers: given.headers,
        };
        let Some(key) = given.key else {
            if !is_outer(kind, given.side) {
                return Taken::Dropped;
            }
            tell(&Pair::new(given, own, None, given.timestamp_ms));
            return Taken::Used;
        };
        let has_met = self.meet(kind, store, given, (key, own), tell);
        let name = entry_key(given.side, key, given.timestamp_ms, given.offset);
        self.by_time.insert((given.timestamp_ms, Arc::clone(&name)));
        store.set(name, Some(Kept { has_met, half: own }.write()));
        Taken::Used
    }

    /// Tells of everything that a record meets. False: there was nothing.
    fn meet(
        &self,
        kind: JoinKind,
        store: &mut Store,
        given: &Given<'_>,
        (key, own): (&[u8], Half<'_>),
        tell: Tell<'_>,
    ) -> bool {
        let (side, at_ms) = (given.side.other(), given.timestamp_ms);
        let from = entry_key(side, key, at_ms.saturating_sub(self.within_ms), Offset(0));
        let to = entry_key(side, key, at_ms.saturating_add(self.within_ms), Offset(i64::MAX));
        let range = (Bound::Included(&*from), Bound::Included(&*to));
        let (mut has_met, mut first_met) = (false, Vec::new());
        for (name, entry) in store.entries.range::<[u8], _>(range) {
            let (Some((_, _, time_ms, _)), Some(kept)) = (place(name), Kept::read(entry)) else {
                continue;
            };
            has_met = true;
            tell(&Pair::new(given, own, Some(kept.half), at_ms.max(time_ms)));
            if !kept.has_met && is_outer(kind, side) {
                let met = Kept {
                    has_met: true,
                    ..kept
                };
                first_met.push((Arc::clone(name), met.write()));
            }
        }
        for (name, entry) in first_met {
            store.set(name, Some(entry));
        }
        has_met
    }

    /// Forgets what can meet nothing any more.
    fn expire(&mut self, kind: JoinKind, store: &mut Store, watermark_ms: i64, tell: Tell<'_>) {
        while let Some((time_ms, _)) = self.by_time.first()
            && self.is_over(*time_ms, watermark_ms)
        {
            let Some((_, name)) = self.by_time.pop_first() else {
                return;
            };
            if let (Some((side, key, timestamp_ms, offset)), Some(kept)) =
                (place(&name), store.get(&name).and_then(|entry| Kept::read(entry)))
                && !kept.has_met
                && is_outer(kind, side)
            {
                let (value, headers) = (Some(kept.half.value), kept.half.headers);
                let given = Given {
                    side,
                    offset,
                    timestamp_ms,
                    key: Some(key),
                    value,
                    headers,
                };
                tell(&Pair::new(&given, kept.half, None, timestamp_ms));
            }
            store.set(name, None);
        }
    }

    /// Whether all that a record of this time could meet is behind the watermark.
    const fn is_over(&self, time_ms: i64, watermark_ms: i64) -> bool {
        time_ms.saturating_add(self.within_ms) < watermark_ms
    }
}
