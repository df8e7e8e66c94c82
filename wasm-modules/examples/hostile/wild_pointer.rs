//! Answers with a list that lies outside its memory. Expect: the call fails as a trap does and nothing of the
//! answer is used.
headwater_hostile::raw_filter!(|_count, _input| {
    // SAFETY: none; that is the point. The list is never read here, only handed to the host.
    #[allow(unsafe_code)]
    let wild =
        unsafe { Vec::from_raw_parts(std::ptr::without_provenance_mut(0xffff_ff00), 1 << 20, 1 << 20) };
    (wild, vec![])
});
