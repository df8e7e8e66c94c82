//! Names failed records backwards, the last one twice. Expect: the call fails as a trap does and nothing of
//! the answer is used.
headwater_hostile::raw_filter!(|count, _input| {
    let mut failures: Vec<_> = (0..count as u32)
        .rev()
        .map(|index| failure(index, "backwards"))
        .collect();
    failures.extend((count > 0).then(|| failure(0, "again")));
    (vec![2; count], failures)
});
