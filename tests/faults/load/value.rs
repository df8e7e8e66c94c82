//! What a record says: who made it, which one it is, and a checksum over all of it.
//!
//! Text, so that a person can read it and a client in another language can make it: `producer partition sequence padding
//! crc32`, one space between.

/// The smallest value: room for every name.
pub(crate) const VALUE_BYTES_MIN: usize = 80;
const CHECKSUM_DIGITS: usize = 8;

/// A record's name, as its value says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    pub(crate) producer: &'a str,
    pub(crate) partition: u32,
    pub(crate) sequence: u64,
}

impl<'a> Named<'a> {
    /// A value of so many bytes, the checksum included.
    pub(crate) fn value(&self, bytes: usize) -> String {
        let mut text = format!("{} {} {} ", self.producer, self.partition, self.sequence);
        // Something that no other record has, so that a shifted or mixed copy differs everywhere.
        let filling = format!("{}.", self.sequence);
        while text.len() < bytes - CHECKSUM_DIGITS - 1 {
            text.push_str(&filling);
        }
        text.truncate(bytes - CHECKSUM_DIGITS - 1);
        text.push(' ');
        text.push_str(&checksum(&text));
        text
    }

    /// None if the bytes are not, in every bit, what a producer of ours makes.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.split(' ');
        let named = Self {
            producer: words.next()?,
            partition: words.next()?.parse().ok()?,
            sequence: words.next()?.parse().ok()?,
        };
        let (said, sum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_DIGITS)?)?;
        (text.len() >= VALUE_BYTES_MIN && checksum(said) == sum).then_some(named)
    }
}

fn checksum(text: &str) -> String {
    format!("{:08x}", crc_fast::crc32_iso_hdlc(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_record_and_no_bit_of_it_may_change() {
        let named = Named {
            producer: "quic-1",
            partition: 3,
            sequence: 123_456,
        };
        let value = named.value(120);
        assert_eq!(value.len(), 120);
        assert_eq!(Named::parse(named.value(500).as_bytes()), Some(named));
        assert_eq!(Named::parse(value.as_bytes()), Some(named));
        for at in 0..value.len() {
            let mut changed = value.clone().into_bytes();
            changed[at] ^= 1;
            assert_eq!(Named::parse(&changed), None, "{at}");
        }
        assert_eq!(Named::parse(&value.as_bytes()[1..]), None);
        // What zlib.crc32 of Python says: the other language must agree.
        assert!(value.ends_with(" 057026b8"), "{value}");
    }
}
