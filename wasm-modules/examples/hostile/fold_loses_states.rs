//! Answers with no states where it was given some. Expect: the call fails as a trap does and nothing of the
//! answer is used.
headwater_hostile::raw_aggregate!(
    keys: |count| one_key(count),
    fold: |states| {
        let _ = states;
        0u32.to_le_bytes().to_vec()
    },
    emit: |_closed| 0u32.to_le_bytes().to_vec(),
);
