//! Where a log stands at an offset, as both ends of a link compare it.

use headwater_protocol::ids::Offset;
use headwater_protocol::record::BatchHeader;

use super::resume::BatchMark;
use crate::partition::{Isolation, Partition, ReadRequest};

/// The batch that holds the offset before `end`; none when the log has no such batch (any more).
pub(super) async fn before(partition: &Partition, end: Offset) -> Option<BatchMark> {
    let last = Offset(end.0.checked_sub(1)?);
    let request = ReadRequest {
        from: last,
        max_bytes: 1,
        isolation: Isolation::Uncommitted,
        min_one: true,
        current_epoch: None,
        up_to_log_end: true,
    };
    let found = partition.read(request).await.ok()?;
    let header = BatchHeader::parse(found.records.first()?).ok()?;
    let mark = BatchMark {
        base: header.base_offset,
        last: header.last_offset(),
        crc: header.crc,
    };
    if partition.may_be_compacted(last) {
        // Both ends compact on their own: what is not the same there need not part them.
        return None;
    }
    // Behind a hole left by compaction the read gives the next batch, which says nothing about this offset.
    (mark.base <= last && last <= mark.last).then_some(mark)
}
