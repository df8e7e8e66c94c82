//! Says that records failed, but not why. Expect: the call fails as a trap does and nothing of the answer is
//! used.
headwater_hostile::raw_filter!(|count, _input| { (vec![2; count], vec![]) });
