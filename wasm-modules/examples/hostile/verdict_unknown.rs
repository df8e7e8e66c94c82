//! Answers with a verdict that does not exist. Expect: the call fails as a trap does and nothing of the
//! answer is used.
headwater_hostile::raw_filter!(|count, _input| { (vec![9; count], vec![]) });
