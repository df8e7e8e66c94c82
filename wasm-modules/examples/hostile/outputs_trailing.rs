//! Answers with bytes behind the last output. Expect: the call fails as a trap does and nothing of the answer
//! is used.
headwater_hostile::raw_mapping!(|_count, _input| { (outputs(&[(0, &[0, 1, 2, 3])]), vec![]) });
