//! Sends a record for an input it says has failed. Expect: the call fails as a trap does and nothing of the
//! answer is used.
headwater_hostile::raw_mapping!(|_count, _input| { (outputs(&[(0, &[0])]), vec![failure(0, "or has it")]) });
