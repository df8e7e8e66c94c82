//! Drops a record whose value is the same as the last one with its key.
use std::collections::HashMap;

use headwater_guest::{Batch, Error, ItemsBuilder, Mapping, Metadata, Module, Output, Outputs, Params};
use headwater_guest::{export_mapping, package_metadata, state};

struct Deduplicate;

impl Module for Deduplicate {
    fn describe() -> Metadata {
        package_metadata!()
    }

    fn configure(_: &Params) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Mapping for Deduplicate {
    // Two calls of the host per batch: one reads the last value of every key, one writes those that changed.
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        let mut keys = ItemsBuilder::default();
        batch.records().for_each(|record| keys.push(record.key()));
        let stored = state::get_many(&keys.finish());
        let mut changed = HashMap::new();
        for (record, stored) in batch.records().zip(&stored) {
            let (Some(key), Some(value)) = (record.key(), record.value()) else {
                outputs.fail(&record, "the record has no key or no value");
                continue;
            };
            let last = changed.get(key).copied().or(stored);
            if last != Some(value) {
                changed.insert(key, value);
                outputs.push(&record, Output::default());
            }
        }
        let mut entries = ItemsBuilder::default();
        for (key, value) in changed {
            entries.push(Some(key));
            entries.push(Some(value));
        }
        state::put_many(&entries.finish());
    }
}

export_mapping!(Deduplicate);

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, configure, transform};

    #[test]
    fn repeats_are_dropped_within_and_across_batches() {
        let mut module: Deduplicate = configure(&[]).expect("it has no parameters");
        let record = |key: &str, value: &str| TestRecord::value(value).key(key);
        let mut sent = |records: &[TestRecord]| -> Vec<usize> {
            transform(&mut module, records)
                .sent
                .iter()
                .map(|sent| sent.index)
                .collect()
        };
        assert_eq!(
            sent(&[
                record("a", "1"),
                record("a", "1"),
                record("b", "1"),
                record("a", "2")
            ]),
            [0, 2, 3]
        );
        assert_eq!(sent(&[record("a", "2"), record("b", "2")]), [1]);
    }
}
