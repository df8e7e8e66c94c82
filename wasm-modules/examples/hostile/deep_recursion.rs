//! Recurses until the stack is full. Expect: a trap that stops this call only.
use headwater_guest::{Record, filter};

#[allow(unconditional_recursion, dead_code)]
fn descend(depth: i64) -> i64 {
    let frame = std::hint::black_box([depth; 64]);
    descend(depth + 1) + frame[usize::from(depth < 0)]
}

filter!(|record: &Record| { descend(record.offset()) != 0 });
