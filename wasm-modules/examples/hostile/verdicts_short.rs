//! Answers with one verdict too few. Expect: the call fails as a trap does and nothing of the answer is used.
headwater_hostile::raw_filter!(|count, _input| { (vec![1; count.saturating_sub(1)], vec![]) });
