//! Sends a mebibyte for every record. Expect: the output limit, or the memory limit.
headwater_hostile::raw_mapping!(|count, _input| {
    let mut parts = vec![8, 0x80, 0x80, 0x80, 0x01];
    parts.resize(5 + (1 << 20), b'x');
    let all: Vec<(u32, &[u8])> = (0..count as u32).map(|index| (index, &parts[..])).collect();
    (outputs(&all), vec![])
});
