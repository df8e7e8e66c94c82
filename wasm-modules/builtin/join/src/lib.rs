//! The built-in module `join`: what the host has joined, as it is or with some of its fields.
//! The host reads the parameters that say what is joined, and how (`node/docs/transforms.md`); it owns `fields`.

use headwater_expression::{Fields, ParseError, Parser, Slot, put_json_text};
use headwater_guest::{
    Batch, Error, Mapping, Metadata, Module, Output, Outputs, Param, ParamKind, Params, export_mapping,
    package_metadata,
};

struct Join {
    fields: Fields,
    taken: Vec<Taken>,
    text: Vec<u8>,
}

/// A field to take, and its name as JSON with a colon.
struct Taken {
    slot: Slot,
    name: Vec<u8>,
}

impl Module for Join {
    fn describe() -> Metadata {
        let text = |name, description| Param::new(name, ParamKind::Text, description);
        let duration = |name, description| Param::new(name, ParamKind::Duration, description);
        package_metadata!()
            .param(
                text(
                    "with",
                    "The topic to join the source with, the right side. It must have as many partitions as the source.",
                )
                .required(),
            )
            .param(
                text(
                    "kind",
                    "Which records that meet nothing are sent all the same: inner (none), left (those of the source), \
                     outer (all; only with `within`).",
                )
                .default("inner"),
            )
            .param(duration(
                "within",
                "How far apart in time two records may be that meet. Left empty, the right side is a table: each record \
                 of the source meets the latest value of its key.",
            ))
            .param(duration(
                "grace",
                "With `within`: how late a record may come and still meet others. Left empty: not at all.",
            ))
            .param(text(
                "left-key",
                "Where the key stands in values of the source, as a JSON pointer such as /order/id. Left empty: the \
                 record's own key. Only with topics of one partition.",
            ))
            .param(text("right-key", "The same of the right side; not of a table."))
            .param(
                text(
                    "fields",
                    "Which fields of what was joined to send, divided by commas, each with a new name if wanted: \
                     left.id, right.city as town. Left empty: {\"left\":..,\"right\":..} as a whole.",
                )
                .default(""),
            )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let mut fields = Fields::default();
        let taken = select(params.text("fields")?, &mut fields);
        let taken = taken.map_err(|error| Error::new(format!("parameter 'fields', {error}")))?;
        Ok(Self {
            fields,
            taken,
            text: Vec::new(),
        })
    }
}

/// Reads `left.id, right.city as town`.
fn select(source: &str, fields: &mut Fields) -> Result<Vec<Taken>, ParseError> {
    let mut parser = Parser::new(source)?;
    let mut taken: Vec<Taken> = Vec::new();
    while !parser.at_end() {
        let before = parser.clone();
        let path = parser.path()?;
        let name = if parser.takes_word("as")? {
            parser.name("a name")?.to_owned()
        } else {
            path.last_name().unwrap_or("value").to_owned()
        };
        let mut json = Vec::new();
        put_json_text(&mut json, name.as_bytes());
        json.push(b':');
        if taken.iter().any(|other| other.name == json) {
            return Err(before.error(format!(
                "two fields are called `{name}`: give one another name with `as`"
            )));
        }
        taken.push(Taken {
            slot: fields.add(&path),
            name: json,
        });
        if !parser.takes(",")? && !parser.at_end() {
            return Err(parser.expected("`,` or `as`"));
        }
    }
    Ok(taken)
}

impl Mapping for Join {
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        for record in batch {
            if self.taken.is_empty() {
                outputs.push(&record, Output::default());
                continue;
            }
            let view = match self.fields.view(&record) {
                Ok(view) => view,
                Err(error) => {
                    outputs.fail(&record, error);
                    continue;
                }
            };
            self.text.clear();
            self.text.push(b'{');
            for taken in &self.taken {
                let Some(value) = view.raw(taken.slot) else {
                    continue;
                };
                if self.text.len() > 1 {
                    self.text.push(b',');
                }
                self.text.extend_from_slice(&taken.name);
                self.text.extend_from_slice(value);
            }
            self.text.push(b'}');
            outputs.push(&record, Output::default().value(Some(&self.text)));
        }
    }
}

export_mapping!(Join);

#[cfg(test)]
mod tests {
    use super::*;

    /// The node's tests run the same files through the component.
    #[test]
    fn golden_files_hold() {
        headwater_golden_native::check_mapping::<Join>("join");
    }
}
