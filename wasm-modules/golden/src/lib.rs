//! Reads the golden files of this folder. `README.md` beside it says what their lines mean.
//! It owns the text form, and never knows how a module is called: that is what makes it fit for native code and for
//! real components alike.

#![allow(clippy::disallowed_methods, reason = "tests read their files")]

use std::path::{Path, PathBuf};

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Golden {
    /// `filter/numbers`, for messages.
    pub name: String,
    pub params: Vec<(String, String)>,
    pub tables: Vec<Entry>,
    /// The message with which `configure` must refuse.
    pub refusal: Option<String>,
    pub window_ms: Option<i64>,
    pub records: Vec<Case>,
    /// What an aggregate sends when every window closes.
    pub closing: Vec<Output>,
}

/// An entry of a lookup table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub table: String,
    pub key: String,
    pub value: String,
}

/// A record, in or out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<String>,
    pub value: Option<String>,
    pub timestamp_ms: i64,
    pub headers: Vec<(String, String)>,
}

/// A record and what must become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub record: Record,
    pub expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Keep,
    Drop,
    Fail(String),
    /// What a map sends; empty for a record of an aggregate that does not fail.
    Sends(Vec<Output>),
}

/// A record that is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// `None`: the transform's first sink.
    pub topic: Option<String>,
    pub value: Value,
    /// `None`: what the input has.
    pub key: Option<Option<String>>,
    pub timestamp_ms: Option<i64>,
    pub headers: Option<Vec<(String, String)>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// The input's.
    #[default]
    Same,
    Is(Option<String>),
}

impl Output {
    /// The whole record, with what it takes from its input.
    #[must_use]
    pub fn from_input(&self, input: &Record) -> Record {
        Record {
            key: self.key.clone().unwrap_or_else(|| input.key.clone()),
            value: match &self.value {
                Value::Same => input.value.clone(),
                Value::Is(value) => value.clone(),
            },
            timestamp_ms: self.timestamp_ms.unwrap_or(input.timestamp_ms),
            headers: self.headers.clone().unwrap_or_else(|| input.headers.clone()),
        }
    }
}

/// All golden files of a module, in the order of their names.
///
/// # Panics
/// When there are none, or one cannot be read: this is for tests.
#[must_use]
pub fn of_module(module: &str) -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "golden"));
    files.sort();
    assert!(!files.is_empty(), "{}: no golden files", folder.display());
    let read = |file: &PathBuf| {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name = format!(
            "{module}/{}",
            file.file_stem().unwrap_or_default().to_string_lossy()
        );
        let mut golden = parse(&text).unwrap_or_else(|error| panic!("{}:{error}", file.display()));
        golden.name = name;
        golden
    };
    files.iter().map(read).collect()
}

/// Reads one file.
///
/// # Errors
/// The number of the line that makes no sense, and why.
pub fn parse(text: &str) -> Result<Golden, String> {
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let read = match line.strip_prefix("  ") {
            Some(indented) => reader.output_part(indented),
            None => reader.line(line),
        };
        read.map_err(|why| format!("{}: {why}", number + 1))?;
    }
    Ok(reader.golden)
}

#[derive(Default)]
struct Reader {
    golden: Golden,
    next: Record,
    closing: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "param" => {
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.golden.params.push((name.into(), value.into()));
            }
            "table" => {
                let [table, key, value] = three(rest).ok_or("a table entry is a name, a key and a value")?;
                self.golden.tables.push(Entry { table, key, value });
            }
            "refuse" => self.golden.refusal = Some(rest.into()),
            "window" => self.golden.window_ms = Some(duration_ms(rest)?),
            "key" => self.next.key = Some(rest.into()),
            "time" => self.next.timestamp_ms = number(rest)?,
            "header" => self.next.headers.push(header(rest)?),
            "in" => self.record(Some(rest.into())),
            "in!" => self.record(None),
            "keep" => self.expect(Expected::Keep)?,
            "drop" => self.expect(Expected::Drop)?,
            "fail" => self.expect(Expected::Fail(rest.into()))?,
            "close" => self.closing = true,
            "out" => self.output(Value::Is(Some(rest.into())))?,
            "out!" => self.output(Value::Is(None))?,
            "same" => self.output(Value::Same)?,
            other => return Err(format!("there is no line `{other}`")),
        }
        Ok(())
    }

    fn record(&mut self, value: Option<String>) {
        let record = Record {
            value,
            ..std::mem::take(&mut self.next)
        };
        self.golden.records.push(Case {
            record,
            expected: Expected::Sends(Vec::new()),
        });
    }

    fn expect(&mut self, expected: Expected) -> Result<(), String> {
        let case = self
            .golden
            .records
            .last_mut()
            .ok_or("there is no record before")?;
        if case.expected != Expected::Sends(Vec::new()) {
            return Err("the record before has an outcome already".into());
        }
        case.expected = expected;
        Ok(())
    }

    fn outputs(&mut self) -> Result<&mut Vec<Output>, String> {
        if self.closing {
            return Ok(&mut self.golden.closing);
        }
        match self.golden.records.last_mut().map(|case| &mut case.expected) {
            Some(Expected::Sends(outputs)) => Ok(outputs),
            _ => Err("there is no record before that sends".into()),
        }
    }

    fn output(&mut self, value: Value) -> Result<(), String> {
        self.outputs()?.push(Output {
            value,
            ..Output::default()
        });
        Ok(())
    }

    fn output_part(&mut self, line: &str) -> Result<(), String> {
        let output = self.outputs()?.last_mut().ok_or("there is no output before")?;
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "topic" => output.topic = Some(rest.into()),
            "key" => output.key = Some(Some(rest.into())),
            "key!" => output.key = Some(None),
            "time" => output.timestamp_ms = Some(number(rest)?),
            "header" => output.headers.get_or_insert_default().push(header(rest)?),
            "headers!" => output.headers = Some(Vec::new()),
            other => return Err(format!("an output has no `{other}`")),
        }
        Ok(())
    }
}

fn three(text: &str) -> Option<[String; 3]> {
    let mut parts = text.splitn(3, ' ').map(str::to_owned);
    Some([parts.next()?, parts.next()?, parts.next()?])
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(' ').ok_or("a header is a name and a value")?;
    Ok((name.into(), value.into()))
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is no whole number"))
}

fn duration_ms(text: &str) -> Result<i64, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let known = units.iter().find_map(|(unit, ms)| {
        text.strip_suffix(unit)?
            .parse::<i64>()
            .ok()
            .map(|count| count * ms)
    });
    known.ok_or_else(|| format!("`{text}` is no duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let golden = parse(
            "# a comment\nparam where a = 1\ntable t k {\"v\": 1}\nwindow 90s\n\nkey k1\ntime 5\nheader h v v\nin {}\n\
             same\n  topic late\nout [1]\n  key k2\n  time 7\n  headers!\nin!\nfail no value\nclose\nout! \n  key!\n",
        )
        .expect("every line is sound");
        assert_eq!(golden.params, [("where".into(), "a = 1".into())]);
        assert_eq!(golden.tables[0].value, "{\"v\": 1}");
        assert_eq!(golden.window_ms, Some(90_000));
        let [first, second] = &golden.records[..] else {
            panic!("two records")
        };
        let Expected::Sends(outputs) = &first.expected else {
            panic!("it sends")
        };
        assert_eq!(outputs[0].from_input(&first.record), first.record);
        assert_eq!(outputs[0].topic.as_deref(), Some("late"));
        assert_eq!(
            outputs[1].from_input(&first.record),
            Record {
                key: Some("k2".into()),
                value: Some("[1]".into()),
                timestamp_ms: 7,
                headers: vec![],
            }
        );
        assert_eq!(second.record, Record::default());
        assert_eq!(second.expected, Expected::Fail("no value".into()));
        assert_eq!(
            golden.closing,
            [Output {
                value: Value::Is(None),
                key: Some(None),
                ..Output::default()
            }]
        );
    }

    #[test]
    fn senseless_lines_are_refused() {
        for (text, expected) in [
            ("what is this", "1: there is no line `what`"),
            ("keep", "1: there is no record before"),
            ("in {}\nkeep\ndrop", "3: the record before has an outcome already"),
            ("in {}\nkeep\nout {}", "3: there is no record before that sends"),
            ("in {}\n  key x", "2: there is no output before"),
            ("in {}\nsame\n  colour red", "3: an output has no `colour`"),
            ("time soon", "1: `soon` is no whole number"),
            ("window long", "1: `long` is no duration"),
        ] {
            assert_eq!(parse(text), Err(expected.into()), "{text}");
        }
    }
}
