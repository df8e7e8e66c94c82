//! Takes memory without end. Expect: stopped by the memory limit; the broker goes on.
use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    let mut taken = Vec::new();
    loop {
        taken.push(std::hint::black_box(vec![record.index() as u8; 1 << 20]));
        if taken.is_empty() {
            return true;
        }
    }
});
