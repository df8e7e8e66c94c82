//! The built-in module `aggregate`: counts, sums, means, extremes and shares per group and window of event time.
//! It owns its parameters and what it keeps per group; windows, lateness and the keeping are the host's.
//!
//! Results do not depend on the order of the records: integers are summed exactly in 128 bits, floats exactly in
//! `exact`, and each result is rounded once, when it is sent.

mod accumulator;
mod columns;
mod exact;
mod groups;

use headwater_expression::{Fields, ParseError, put_integer, put_json_text, put_time};
use headwater_guest::{
    Aggregate, Error, Merge, Metadata, Module, Output, Outputs, Param, ParamKind, Params, Record, Window,
    export_merging_aggregate, package_metadata,
};

use accumulator::Accumulator;
use columns::{Column, Kept};
use groups::{Group, Time};

const WINDOW_START: &str = "window_start";
const WINDOW_END: &str = "window_end";

struct Compute {
    groups: Vec<Group>,
    time: Time,
    columns: Vec<Column>,
    window_times: WindowTimes,
    /// What `key` looks for, and what `fold` does: each reads a value only as far as it must.
    key_fields: Fields,
    fold_fields: Fields,
    texts: Vec<u8>,
    inputs: Vec<Kept>,
    json: Vec<u8>,
}

/// How the bounds of a window are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WindowTimes {
    Iso,
    EpochMs,
}

impl Module for Compute {
    fn describe() -> Metadata {
        package_metadata!()
            .param(
                Param::new(
                    "compute",
                    ParamKind::Text,
                    "The results, divided by commas: count() as flights, count(field), count_if(delay > 15) as late, \
                     share_if(delay > 15) as late_share, sum(distance), avg(delay) as mean_delay, min(delay), \
                     max(delay). Arguments can be expressions. Null and missing values are passed over.",
                )
                .required(),
            )
            .param(
                Param::new(
                    "group-by",
                    ParamKind::Text,
                    "One result per value of this field: origin. More fields are divided by commas, each with a new \
                     name if wanted: origin, flight.to as destination. `key` is the record's own key. Left empty: \
                     one result for all records of a partition.",
                )
                .default(""),
            )
            .param(
                Param::new(
                    "time",
                    ParamKind::Text,
                    "The field with the event time: ISO 8601 or RFC 3339 text (without a zone it counts as UTC), or \
                     a number of milliseconds since 1970. `timestamp` is the record's own timestamp.",
                )
                .default("timestamp"),
            )
            .param(
                Param::new(
                    "window-times",
                    ParamKind::Text,
                    "How window_start and window_end are written: iso (2001-01-31T12:00:00Z) or epoch-ms.",
                )
                .default("iso"),
            )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        let in_param = |name: &str, error: ParseError| Error::new(format!("parameter '{name}', {error}"));
        let (mut key_fields, mut fold_fields) = (Fields::default(), Fields::default());
        let columns = columns::parse(params.text("compute")?, &mut fold_fields)
            .map_err(|error| in_param("compute", error))?;
        let groups = groups::parse(params.text("group-by")?, &mut key_fields)
            .map_err(|error| in_param("group-by", error))?;
        let time =
            Time::parse(params.text("time")?, &mut key_fields).map_err(|error| in_param("time", error))?;
        let window_times = match params.text("window-times")?.trim() {
            "iso" => WindowTimes::Iso,
            "epoch-ms" => WindowTimes::EpochMs,
            other => {
                return Err(Error::new(format!(
                    "parameter 'window-times' is '{other}', but must be iso or epoch-ms"
                )));
            }
        };
        for column in &columns {
            let taken = groups.iter().any(|group| group.name == column.name);
            if taken || [WINDOW_START, WINDOW_END].contains(&column.name.as_str()) {
                return Err(Error::new(format!(
                    "parameter 'compute': the name `{}` is taken by a group or the window; say `as NAME`",
                    column.name
                )));
            }
        }
        Ok(Self {
            groups,
            time,
            columns,
            window_times,
            key_fields,
            fold_fields,
            texts: Vec::new(),
            inputs: Vec::new(),
            json: Vec::new(),
        })
    }
}

impl Aggregate for Compute {
    type State = Vec<Accumulator>;

    fn key(&mut self, record: &Record<'_>, key: &mut Vec<u8>) -> Result<Option<i64>, Error> {
        let view = self.key_fields.view(record)?;
        let time_ms = self.time.of(&view)?;
        groups::put_key(&self.groups, &view, &mut self.texts, key)?;
        Ok(Some(time_ms))
    }

    fn start(&self) -> Vec<Accumulator> {
        self.columns.iter().map(Column::start).collect()
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<Vec<Accumulator>, Error> {
        let mut state = self.start();
        let read = state
            .iter_mut()
            .try_for_each(|accumulator| accumulator.decode(&mut bytes));
        if read.is_none() || !bytes.is_empty() {
            return Err(Error::new(
                "the state was written by another version or for another `compute`",
            ));
        }
        Ok(state)
    }

    fn encode(&self, state: &Vec<Accumulator>, bytes: &mut Vec<u8>) {
        state.iter().for_each(|accumulator| accumulator.encode(bytes));
    }

    fn fold(&mut self, state: &mut Vec<Accumulator>, record: &Record<'_>) -> Result<(), Error> {
        // All inputs are found and accepted before any is taken in: a record counts in all columns or in none.
        let view = self.fold_fields.view(record)?;
        self.texts.clear();
        self.inputs.clear();
        for (column, accumulator) in self.columns.iter().zip(state.iter()) {
            let input = column.input(&view, &mut self.texts)?;
            if let Some(why) = accumulator.refuses(&input.input(&self.texts)) {
                return Err(Error::new(format!("{}: {why}", column.name)));
            }
            self.inputs.push(input);
        }
        for (accumulator, input) in state.iter_mut().zip(&self.inputs) {
            accumulator.take(&input.input(&self.texts));
        }
        Ok(())
    }

    fn emit(&mut self, window: &Window<'_>, state: Vec<Accumulator>, outputs: &mut Outputs) {
        self.json.clear();
        self.json.push(b'{');
        for (name, value) in groups::named(&self.groups, window.key()) {
            put_name(&mut self.json, name);
            self.json.extend_from_slice(value);
        }
        for (name, time_ms) in [(WINDOW_START, window.start_ms()), (WINDOW_END, window.end_ms())] {
            put_name(&mut self.json, name);
            self.window_times.put(time_ms, &mut self.json);
        }
        for (column, accumulator) in self.columns.iter().zip(&state) {
            put_name(&mut self.json, &column.name);
            if !accumulator.put_result(&mut self.json) {
                outputs.fail(window, format!("{} is beyond what a float can hold", column.name));
                return;
            }
        }
        self.json.push(b'}');
        let key = groups::put_sent_key(&self.groups, window.key(), &mut self.texts);
        outputs.push(window, Output::default().key(key).value(Some(&self.json)));
    }
}

impl Merge for Compute {
    fn merge(
        &mut self,
        mut earlier: Vec<Accumulator>,
        later: Vec<Accumulator>,
    ) -> Result<Vec<Accumulator>, Error> {
        for ((accumulator, other), column) in earlier.iter_mut().zip(later).zip(&self.columns) {
            let joined = accumulator.join(other);
            joined.map_err(|why| Error::new(format!("{}: {why}", column.name)))?;
        }
        Ok(earlier)
    }
}

impl WindowTimes {
    fn put(self, time_ms: i64, json: &mut Vec<u8>) {
        match self {
            Self::Iso => {
                json.push(b'"');
                put_time(json, time_ms);
                json.push(b'"');
            }
            Self::EpochMs => put_integer(json, time_ms),
        }
    }
}

/// A member's name, with the comma before it if it is not the first.
fn put_name(json: &mut Vec<u8>, name: &str) {
    if json.len() > 1 {
        json.push(b',');
    }
    put_json_text(json, name.as_bytes());
    json.push(b':');
}

export_merging_aggregate!(Compute);

#[cfg(test)]
mod tests {
    /// The node's tests run the same files through the component.
    #[test]
    fn golden_files_hold() {
        headwater_golden_native::check_aggregate::<super::Compute>("aggregate");
    }

    #[test]
    fn two_sessions_merged_are_as_one() {
        use headwater_guest::testing::{TestRecord, configure, fold_all, merge};
        let compute =
            "count() as n, count_if(v > 2) as c, share_if(v > 2) as s, sum(v), avg(v) as a, min(v), max(v)";
        let mut module: super::Compute = configure(&[("compute", compute)]).expect("it is sound");
        let values = [
            "1",
            "2.5",
            "-7",
            "1e300",
            "0.1",
            "-1e300",
            "null",
            "9007199254740993",
            "0.2",
        ];
        let records: Vec<TestRecord> = values
            .iter()
            .map(|value| TestRecord::value(format!("{{\"v\":{value}}}")))
            .collect();
        let whole = fold_all(&mut module, &records);
        for cut in 1..records.len() {
            let (earlier, later) = records.split_at(cut);
            assert_eq!(
                merge(&mut module, earlier, later),
                Ok(whole.clone()),
                "cut at {cut}"
            );
        }
        let text = [TestRecord::value(r#"{"v":"text"}"#)];
        let mut module: super::Compute = configure(&[("compute", "min(v) as least")]).expect("it is sound");
        assert_eq!(
            merge(&mut module, &records[..2], &text),
            Err("least: text has no order among numbers".into())
        );
    }
}
