//! Never comes back from a call. Expect: stopped by the CPU limit; the broker goes on.
use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    let mut turns = record.offset();
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
        if turns == i64::MIN {
            return true;
        }
    }
});
