//! Lookup tables: key to value, kept in memory by the host and filled from a compacted topic.
//! In tests on the host's own target the tables are those that `testing::set_table` made.

use crate::error::Error;
use crate::items::Items;

#[cfg(target_arch = "wasm32")]
use crate::bindings::services::headwater::module::lookup as host;

/// An open table. Open it in `configure`, by [`crate::Params::table`].
#[derive(Debug)]
pub struct Table {
    #[cfg(target_arch = "wasm32")]
    handle: host::Table,
    #[cfg(not(target_arch = "wasm32"))]
    name: String,
}

#[cfg(target_arch = "wasm32")]
impl Table {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        host::Table::open(name)
            .map(|handle| Self { handle })
            .map_err(Error::new)
    }

    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.handle.get(key)
    }

    /// One item per key, in order; none where the key is none or not in the table. One call per batch is many times
    /// cheaper than one per record. Make `keys` with [`crate::ItemsBuilder`].
    #[must_use]
    pub fn get_many(&self, keys: &[u8]) -> Items {
        Items::new(self.handle.get_many(keys))
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Table {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        if crate::testing::has_table(name) {
            Ok(Self { name: name.into() })
        } else {
            Err(Error::new(format!("there is no lookup table '{name}'")))
        }
    }

    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        crate::testing::table_get(&self.name, key)
    }

    /// One item per key, in order; none where the key is none or not in the table. One call per batch is many times
    /// cheaper than one per record. Make `keys` with [`crate::ItemsBuilder`].
    #[must_use]
    pub fn get_many(&self, keys: &[u8]) -> Items {
        let mut values = crate::items::ItemsBuilder::default();
        for key in &Items::new(keys.to_vec()) {
            values.push(key.and_then(|key| self.get(key)).as_deref());
        }
        Items::new(values.finish())
    }
}
