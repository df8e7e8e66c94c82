//! Adds members to a JSON object as text: what is there is copied in one piece, or in few where names collide.
//! It walks both objects once and builds no tree.

use headwater_expression::{Members, NotJson, Text, check, put_json_text};
use headwater_guest::Error;

/// What to take of a table's entry, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    /// The new field, as JSON with its colon; none to merge into the record.
    field: Option<Name>,
    /// Which members; none for all.
    selected: Vec<Selected>,
}

/// A member's name, plain and as JSON with quotes and a colon.
#[derive(Clone, Debug)]
struct Name {
    plain: String,
    json: Vec<u8>,
}

impl Name {
    fn new(plain: &str) -> Self {
        let mut json = Vec::new();
        put_json_text(&mut json, plain.as_bytes());
        json.push(b':');
        Self {
            plain: plain.into(),
            json,
        }
    }
}

/// A member to take, and its name in the record.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    from: String,
    to: Name,
}

impl Selected {
    pub(crate) fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.into(),
            to: Name::new(to),
        }
    }
}

impl Addition {
    /// An empty `field` merges.
    pub(crate) fn new(field: &str, selected: Vec<Selected>) -> Self {
        Self {
            field: (!field.is_empty()).then(|| Name::new(field)),
            selected,
        }
    }
}

impl Addition {
    /// What the record gets, if that does not depend on the entry.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let selected = self.selected.iter().filter(|_| self.field.is_none());
        let names = self.field.iter().chain(selected.map(|each| &each.to));
        names.map(|name| name.plain.as_str())
    }
}

/// Why two texts cannot be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinError {
    Record(NotJson),
    RecordIsNoObject,
    Entry(NotJson),
    EntryIsNoObject,
}

impl JoinError {
    pub(crate) fn in_table(self, table: &str) -> Error {
        Error::new(match self {
            Self::Record(not_json) => not_json.to_string(),
            Self::RecordIsNoObject => "the value is not a JSON object".into(),
            Self::Entry(not_json) => format!("table '{table}' holds what is not JSON (byte {})", not_json.at),
            Self::EntryIsNoObject => format!("table '{table}' holds what is not a JSON object"),
        })
    }
}

/// Scratch space for joining, reused from record to record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Splice {
    added: Vec<u8>,
    names: Vec<AddedName>,
    joined: Vec<u8>,
}

/// The name of a member that is added to the record itself.
#[derive(Clone, Copy, Debug)]
enum AddedName {
    Field,
    Selected(usize),
    /// Where it stands in the entry.
    OfEntry {
        start: usize,
        end: usize,
        escaped: bool,
    },
}

impl Splice {
    /// The record's object with the addition at its end. Members of the record with a name that is added are left out.
    pub(crate) fn join(
        &mut self,
        record: &[u8],
        entry: &[u8],
        addition: &Addition,
    ) -> Result<&[u8], JoinError> {
        self.add(entry, addition)?;
        self.copy(record, entry, addition)?;
        Ok(&self.joined)
    }

    /// What an entry adds to any record: members, divided by commas.
    pub(crate) fn add(&mut self, entry: &[u8], addition: &Addition) -> Result<&[u8], JoinError> {
        self.added.clear();
        self.names.clear();
        match &addition.field {
            Some(field) => {
                self.add_field(field, entry, &addition.selected)?;
                self.names.clear();
                self.names.push(AddedName::Field);
            }
            None => self.add_members(entry, &addition.selected)?,
        }
        Ok(&self.added)
    }

    fn add_field(&mut self, field: &Name, entry: &[u8], selected: &[Selected]) -> Result<(), JoinError> {
        self.added.extend_from_slice(&field.json);
        if selected.is_empty() {
            check(entry).map_err(JoinError::Entry)?;
            self.added.extend_from_slice(entry.trim_ascii());
            return Ok(());
        }
        self.added.push(b'{');
        self.add_members(entry, selected)?;
        self.added.push(b'}');
        Ok(())
    }

    /// Appends the entry's members, divided by commas, and notes their names.
    fn add_members(&mut self, entry: &[u8], selected: &[Selected]) -> Result<(), JoinError> {
        let start = self.added.len();
        for member in members(entry, JoinError::Entry, JoinError::EntryIsNoObject)? {
            let member = member.map_err(JoinError::Entry)?;
            if selected.is_empty() {
                self.divide(start);
                self.added.extend_from_slice(&entry[member.start..member.end]);
                let name = member.start + 1;
                let escaped = member.name.as_plain().is_none();
                self.names.push(AddedName::OfEntry {
                    start: name,
                    end: name + member.name.raw().len(),
                    escaped,
                });
            }
            for (index, each) in selected.iter().enumerate() {
                if member.name.is(each.from.as_bytes()) {
                    self.divide(start);
                    self.added.extend_from_slice(&each.to.json);
                    self.added.extend_from_slice(member.value);
                    self.names.push(AddedName::Selected(index));
                }
            }
        }
        Ok(())
    }

    fn divide(&mut self, start: usize) {
        if self.added.len() > start {
            self.added.push(b',');
        }
    }

    /// Copies the record's members but those that are replaced, then what was added.
    fn copy(&mut self, record: &[u8], entry: &[u8], addition: &Addition) -> Result<(), JoinError> {
        self.joined.clear();
        let mut walk = members(record, JoinError::Record, JoinError::RecordIsNoObject)?;
        // Runs of members that stay, commas included, are copied at once.
        let mut run: Option<(usize, usize)> = None;
        self.joined.push(b'{');
        for member in walk.by_ref() {
            let member = member.map_err(JoinError::Record)?;
            if self
                .names
                .iter()
                .any(|added| added.is(member.name, entry, addition))
            {
                put_run(&mut self.joined, record, run.take());
            } else {
                run = Some((run.map_or(member.start, |(start, _)| start), member.end));
            }
        }
        put_run(&mut self.joined, record, run);
        if !self.added.is_empty() {
            if self.joined.len() > 1 {
                self.joined.push(b',');
            }
            self.joined.extend_from_slice(&self.added);
        }
        self.joined.push(b'}');
        Ok(())
    }
}

fn put_run(joined: &mut Vec<u8>, record: &[u8], run: Option<(usize, usize)>) {
    if let Some((start, end)) = run {
        if joined.len() > 1 {
            joined.push(b',');
        }
        joined.extend_from_slice(&record[start..end]);
    }
}

impl AddedName {
    /// Whether it is the name of a member of the record, which then makes way.
    fn is(self, name: Text<'_>, entry: &[u8], addition: &Addition) -> bool {
        match self {
            Self::Field => addition
                .field
                .as_ref()
                .is_some_and(|field| name.is(field.plain.as_bytes())),
            Self::Selected(index) => name.is(addition.selected[index].to.plain.as_bytes()),
            Self::OfEntry {
                start,
                end,
                escaped: false,
            } => name.is(&entry[start..end]),
            Self::OfEntry {
                start,
                end,
                escaped: true,
            } => name == Text::escaped(&entry[start..end]),
        }
    }
}

fn members(
    json: &[u8],
    not_json: fn(NotJson) -> JoinError,
    no_object: JoinError,
) -> Result<Members<'_>, JoinError> {
    Members::new(json).map_err(|error| {
        if check(json).is_ok() {
            no_object
        } else {
            not_json(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(record: &str, entry: &str, field: &str, selected: &[(&str, &str)]) -> Result<String, JoinError> {
        let selected = selected
            .iter()
            .map(|(from, to)| Selected::new(from, to))
            .collect();
        let mut splice = Splice::default();
        let joined = splice.join(
            record.as_bytes(),
            entry.as_bytes(),
            &Addition::new(field, selected),
        )?;
        Ok(String::from_utf8(joined.to_vec()).expect("UTF-8 in, UTF-8 out"))
    }

    #[test]
    fn an_entry_becomes_a_field() {
        for (record, entry, expected) in [
            (r#"{"a":1}"#, r#"{"x":2}"#, r#"{"a":1,"t":{"x":2}}"#),
            (r#" { "a" : 1 } "#, " [2] ", r#"{"a" : 1,"t":[2]}"#),
            ("{}", "2", r#"{"t":2}"#),
            (r#"{"t":1,"a":2}"#, "3", r#"{"a":2,"t":3}"#),
            (r#"{"a":2,"t":1}"#, "3", r#"{"a":2,"t":3}"#),
            (r#"{"a":2,"\u0074":1,"b":3}"#, "3", r#"{"a":2,"b":3,"t":3}"#),
            (r#"{"t":1,"t":2}"#, "3", r#"{"t":3}"#),
        ] {
            assert_eq!(
                join(record, entry, "t", &[]).as_deref(),
                Ok(expected),
                "{record} {entry}"
            );
        }
        assert_eq!(join("{}", "1", "a\"b", &[]).as_deref(), Ok(r#"{"a\"b":1}"#));
    }

    #[test]
    fn fields_are_chosen_and_renamed() {
        let entry = r#"{"city":"Atlanta","state":"GA","lat":33.6}"#;
        let join = |selected: &[(&str, &str)], field: &str| join(r#"{"state":1}"#, entry, field, selected);
        assert_eq!(
            join(&[("city", "city")], "").as_deref(),
            Ok(r#"{"state":1,"city":"Atlanta"}"#)
        );
        assert_eq!(
            join(&[("state", "state")], "").as_deref(),
            Ok(r#"{"state":"GA"}"#)
        );
        assert_eq!(join(&[("lat", "state")], "").as_deref(), Ok(r#"{"state":33.6}"#));
        assert_eq!(join(&[("none", "state")], "").as_deref(), Ok(r#"{"state":1}"#));
        assert_eq!(
            join(&[("lat", "lat"), ("city", "c"), ("city", "d")], "airport").as_deref(),
            Ok(r#"{"state":1,"airport":{"c":"Atlanta","d":"Atlanta","lat":33.6}}"#)
        );
        assert_eq!(
            join(&[("none", "x")], "airport").as_deref(),
            Ok(r#"{"state":1,"airport":{}}"#)
        );
    }

    #[test]
    fn objects_are_merged() {
        assert_eq!(
            join(r#"{"a":1,"b":2,"c":3}"#, r#"{"b":4,"d":5}"#, "", &[]).as_deref(),
            Ok(r#"{"a":1,"c":3,"b":4,"d":5}"#)
        );
        assert_eq!(join(r#"{"a":1}"#, "{}", "", &[]).as_deref(), Ok(r#"{"a":1}"#));
        assert_eq!(join("{}", r#"{"a":1}"#, "", &[]).as_deref(), Ok(r#"{"a":1}"#));
        assert_eq!(join("{}", "{}", "", &[]).as_deref(), Ok("{}"));
    }

    #[test]
    fn what_cannot_be_joined() {
        assert_eq!(join("[1]", "{}", "t", &[]), Err(JoinError::RecordIsNoObject));
        assert_eq!(
            join(r#"{"a":1"#, "{}", "t", &[]),
            Err(JoinError::Record(NotJson { at: 6 }))
        );
        assert_eq!(
            join("hello", "{}", "t", &[]),
            Err(JoinError::Record(NotJson { at: 0 }))
        );
        assert_eq!(
            join("{}", "hello", "t", &[]),
            Err(JoinError::Entry(NotJson { at: 0 }))
        );
        assert_eq!(
            join("{}", "{} {}", "t", &[]),
            Err(JoinError::Entry(NotJson { at: 3 }))
        );
        assert_eq!(join("{}", "[1]", "", &[]), Err(JoinError::EntryIsNoObject));
        assert_eq!(
            join("{}", "[1]", "t", &[("a", "a")]),
            Err(JoinError::EntryIsNoObject)
        );
    }
}
