//! Sends a record to the seventh topic named, where none is. Expect: the call fails as a trap does and
//! nothing of the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| { (outputs(&[(0, &[1, 7, 0])]), vec![]) });
