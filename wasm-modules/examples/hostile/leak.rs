//! Keeps a mebibyte with every call and never gives it back. Expect: stopped by the memory limit some calls later,
//! then a fresh instance that can go on.
use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    if record.index() == 0 {
        Box::leak(std::hint::black_box(vec![1u8; 1 << 20]).into_boxed_slice());
    }
    true
});
