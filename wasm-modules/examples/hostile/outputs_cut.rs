//! Answers with outputs that end in the middle of a value. Expect: the call fails as a trap does and nothing
//! of the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| { (outputs(&[(0, &[8, 20, b'c', b'u', b't'])]), vec![]) });
