//! Sends records out of the order of their inputs (two or more records needed). Expect: the call fails as a
//! trap does and nothing of the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| { (outputs(&[(1, &[0]), (0, &[0])]), vec![]) });
