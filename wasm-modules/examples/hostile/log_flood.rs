//! Logs ten thousand lines for every record, each a kibibyte. Expect: dropped above the rate limit; the
//! broker goes on.
use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    let line = "x".repeat(1024);
    for _ in 0..10_000 {
        headwater_guest::log::warn(&line);
    }
    record.offset() >= 0
});
