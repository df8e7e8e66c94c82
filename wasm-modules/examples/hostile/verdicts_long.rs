//! Answers with one verdict too many. Expect: the call fails as a trap does and nothing of the answer is
//! used.
headwater_hostile::raw_filter!(|count, _input| { (vec![1; count + 1], vec![]) });
