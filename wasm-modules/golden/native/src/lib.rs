//! Runs golden files against a module's code on the host, without Wasm. For tests: it panics where an answer differs.
//! It owns the comparison; what is compared stands in the files.

use headwater_golden::{Case, Expected, Golden, Output, Record, of_module};
use headwater_guest::testing::{self, Answer, Sent, TestRecord, Verdict};
use headwater_guest::{Aggregate, Filter, Mapping, Module};

/// Runs all files of a filter.
pub fn check_filter<M: Filter>(name: &str) {
    for (golden, mut module) in configured::<M>(name) {
        let expected: Vec<_> = golden.records.iter().map(verdict).collect();
        assert_eq!(
            testing::filter(&mut module, &records(&golden)),
            expected,
            "{}",
            golden.name
        );
    }
}

/// Runs all files of a map.
pub fn check_mapping<M: Mapping>(name: &str) {
    for (golden, mut module) in configured::<M>(name) {
        let mut expected = Answer {
            sent: Vec::new(),
            failures: failures(&golden),
        };
        for (index, case) in golden.records.iter().enumerate() {
            if let Expected::Sends(outputs) = &case.expected {
                expected
                    .sent
                    .extend(outputs.iter().map(|output| sent(index, output, &case.record)));
            }
        }
        compare(
            testing::transform(&mut module, &records(&golden)),
            expected,
            &golden,
        );
    }
}

/// Runs all files of an aggregate: once with all records in a batch, once with each in its own. Both must give the
/// same.
pub fn check_aggregate<M: Aggregate>(name: &str) {
    for (golden, mut module) in configured::<M>(name) {
        let window_ms = golden
            .window_ms
            .unwrap_or_else(|| panic!("{}: no window", golden.name));
        let records = records(&golden);
        let whole = testing::aggregate(&mut module, window_ms, &[&records]);
        let single: Vec<&[TestRecord]> = records.iter().map(std::slice::from_ref).collect();
        assert_eq!(
            testing::aggregate(&mut module, window_ms, &single),
            whole,
            "{}: cut otherwise",
            golden.name
        );
        // What an output of a closed window inherits is known to the test host only; take it from there.
        let inherited = |index: usize, output: &Output| {
            let window = whole.sent.get(index).map_or_else(Record::default, |sent| Record {
                key: text(sent.record.key.as_ref()),
                value: None,
                timestamp_ms: sent.record.timestamp_ms,
                headers: Vec::new(),
            });
            sent(index, output, &window)
        };
        let sent = golden
            .closing
            .iter()
            .enumerate()
            .map(|(index, output)| inherited(index, output))
            .collect();
        compare(
            whole.clone(),
            Answer {
                sent,
                failures: failures(&golden),
            },
            &golden,
        );
    }
}

/// The files whose parameters a module must accept, each with an instance; those it must refuse are checked here.
fn configured<M: Module>(name: &str) -> impl Iterator<Item = (Golden, M)> {
    of_module(name).into_iter().filter_map(|golden| {
        testing::forget_state();
        for entry in &golden.tables {
            let same = golden.tables.iter().filter(|other| other.table == entry.table);
            testing::set_table(
                &entry.table,
                same.map(|entry| (entry.key.as_str(), entry.value.as_str())),
            );
        }
        let params: Vec<_> = golden
            .params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        match (testing::configure(&params), &golden.refusal) {
            (Ok(module), None) => Some((golden, module)),
            (configured, expected) => {
                let message = configured.err().map(|error| error.to_string());
                assert_eq!(message, *expected, "{}", golden.name);
                None
            }
        }
    })
}

fn records(golden: &Golden) -> Vec<TestRecord> {
    golden.records.iter().map(|case| record(&case.record)).collect()
}

fn record(golden: &Record) -> TestRecord {
    TestRecord {
        key: golden.key.clone().map(Into::into),
        value: golden.value.clone().map(Into::into),
        timestamp_ms: golden.timestamp_ms,
        headers: golden
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.clone().into())))
            .collect(),
    }
}

fn sent(index: usize, output: &Output, input: &Record) -> Sent {
    Sent {
        index,
        topic: output.topic.clone(),
        record: record(&output.from_input(input)),
    }
}

fn verdict(case: &Case) -> Verdict {
    match &case.expected {
        Expected::Keep => Verdict::Keep,
        Expected::Drop => Verdict::Drop,
        Expected::Fail(message) => Verdict::Failed(message.clone()),
        Expected::Sends(_) => panic!("{:?}: a filter keeps, drops or fails", case.record),
    }
}

fn failures(golden: &Golden) -> Vec<(usize, String)> {
    let failed = golden
        .records
        .iter()
        .enumerate()
        .filter_map(|(index, case)| match &case.expected {
            Expected::Fail(message) => Some((index, message.clone())),
            Expected::Keep | Expected::Drop | Expected::Sends(_) => None,
        });
    failed.collect()
}

/// Compares with values as text, so that a difference can be read.
fn compare(seen: Answer, expected: Answer, golden: &Golden) {
    let lines = |answer: &Answer| answer.sent.iter().map(line).collect::<Vec<_>>().join("\n");
    let (seen_lines, expected_lines) = (lines(&seen), lines(&expected));
    assert!(
        seen_lines == expected_lines,
        "{}: sent\n{seen_lines}\nin place of\n{expected_lines}",
        golden.name
    );
    assert_eq!(seen, expected, "{}", golden.name);
}

fn line(sent: &Sent) -> String {
    let (key, value) = (text(sent.record.key.as_ref()), text(sent.record.value.as_ref()));
    format!(
        "{} {:?} {key:?} {value:?} {}",
        sent.index, sent.topic, sent.record.timestamp_ms
    )
}

fn text(bytes: Option<&Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
