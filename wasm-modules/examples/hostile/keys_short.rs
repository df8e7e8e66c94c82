//! Answers with a key too few. Expect: the call fails as a trap does and nothing of the answer is used.
headwater_hostile::raw_aggregate!(
    keys: |count| one_key(count.saturating_sub(1)),
    fold: |states| states.to_vec(),
    emit: |_closed| 0u32.to_le_bytes().to_vec(),
);
