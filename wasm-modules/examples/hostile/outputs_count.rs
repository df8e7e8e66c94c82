//! Announces four thousand million outputs and sends none. Expect: the call fails as a trap does and nothing
//! of the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| { (u32::MAX.to_le_bytes().to_vec(), vec![]) });
