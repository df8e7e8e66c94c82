//! The built-in module `enrich`: joins each record with the entry of a lookup table that one of its fields names.
//! It owns its parameters and the way two JSON objects become one without either being rebuilt: what is added is
//! spliced in before the closing brace, and a member of the same name is cut out.

mod additions;
mod splice;

use headwater_expression::{Fields, Key, ParseError, Parser, Path, Slot};
use headwater_guest::lookup::Table;
use headwater_guest::{
    Batch, Error, ItemsBuilder, Mapping, Metadata, Module, Output, Outputs, Param, ParamKind, Params, Record,
    export_mapping, package_metadata,
};

use additions::Additions;
use splice::{Addition, Selected, Splice};

/// Of a key that is an object or an array.
const UNUSABLE: &str = "which cannot be looked up";

struct Enrich {
    table: Table,
    table_name: String,
    key: Key,
    addition: Addition,
    on_missing: OnMissing,
    /// The key alone, and the key with every name that is added: the latter reads a record to its end.
    key_fields: Fields,
    all_fields: Fields,
    added: Vec<Slot>,
    additions: Additions,
    splice: Splice,
    lookup_key: Vec<u8>,
    /// What the first pass over a batch found, per record.
    looked: Vec<Looked>,
}

/// What the first pass found of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// It is an object without space at its ends and has none of the names that are added.
    Plain,
    /// It has a key. What else it is, was not looked at.
    Keyed,
    Keyless,
    /// Its key cannot be used.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnMissing {
    Keep,
    Drop,
    Fail,
}

impl Module for Enrich {
    fn describe() -> Metadata {
        package_metadata!()
            .param(
                Param::new(
                    "table",
                    ParamKind::Table,
                    "The lookup table to join with. Its values must be JSON; objects, unless `as` is given and \
                     `fields` is not.",
                )
                .required(),
            )
            .param(
                Param::new(
                    "key",
                    ParamKind::Text,
                    "The field of the record whose value is looked up, such as origin or flight.origin; `key` for \
                     the record's own key ($.key for a field of that name).",
                )
                .required(),
            )
            .param(
                Param::new(
                    "as",
                    ParamKind::Text,
                    "The name of a new field that takes what was found. Left empty, the fields of what was found \
                     become fields of the record itself. A field of the same name is replaced.",
                )
                .default(""),
            )
            .param(
                Param::new(
                    "fields",
                    ParamKind::Text,
                    "Which fields of what was found to take, divided by commas, each with a new name if wanted: \
                     city, name as airport. Left empty: all.",
                )
                .default(""),
            )
            .param(
                Param::new(
                    "on-missing",
                    ParamKind::Text,
                    "What becomes of a record whose key is missing or not in the table: keep (as it is), drop, or \
                     fail.",
                )
                .default("keep"),
            )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let in_param = |name: &str, error: ParseError| Error::new(format!("parameter '{name}', {error}"));
        let mut key_fields = Fields::default();
        let key = Key::parse(params.text("key")?, &mut key_fields).map_err(|error| in_param("key", error))?;
        let selected = select(params.text("fields")?).map_err(|error| in_param("fields", error))?;
        let addition = Addition::new(params.text("as")?.trim(), selected);
        let mut all_fields = key_fields.clone();
        let added = addition.names().map(|name| all_fields.add(&Path::member(name)));
        let added = added.collect();
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
            table: params.table("table")?,
            table_name: params.text("table")?.trim().into(),
            key,
            addition,
            on_missing,
            key_fields,
            all_fields,
            added,
            additions: Additions::default(),
            splice: Splice::default(),
            lookup_key: Vec::new(),
            looked: Vec::new(),
        })
    }
}

/// Reads `city, name as airport`.
fn select(source: &str) -> Result<Vec<Selected>, ParseError> {
    let mut parser = Parser::new(source)?;
    let mut selected = Vec::new();
    while !parser.at_end() {
        let name = parser.name("the name of a field")?;
        let renamed = if parser.takes_word("as")? {
            parser.name("a name")?
        } else {
            name
        };
        selected.push(Selected::new(name, renamed));
        if !parser.takes(",")? && !parser.at_end() {
            return Err(parser.expected("`,` or `as`"));
        }
    }
    Ok(selected)
}

impl Mapping for Enrich {
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        let mut keys = ItemsBuilder::with_capacity(batch.len() * 8);
        self.looked.clear();
        for record in batch {
            let looked = self.look(&record);
            self.looked.push(looked);
            let is_usable = matches!(looked, Looked::Plain | Looked::Keyed);
            keys.push(is_usable.then_some(self.lookup_key.as_slice()));
        }
        let entries = self.table.get_many(&keys.finish());
        for (index, (record, entry)) in batch.records().zip(&entries).enumerate() {
            match (entry, record.value()) {
                (Some(entry), Some(value)) => self.join(&record, value, entry, self.looked[index], outputs),
                _ => self.missing(&record, self.looked[index], outputs),
            }
        }
    }
}

impl Enrich {
    /// Finds the key of a record, and writes it down.
    #[inline]
    fn look(&mut self, record: &Record<'_>) -> Looked {
        self.lookup_key.clear();
        if let Ok(view) = self.all_fields.view(record)
            && let Ok(true) = self.key.put(&view, &mut self.lookup_key, UNUSABLE)
        {
            let is_plain = view.is_whole()
                && self.added.iter().all(|slot| view.raw(*slot).is_none())
                && record.value().is_some_and(is_bare_object);
            return if is_plain { Looked::Plain } else { Looked::Keyed };
        }
        // With no key, or with a mistake somewhere behind it.
        match self.key_of(record) {
            Ok(true) => Looked::Keyed,
            Ok(false) => Looked::Keyless,
            Err(_) => Looked::Failed,
        }
    }

    /// As `look`, reading no further than the key.
    fn key_of(&mut self, record: &Record<'_>) -> Result<bool, Error> {
        self.lookup_key.clear();
        let view = self.key_fields.view(record)?;
        self.key.put(&view, &mut self.lookup_key, UNUSABLE)
    }

    #[inline]
    fn join(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        entry: &[u8],
        looked: Looked,
        outputs: &mut Outputs,
    ) {
        let joined = match (looked, value.split_last()) {
            (Looked::Plain, Some((_, open))) => self
                .additions
                .of(entry, &self.addition, &mut self.splice)
                .map(|added| {
                    let comma = &b","[..usize::from(open.len() > 1 && !added.is_empty())];
                    outputs.push(record, Output::default().value_of(&[open, comma, added, b"}"]));
                }),
            _ => self
                .splice
                .join(value, entry, &self.addition)
                .map(|joined| outputs.push(record, Output::default().value(Some(joined)))),
        };
        if let Err(error) = joined {
            outputs.fail(record, error.in_table(&self.table_name));
        }
    }

    /// A record for which the table has nothing, or whose key cannot be used.
    fn missing(&mut self, record: &Record<'_>, looked: Looked, outputs: &mut Outputs) {
        if looked == Looked::Failed {
            if let Err(error) = self.key_of(record) {
                outputs.fail(record, error);
            }
            return;
        }
        match self.on_missing {
            OnMissing::Keep => outputs.push(record, Output::default()),
            OnMissing::Drop => {}
            OnMissing::Fail => match self.key_of(record) {
                Ok(true) => {
                    let key = String::from_utf8_lossy(&self.lookup_key);
                    outputs.fail(
                        record,
                        format!("table '{}' has no entry '{key}'", self.table_name),
                    );
                }
                Ok(false) => outputs.fail(record, "there is no key to look up"),
                Err(error) => outputs.fail(record, error),
            },
        }
    }
}

/// Whether an object has no space at its ends, neither outside nor inside of its braces.
fn is_bare_object(value: &[u8]) -> bool {
    match value {
        [b'{', b'}'] => true,
        [b'{', first, .., last, b'}'] => !first.is_ascii_whitespace() && !last.is_ascii_whitespace(),
        _ => false,
    }
}

export_mapping!(Enrich);

#[cfg(test)]
mod tests;
