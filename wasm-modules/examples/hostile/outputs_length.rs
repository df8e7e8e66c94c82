//! Sends a value whose length is negative, then one that is larger than any memory. Expect: the call fails as
//! a trap does and nothing of the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| {
    (
        outputs(&[
            (0, &[8, 3]),
            (
                0,
                &[8, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ]),
        vec![],
    )
});
