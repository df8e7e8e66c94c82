//! Numbers the records of each group: what stands before the first slash of a value is its group.
use std::collections::HashMap;

use headwater_guest::{Batch, Error, ItemsBuilder, Mapping, Metadata, Module, Output, Outputs, Params};
use headwater_guest::{export_mapping, package_metadata, state};

struct Tally;

impl Module for Tally {
    fn describe() -> Metadata {
        package_metadata!()
    }

    fn configure(_: &Params) -> Result<Self, Error> {
        Ok(Self)
    }
}

fn group(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b'/').next().unwrap_or_default()
}

/// A count as the state keeps it.
fn count(stored: Option<&[u8]>) -> u64 {
    let bytes = stored.and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

impl Mapping for Tally {
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        let mut groups = ItemsBuilder::default();
        let values = batch.records().map(|record| record.value().unwrap_or_default());
        values.for_each(|value| groups.push(Some(group(value))));
        let stored = state::get_many(&groups.finish());
        let mut counts: HashMap<&[u8], u64> = HashMap::new();
        for (record, stored) in batch.records().zip(&stored) {
            let Some(value) = record.value() else {
                outputs.fail(&record, "the record has no value");
                continue;
            };
            let number = counts.entry(group(value)).or_insert_with(|| count(stored));
            *number += 1;
            let mut numbered = format!("{number} ").into_bytes();
            numbered.extend_from_slice(value);
            outputs.push(&record, Output::default().value(Some(&numbered)));
        }
        let mut entries = ItemsBuilder::default();
        for (group, number) in counts {
            entries.push(Some(group));
            entries.push(Some(&number.to_le_bytes()));
        }
        state::put_many(&entries.finish());
    }
}

export_mapping!(Tally);

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, configure, transform};

    #[test]
    fn each_group_is_numbered_within_and_across_batches() {
        let mut module: Tally = configure(&[]).expect("it has no parameters");
        let mut sent = |values: &[&str]| -> Vec<String> {
            let records: Vec<_> = values.iter().copied().map(TestRecord::value).collect();
            let sent = transform(&mut module, &records).sent;
            let text = |value: Option<Vec<u8>>| String::from_utf8(value.expect("a value")).expect("text");
            sent.into_iter().map(|sent| text(sent.record.value)).collect()
        };
        assert_eq!(sent(&["a/x", "b/y", "a"]), ["1 a/x", "1 b/y", "2 a"]);
        assert_eq!(sent(&["b/", "a/z"]), ["2 b/", "3 a/z"]);
    }
}
