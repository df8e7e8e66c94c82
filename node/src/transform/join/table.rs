//! A stream joined with a table: the right side is folded into its latest values, each record of the left side looks its key up.

use headwater_protocol::record::Headers;

use super::{Given, Half, Pair, Side, Store, Taken, Tell, prefix};
use crate::metadata::JoinKind;

/// Everything it knows is in the store.
#[derive(Debug)]
pub(super) struct TableSide;

impl TableSide {
    pub(super) fn take(
        &mut self,
        kind: JoinKind,
        store: &mut Store,
        given: &Given<'_>,
        tell: Tell<'_>,
    ) -> Taken {
        match (given.side, given.key) {
            (Side::Right, None) => Taken::Dropped,
            (Side::Right, Some(key)) => {
                store.set(prefix(Side::Right, key).into(), given.value.map(Into::into));
                Taken::Used
            }
            (Side::Left, key) => {
                let Some(value) = given.value else {
                    return Taken::Dropped;
                };
                let met = key.and_then(|key| store.get(&prefix(Side::Right, key)));
                if met.is_none() && kind == JoinKind::Inner {
                    return Taken::Dropped;
                }
                let own = Half {
                    value,
                    headers: given.headers,
                };
                let met = met.map(|value| Half {
                    value,
                    headers: Headers::NONE,
                });
                tell(&Pair::new(given, own, met, given.timestamp_ms));
                Taken::Used
            }
        }
    }
}
