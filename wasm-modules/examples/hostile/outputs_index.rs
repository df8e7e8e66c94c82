//! Sends a record for an input that was not in the batch. Expect: the call fails as a trap does and nothing
//! of the answer is used.
headwater_hostile::raw_mapping!(|count, _input| { (outputs(&[(count as u32, &[0])]), vec![]) });
