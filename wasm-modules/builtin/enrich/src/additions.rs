//! Remembers what entries of the table add to records: a table is looked up far more often than it changes.
//! It owns the memory that takes. An entry is recognised by its bytes, so one that changed is never taken for what it
//! was.

use headwater_guest::bytes::same;

use crate::splice::{Addition, JoinError, Splice};

/// How many entries are remembered, each at a place its bytes decide, and how large one may be: half a megabyte.
const PLACES: usize = 512;
const ENTRY_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    places: Vec<Remembered>,
}

#[derive(Clone, Debug, Default)]
struct Remembered {
    entry: Vec<u8>,
    added: Vec<u8>,
}

impl Additions {
    /// What an entry adds. `addition` must be the same in every call.
    #[inline]
    pub(crate) fn of<'a>(
        &'a mut self,
        entry: &[u8],
        addition: &Addition,
        splice: &'a mut Splice,
    ) -> Result<&'a [u8], JoinError> {
        if entry.len() > ENTRY_BYTES_MAX || entry.is_empty() {
            return splice.add(entry, addition);
        }
        let place = place(entry);
        if self.places.len() <= place {
            self.places.resize(PLACES, Remembered::default());
        }
        let remembered = &mut self.places[place];
        if !same(&remembered.entry, entry) {
            // On failure the place is left without an entry, which no entry is taken for.
            remembered.entry.clear();
            remembered.added.clear();
            remembered.added.extend_from_slice(splice.add(entry, addition)?);
            remembered.entry.extend_from_slice(entry);
        }
        Ok(&remembered.added)
    }
}

/// Mixes all bytes: entries mostly begin and end alike.
#[inline]
fn place(entry: &[u8]) -> usize {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = entry.as_chunks();
    let hash = words
        .iter()
        .fold(0, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)));
    (hash % PLACES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splice::Selected;

    #[test]
    fn what_is_remembered_is_what_is_found() {
        let addition = Addition::new("", vec![Selected::new("city", "town")]);
        let (mut additions, mut splice) = (Additions::default(), Splice::default());
        // More entries than places, each asked for again when others have come between.
        for round in 0..2 {
            for number in 0..2000 {
                let entry = format!(r#"{{"id":{number},"city":"c{number}"}}"#);
                let added = additions.of(entry.as_bytes(), &addition, &mut splice);
                let expected = format!(r#""town":"c{number}""#);
                assert_eq!(added, Ok(expected.as_bytes()), "round {round}");
            }
        }
        let broken = additions.of(b"{", &addition, &mut splice).err();
        assert_eq!(additions.of(b"{", &addition, &mut splice).err(), broken);
        assert!(broken.is_some());
        let large = format!(r#"{{"city":"{}"}}"#, "x".repeat(ENTRY_BYTES_MAX));
        assert!(additions.of(large.as_bytes(), &addition, &mut splice).is_ok());
        assert!(additions.of(b"", &addition, &mut splice).is_err());
    }
}
