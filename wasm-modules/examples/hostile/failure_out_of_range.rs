//! Names a failed record that was not in the batch. Expect: the call fails as a trap does and nothing of the
//! answer is used.
headwater_hostile::raw_filter!(|count, _input| {
    (vec![1; count], vec![failure(count as u32, "who was that")])
});
