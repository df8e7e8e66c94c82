//! Emits outputs that end in the middle. Expect: the call fails as a trap does and nothing of the answer is
//! used.
headwater_hostile::raw_aggregate!(
    keys: |count| one_key(count),
    fold: |states| {
        let count = u32::from_le_bytes([states[0], states[1], states[2], states[3]]);
        let mut folded = count.to_le_bytes().to_vec();
        folded.resize(4 + 2 * count as usize, 2);
        folded
    },
    emit: |_closed| outputs(&[(0, &[8, 20, b'x'])]),
);
