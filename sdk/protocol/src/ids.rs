//! Newtypes for the integers of the protocol, so that two bare numbers never stand side by side.
//! They own no rules beyond their order; they must never do arithmetic that can overflow silently.

use std::fmt;

/// Declares one integer newtype: copyable, ordered, printable, convertible both ways.
macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare integer, as it goes on the wire.
            pub const fn value(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

integer_id! {
    /// The position of a record in its partition. Valid offsets are not negative; a log never reaches
    /// `i64::MAX`.
    Offset(i64)
}

integer_id! {
    /// The reign of one partition leader, stamped into every batch it appends.
    LeaderEpoch(i32)
}

integer_id! {
    /// Who produced a batch, as handed out by InitProducerId.
    ProducerId(i64)
}

integer_id! {
    /// The incarnation of a producer: a higher one fences the lower.
    ProducerEpoch(i16)
}

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The offset `count` records further on. Saturates: no log gets there.
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many offsets lie between `earlier` and `self`; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl LeaderEpoch {
    /// No epoch known.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// A batch without idempotence.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// A batch without idempotence.
    pub const NONE: Self = Self(-1);
}
