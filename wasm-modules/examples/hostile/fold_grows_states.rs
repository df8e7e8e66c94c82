//! Answers with states of a mebibyte each. Expect: the state limit, or the memory limit.
headwater_hostile::raw_aggregate!(
    keys: |count| one_key(count),
    fold: |states| {
        let count = u32::from_le_bytes([states[0], states[1], states[2], states[3]]);
        let mut grown = count.to_le_bytes().to_vec();
        for _ in 0..count {
            grown.extend([0x80, 0x80, 0x80, 0x01]);
            grown.resize(grown.len() + (1 << 20), 1);
        }
        grown
    },
    emit: |_closed| 0u32.to_le_bytes().to_vec(),
);
