//! Sends a record that carries parts which do not exist. Expect: the call fails as a trap does and nothing of
//! the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| { (outputs(&[(0, &[0xff])]), vec![]) });
