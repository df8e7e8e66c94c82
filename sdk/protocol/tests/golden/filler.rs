//! The rule by which the fields of a golden message get their values; `Golden.java` is its twin.
//!
//! A counter runs over all single values of a message, from 1. In a full message value `n` decides itself: see
//! the methods. In a sparse one null is taken where it is allowed.

use bytes::Bytes;
use headwater_protocol::primitives::{Form, Records, Str, TaggedFields, Uuid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Full,
    Sparse,
    Plain,
}

/// A message, or a part of one, that can be filled by the rule.
pub(crate) trait Fill {
    fn fill(f: &mut Filler, version: i16) -> Self;
}

pub(crate) struct Filler {
    full: bool,
    made: i32,
}

impl Filler {
    /// The message of a kind; a plain one is as `Default` makes it.
    pub(crate) fn message<M: Fill + Default>(kind: Kind, version: i16) -> M {
        match kind {
            Kind::Full => M::fill(&mut Self { full: true, made: 0 }, version),
            Kind::Sparse => M::fill(&mut Self { full: false, made: 0 }, version),
            Kind::Plain => M::default(),
        }
    }

    fn next(&mut self) -> i32 {
        self.made += 1;
        self.made
    }

    fn choose<T>(&mut self, full: impl FnOnce(i32) -> T, sparse: T) -> T {
        let n = self.next();
        if self.full { full(n) } else { sparse }
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.choose(|n| n % 2 == 1, false)
    }

    pub(crate) fn i8(&mut self) -> i8 {
        self.choose(|n| (n & 0x7f) as i8, -1)
    }

    pub(crate) fn i16(&mut self) -> i16 {
        self.choose(|n| (n * 257) as i16, -1)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.choose(|n| (n * 257) as u16, u16::MAX)
    }

    pub(crate) fn i32(&mut self) -> i32 {
        self.choose(|n| n.wrapping_mul(0x01_01_01), -1)
    }

    pub(crate) fn i64(&mut self) -> i64 {
        self.choose(|n| i64::from(n) * 0x0101_0101_0101, -1)
    }

    pub(crate) fn f64(&mut self) -> f64 {
        self.choose(|n| f64::from(n) + 0.25, -1.0)
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        self.choose(
            |n| Uuid::from_u128((n as u128) << 64 | u128::from(!(n as u64))),
            Uuid::ZERO,
        )
    }

    pub(crate) fn string(&mut self) -> Str {
        self.choose(
            |n| Str::from(format!("é{n}").repeat(if n % 8 == 0 { 40 } else { 1 })),
            Str::default(),
        )
    }

    pub(crate) fn bytes(&mut self) -> Bytes {
        self.choose(long_or_short, Bytes::new())
    }

    pub(crate) fn records(&mut self) -> Records {
        self.choose(|n| Records::from(long_or_short(n)), Records::new())
    }

    pub(crate) fn nullable<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.full.then(|| value(self))
    }

    pub(crate) fn array<T: Fill>(&mut self, version: i16) -> Vec<T> {
        (0..if self.full { 2 } else { 1 })
            .map(|_| T::fill(self, version))
            .collect()
    }

    /// An unknown tagged field, where there can be one.
    pub(crate) fn tagged_fields(&mut self, form: Form) -> TaggedFields {
        let mut fields = TaggedFields::new();
        if self.full && form == Form::Flexible {
            let n = self.next();
            fields.push(10_000 + n as u32, long_or_short(n));
        }
        fields
    }
}

fn long_or_short(n: i32) -> Bytes {
    (0..if n % 8 == 0 { 1500 } else { 3 })
        .map(|i| (n + i) as u8)
        .collect()
}

macro_rules! fill_primitive {
    ($($type:ty => $method:ident),*) => {$(
        impl Fill for $type {
            fn fill(f: &mut Filler, _: i16) -> Self {
                f.$method()
            }
        }
    )*};
}

fill_primitive!(i8 => i8, i16 => i16, i32 => i32, i64 => i64, Uuid => uuid, Str => string);
