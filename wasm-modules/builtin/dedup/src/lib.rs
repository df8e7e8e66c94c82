//! The built-in module `dedup`: drops a record whose key, or whose field, was seen before within a time.
//! It owns its parameters, and per key the time of the record that was let through (i64 LE). The host removes entries
//! that were not written for the time of the parameter `ttl`.

use std::collections::HashMap;

use headwater_expression::{Fields, INDISTINCT, Key};
use headwater_guest::{
    Batch, Error, Items, ItemsBuilder, Mapping, Metadata, Module, Output, Outputs, Param, ParamKind, Params,
    Record, export_mapping, package_metadata, state,
};

struct Dedup {
    id: Key,
    ttl_ms: i64,
    on_missing: OnMissing,
    fields: Fields,
    text: Vec<u8>,
}

/// What becomes of a record without the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnMissing {
    Keep,
    Drop,
    Fail,
}

impl Module for Dedup {
    fn describe() -> Metadata {
        package_metadata!()
            .param(
                Param::new(
                    "id",
                    ParamKind::Text,
                    "What two records must have alike to be the same: `key` for the record's own key, or a field of \
                     its JSON value, such as flight.id.",
                )
                .default("key"),
            )
            .param(
                Param::new(
                    "ttl",
                    ParamKind::Duration,
                    "How long a record is remembered: one with the same id is dropped if its timestamp is less than \
                     this after that of the one before that was let through.",
                )
                .required(),
            )
            .param(
                Param::new(
                    "on-missing",
                    ParamKind::Text,
                    "What becomes of a record that has no id, or null: keep, drop or fail.",
                )
                .default("keep"),
            )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let mut fields = Fields::default();
        let id = Key::parse(params.text("id")?, &mut fields);
        let id = id.map_err(|error| Error::new(format!("parameter 'id', {error}")))?;
        let ttl_ms = params.duration_ms("ttl")?;
        if ttl_ms == 0 {
            return Err(Error::new("parameter 'ttl' must be more than nothing"));
        }
        let on_missing = match params.text("on-missing")?.trim() {
            "keep" => OnMissing::Keep,
            "drop" => OnMissing::Drop,
            "fail" => OnMissing::Fail,
            other => {
                return Err(Error::new(format!(
                    "parameter 'on-missing' is '{other}', but must be keep, drop or fail"
                )));
            }
        };
        Ok(Self {
            id,
            ttl_ms,
            on_missing,
            fields,
            text: Vec::new(),
        })
    }
}

impl Mapping for Dedup {
    // Two calls of the host per batch: one reads what is known of every id, one writes what was let through.
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        let mut ids = ItemsBuilder::with_capacity(batch.len() * 16);
        for record in batch {
            let has_id = self.find(&record).unwrap_or(false);
            ids.push(has_id.then_some(self.text.as_slice()));
        }
        let ids = ids.finish();
        let known = state::get_many(&ids);
        let ids = Items::new(ids);
        let mut passed: HashMap<&[u8], i64> = HashMap::new();
        for ((record, id), known) in batch.records().zip(&ids).zip(&known) {
            let Some(id) = id else {
                self.without_id(&record, outputs);
                continue;
            };
            let time_ms = record.timestamp_ms();
            let before = passed.get(id).copied().or_else(|| known.and_then(time));
            if before.is_some_and(|before| time_ms.saturating_sub(before) < self.ttl_ms) {
                continue;
            }
            passed.insert(id, time_ms);
            outputs.push(&record, Output::default());
        }
        if passed.is_empty() {
            return;
        }
        let mut entries = ItemsBuilder::with_capacity(passed.len() * 32);
        for (id, time_ms) in passed {
            entries.push(Some(id));
            entries.push(Some(&time_ms.to_le_bytes()));
        }
        state::put_many(&entries.finish());
    }
}

impl Dedup {
    /// Finds the record's id; false if it has none.
    fn find(&mut self, record: &Record<'_>) -> Result<bool, Error> {
        self.text.clear();
        let view = self.fields.view(record)?;
        self.id.put(&view, &mut self.text, INDISTINCT)
    }

    fn without_id(&mut self, record: &Record<'_>, outputs: &mut Outputs) {
        match (self.find(record), self.on_missing) {
            (Err(error), _) => outputs.fail(record, error),
            (Ok(_), OnMissing::Keep) => outputs.push(record, Output::default()),
            (Ok(_), OnMissing::Drop) => {}
            (Ok(_), OnMissing::Fail) => outputs.fail(record, "there is nothing to know it by"),
        }
    }
}

/// The time that an entry holds. One of another version holds none, and its record is let through once more.
fn time(entry: &[u8]) -> Option<i64> {
    entry.try_into().ok().map(i64::from_le_bytes)
}

export_mapping!(Dedup);

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, configure, transform};

    /// The node's tests run the same files through the component.
    #[test]
    fn golden_files_hold() {
        headwater_golden_native::check_mapping::<Dedup>("dedup");
    }

    #[test]
    fn batches_may_be_cut_anywhere() {
        let records: Vec<TestRecord> = [0, 3, 9, 10, 12, 25, 19, 31]
            .into_iter()
            .map(|at| TestRecord::tombstone("k").timestamp_ms(at))
            .collect();
        let whole: Vec<Vec<i64>> = (0..=records.len())
            .map(|cut| {
                headwater_guest::testing::forget_state();
                let mut module: Dedup = configure(&[("ttl", "10ms")]).expect("it is sound");
                let (first, second) = records.split_at(cut);
                let mut sent = transform(&mut module, first).sent;
                sent.extend(transform(&mut module, second).sent);
                sent.iter().map(|sent| sent.record.timestamp_ms).collect()
            })
            .collect();
        assert!(whole.iter().all(|sent| *sent == [0, 10, 25]), "{whole:?}");
    }
}
