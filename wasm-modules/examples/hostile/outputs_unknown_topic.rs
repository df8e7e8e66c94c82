//! Sends a record to a topic that is none of the sinks. Expect: the call fails as a trap does and nothing of
//! the answer is used.
headwater_hostile::raw_mapping!(|_count, _input| {
    (
        outputs(&[(
            0,
            &[
                1, 1, 0, 24, b'_', b'_', b's', b'e', b'c', b'r', b'e', b't', b's', b'_', b'_', b'_',
            ],
        )]),
        vec![],
    )
});
