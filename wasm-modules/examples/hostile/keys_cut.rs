//! Answers with keys that end in the middle. Expect: the call fails as a trap does and nothing of the answer
//! is used.
headwater_hostile::raw_aggregate!(
    keys: |count| {
        let mut keys = one_key(count);
        keys.pop();
        keys
    },
    fold: |states| states.to_vec(),
    emit: |_closed| 0u32.to_le_bytes().to_vec(),
);
