//! Bytes compared and copied a word at a time. In Wasm the library's comparison goes byte by byte, and a copy of
//! unknown length calls out of the guest, which costs more than most fields of a record are long.
//! It owns nothing.

/// Copies up to this many bytes without a call out of the guest.
const SHORT: usize = 64;

/// Whether two byte strings are the same.
#[inline(always)]
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let length = left.len();
    if length != right.len() {
        return false;
    }
    // The last word may overlap the one before it: so every length ends in a whole word.
    if let (Some(left_end), Some(right_end)) = (left.last_chunk(), right.last_chunk()) {
        let (left_words, _) = left.as_chunks();
        let (right_words, _) = right.as_chunks();
        let mut words = left_words.iter().zip(right_words);
        return u64::from_le_bytes(*left_end) == u64::from_le_bytes(*right_end)
            && words.all(|(left, right)| u64::from_le_bytes(*left) == u64::from_le_bytes(*right));
    }
    match (
        left.first_chunk(),
        right.first_chunk(),
        left.last_chunk(),
        right.last_chunk(),
    ) {
        (Some(left_start), Some(right_start), Some(left_end), Some(right_end)) => {
            u32::from_le_bytes(*left_start) == u32::from_le_bytes(*right_start)
                && u32::from_le_bytes(*left_end) == u32::from_le_bytes(*right_end)
        }
        _ => left.iter().zip(right).all(|(left, right)| left == right),
    }
}

/// Appends `bytes` to `to`.
#[inline(always)]
pub fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() > SHORT {
        to.extend_from_slice(bytes);
        return;
    }
    to.reserve(bytes.len());
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        to.extend_from_slice(word);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        to.extend_from_slice(half);
    }
    for byte in rest {
        to.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_is_compared_and_copied_whole() {
        let bytes: Vec<u8> = (0..100).collect();
        for length in 0..=100 {
            let text = &bytes[..length];
            let mut copy = vec![7];
            put(&mut copy, text);
            assert_eq!(copy[1..], *text);
            assert!(same(text, &copy[1..]), "{length}");
            assert!(!same(text, &copy), "{length}");
            for at in 1..=length {
                copy[at] ^= 1;
                assert!(!same(text, &copy[1..]), "{length}: {at}");
                copy[at] ^= 1;
            }
        }
    }
}
