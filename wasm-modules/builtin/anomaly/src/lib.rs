//! The built-in module `anomaly`: sends what lies further from the mean of its group than so many standard deviations.
//! It owns its parameters, and per group the running moments; the host keeps them.

mod moments;

use std::collections::HashMap;

use headwater_expression::{
    Fields, INDISTINCT, Key, Number, Path, Slot, Value, check, put_json_text, put_number,
};
use headwater_guest::{
    Batch, Error, Items, ItemsBuilder, Mapping, Metadata, Module, Output, Outputs, Param, ParamKind, Params,
    Record, export_mapping, package_metadata, state,
};

use moments::{Judgement, Moments, Rules};

struct Anomaly {
    field: Slot,
    /// As it was given, for what is sent.
    name: String,
    /// None: all records of a partition are one group.
    group: Option<Key>,
    rules: Rules,
    fields: Fields,
    text: Vec<u8>,
    json: Vec<u8>,
}

impl Module for Anomaly {
    fn describe() -> Metadata {
        package_metadata!()
            .param(
                Param::new(
                    "field",
                    ParamKind::Text,
                    "The field of the JSON value that is watched, such as temperature. Where it is missing or null \
                     the record is passed over.",
                )
                .required(),
            )
            .param(
                Param::new(
                    "group-by",
                    ParamKind::Text,
                    "What has a mean of its own: `key` for every key of the records, or a field such as sensor.id. \
                     Left empty: all records of a partition together.",
                )
                .default("key"),
            )
            .param(
                Param::new(
                    "sigmas",
                    ParamKind::Float,
                    "How many standard deviations from the mean a value must be away to be sent.",
                )
                .default("3"),
            )
            .param(
                Param::new(
                    "warm-up",
                    ParamKind::Integer,
                    "So many values of a group are learned from before the first is judged.",
                )
                .default("30"),
            )
            .param(Param::new(
                "span",
                ParamKind::Integer,
                "Let older values count less and less, as an exponential mean over about so many does. Left out: all \
                 count alike.",
            ))
            .param(Param::new(
                "ttl",
                ParamKind::Duration,
                "Forget a group that had no value for so long, by the records' timestamps. Left out: never.",
            ))
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let mut fields = Fields::default();
        let name = params.text("field")?.trim().to_owned();
        let field = Path::parse(&name).map(|path| fields.add(&path));
        let field = field.map_err(|error| Error::new(format!("parameter 'field', {error}")))?;
        let group = match params.text("group-by")?.trim() {
            "" => None,
            source => {
                let key = Key::parse(source, &mut fields);
                Some(key.map_err(|error| Error::new(format!("parameter 'group-by', {error}")))?)
            }
        };
        let sigmas = params.float("sigmas")?;
        if sigmas <= 0.0 {
            return Err(Error::new("parameter 'sigmas' must be more than 0"));
        }
        let at_least = |name: &str, value: i64, least: u64| {
            let sound = u64::try_from(value).ok().filter(|value| *value >= least);
            sound.ok_or_else(|| Error::new(format!("parameter '{name}' must be at least {least}")))
        };
        let span = match params.get("span") {
            Some(_) => Some(at_least("span", params.integer("span")?, 2)?),
            None => None,
        };
        let warm_up = at_least("warm-up", params.integer("warm-up")?, 2)?;
        Ok(Self {
            field,
            name,
            group,
            rules: Rules::new(sigmas, warm_up, span),
            fields,
            text: Vec::new(),
            json: Vec::new(),
        })
    }
}

/// A value to be judged, and the number of its group in the batch.
struct Found {
    value: f64,
    group: usize,
}

impl Mapping for Anomaly {
    // Two calls of the host per batch: one reads the moments of every group in it, one writes them.
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut keys = ItemsBuilder::default();
        let mut found = Vec::with_capacity(batch.len());
        for record in batch {
            found.push(self.find(&record).map(|value| {
                value.map(|value| {
                    let group = numbers.get(&self.text).copied().unwrap_or_else(|| {
                        keys.push(Some(&self.text));
                        numbers.insert(self.text.clone(), numbers.len());
                        numbers.len() - 1
                    });
                    Found { value, group }
                })
            }));
        }
        let keys = keys.finish();
        let kept = state::get_many(&keys);
        let read = |kept: Option<&[u8]>| kept.and_then(Moments::decode).unwrap_or_default();
        let mut groups: Vec<Moments> = kept.iter().map(read).collect();
        for (record, found) in batch.records().zip(found) {
            let judged = found.and_then(|found| {
                let Some(Found { value, group }) = found else {
                    return Ok(None);
                };
                let judgement = groups[group].take(value, &self.rules)?;
                Ok(judgement.map(|judgement| (value, judgement)))
            });
            match judged {
                Ok(None) => {}
                Ok(Some((value, judgement))) => self.send(&record, value, &judgement, outputs),
                Err(error) => outputs.fail(&record, error),
            }
        }
        if groups.is_empty() {
            return;
        }
        let mut entries = ItemsBuilder::with_capacity(groups.len() * 64);
        for (key, moments) in Items::new(keys).iter().zip(&groups) {
            entries.push(key);
            entries.push(Some(&moments.encode()));
        }
        state::put_many(&entries.finish());
    }
}

impl Anomaly {
    /// The value that is watched, with its group in `text`. None: there is none, or it belongs to no group.
    fn find(&mut self, record: &Record<'_>) -> Result<Option<f64>, Error> {
        self.text.clear();
        let view = self.fields.view(record)?;
        let value = match view.field(self.field) {
            Value::Null => return Ok(None),
            Value::Number(number) => number.to_f64(),
            value @ (Value::Boolean(_) | Value::Text(_) | Value::Nested(_) | Value::BadNumber(_)) => {
                return Err(Error::new(format!(
                    "{} is {}, not a number",
                    view.path(self.field),
                    value.kind()
                )));
            }
        };
        let has_group = match self.group {
            Some(key) => key.put(&view, &mut self.text, INDISTINCT)?,
            None => true,
        };
        Ok(has_group.then_some(value))
    }

    /// Sends the record as it is inside of what there is to say about it.
    fn send(&mut self, record: &Record<'_>, value: f64, judgement: &Judgement, outputs: &mut Outputs) {
        let whole = record.value().unwrap_or_default();
        if let Err(error) = check(whole) {
            outputs.fail(record, error);
            return;
        }
        let json = &mut self.json;
        json.clear();
        json.extend_from_slice(b"{\"field\":");
        put_json_text(json, self.name.as_bytes());
        for (name, number) in [
            ("value", Some(value)),
            ("mean", Some(judgement.mean)),
            ("deviation", Some(judgement.deviation)),
            ("sigmas", judgement.sigmas),
        ] {
            json.extend_from_slice(b",\"");
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
            match number.and_then(Number::float) {
                Some(number) => put_number(json, number.simplest()),
                None => json.extend_from_slice(b"null"),
            }
        }
        json.extend_from_slice(b",\"record\":");
        json.extend_from_slice(whole);
        json.push(b'}');
        outputs.push(record, Output::default().value(Some(json)));
    }
}

export_mapping!(Anomaly);

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, configure, forget_state, transform};

    /// The node's tests run the same files through the component.
    #[test]
    fn golden_files_hold() {
        headwater_golden_native::check_mapping::<Anomaly>("anomaly");
    }

    #[test]
    fn batches_may_be_cut_anywhere() {
        let records: Vec<TestRecord> = (0..40)
            .map(|n| TestRecord::value(format!("{{\"v\":{}}}", if n % 13 == 12 { 900 } else { n % 5 })))
            .collect();
        let mut all = Vec::new();
        for cut in 0..=records.len() {
            forget_state();
            let params = [
                ("field", "v"),
                ("group-by", ""),
                ("warm-up", "10"),
                ("span", "20"),
            ];
            let mut module: Anomaly = configure(&params).expect("it is sound");
            let (first, second) = records.split_at(cut);
            let mut sent = transform(&mut module, first).sent;
            sent.extend(transform(&mut module, second).sent);
            all.push(sent.into_iter().map(|sent| sent.record.value).collect::<Vec<_>>());
        }
        assert!(!all[0].is_empty(), "something is sent");
        assert!(all.iter().all(|sent| *sent == all[0]), "{all:?}");
    }
}
