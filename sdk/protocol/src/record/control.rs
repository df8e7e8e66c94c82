//! Control records: the marks a broker leaves in a log where a transaction ends.
//! Owns their key and value layout. Must never be mistaken for a producer's record.

use super::{Error, RecordRef};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    Abort,
    Commit,
}

/// The one record of a control batch that ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransaction {
    pub kind: ControlKind,
    /// Epoch of the coordinator that decided, for fencing older ones.
    pub coordinator_epoch: i32,
}

const VERSION: i16 = 0;

impl EndTransaction {
    /// Reads a marker, or `None` when the control record is of a kind this broker does not know.
    pub fn parse(record: &RecordRef<'_>) -> Result<Option<Self>, Error> {
        let key = record
            .key
            .ok_or(Error::malformed("a control record has no key"))?;
        let (_version, kind) = read_i16_pair(key).ok_or(Error::malformed("a control key is cut short"))?;
        let kind = match kind {
            0 => ControlKind::Abort,
            1 => ControlKind::Commit,
            _ => return Ok(None),
        };
        let value = record
            .value
            .ok_or(Error::malformed("a control record has no value"))?;
        let epoch = value.get(2..6).and_then(|bytes| bytes.first_chunk::<4>());
        let epoch = epoch.ok_or(Error::malformed("a control value is cut short"))?;
        Ok(Some(Self {
            kind,
            coordinator_epoch: i32::from_be_bytes(*epoch),
        }))
    }

    /// The record's key.
    pub fn key(&self) -> [u8; 4] {
        let kind: i16 = match self.kind {
            ControlKind::Abort => 0,
            ControlKind::Commit => 1,
        };
        let mut key = [0; 4];
        key[..2].copy_from_slice(&VERSION.to_be_bytes());
        key[2..].copy_from_slice(&kind.to_be_bytes());
        key
    }

    /// The record's value.
    pub fn value(&self) -> [u8; 6] {
        let mut value = [0; 6];
        value[..2].copy_from_slice(&VERSION.to_be_bytes());
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        value
    }
}

fn read_i16_pair(key: &[u8]) -> Option<(i16, i16)> {
    let bytes = key.first_chunk::<4>()?;
    Some((
        i16::from_be_bytes([bytes[0], bytes[1]]),
        i16::from_be_bytes([bytes[2], bytes[3]]),
    ))
}
