//! Panics on the record with offset 7 and keeps every other. Expect: that record goes the way of the error policy with
//! the panic's message; the others are kept.
use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    assert!(record.offset() != 7, "cannot stand offset 7");
    true
});
