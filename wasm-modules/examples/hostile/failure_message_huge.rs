//! Gives a reason of a mebibyte for every record. Expect: cut reasons, or the
//! memory or output limit.
headwater_hostile::raw_filter!(|count, _input| {
    (
        vec![2; count],
        (0..count as u32)
            .map(|index| failure(index, &"x".repeat(1 << 20)))
            .collect(),
    )
});
