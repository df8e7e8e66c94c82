//! Answers of every kind, sound and broken. Arbitrary bytes must give an error or an answer, never a panic.

use proptest::prelude::*;

use super::super::bytes::{put_bytes, put_varint};
use super::*;

fn failures(indexes: &[u32], inputs: u32) -> Result<Failures, AnswerError> {
    let named = indexes.iter().map(|&index| Failure {
        index,
        message: "m".to_owned(),
    });
    Failures::check(named.collect(), inputs)
}

#[test]
fn failures_ascend_and_messages_are_cut_at_a_character() {
    assert_eq!(failures(&[0, 1], 2).map(|failures| failures.len()), Ok(2));
    assert_eq!(
        failures(&[2], 2),
        Err(AnswerError::FailureIndex { index: 2, count: 2 })
    );
    assert_eq!(failures(&[1, 1], 2), Err(AnswerError::FailureOrder { index: 1 }));
    assert_eq!(failures(&[1, 0], 2), Err(AnswerError::FailureOrder { index: 0 }));
    let long = vec![Failure {
        index: 0,
        message: "\u{20ac}".repeat(400),
    }];
    let kept = Failures::check(long, 1).unwrap();
    assert_eq!(kept.first().unwrap().message.len(), 1023);
}

#[test]
fn verdicts_are_checked() {
    let check = |verdicts: &[u8], failed: &[u32]| check_verdicts(verdicts, &failures(failed, 3).unwrap(), 3);
    assert_eq!(check(&[1, 0, 1], &[]), Ok(2));
    assert_eq!(check(&[1, 2, 2], &[1, 2]), Ok(1));
    assert_eq!(
        check(&[1, 0], &[]),
        Err(AnswerError::VerdictCount {
            found: 2,
            expected: 3
        })
    );
    assert_eq!(
        check(&[1, 0, 3], &[]),
        Err(AnswerError::VerdictValue { index: 2, value: 3 })
    );
    assert_eq!(
        check(&[1, 2, 1], &[]),
        Err(AnswerError::VerdictFailure { index: 1 })
    );
    assert_eq!(
        check(&[2, 2, 1], &[0]),
        Err(AnswerError::VerdictFailure { index: 1 })
    );
    assert_eq!(
        check(&[1, 1, 1], &[2]),
        Err(AnswerError::VerdictFailure { index: 2 })
    );
}

const SINKS: [&str; 2] = ["first", "second"];

/// Writes one output with every part it is given.
#[derive(Default, Clone)]
struct Written<'a> {
    input: u32,
    topic: Option<(u16, Option<&'a [u8]>)>,
    timestamp: Option<i64>,
    value: Option<Option<&'a [u8]>>,
    header: Option<(Option<&'a [u8]>, Option<&'a [u8]>)>,
    carries: u8,
}

fn written(outputs: &[Written<'_>]) -> Vec<u8> {
    let mut out = (outputs.len() as u32).to_le_bytes().to_vec();
    for output in outputs {
        out.extend(output.input.to_le_bytes());
        let flags = [
            (output.topic.is_some(), CARRIES_TOPIC),
            (output.timestamp.is_some(), CARRIES_TIMESTAMP),
            (output.value.is_some(), CARRIES_VALUE),
            (output.header.is_some(), CARRIES_HEADERS),
        ];
        out.push(
            flags
                .iter()
                .filter(|(set, _)| *set)
                .fold(output.carries, |all, (_, flag)| all | flag),
        );
        if let Some((number, name)) = output.topic {
            out.extend(number.to_le_bytes());
            if name.is_some() {
                put_bytes(&mut out, name);
            }
        }
        out.extend(output.timestamp.iter().flat_map(|at| at.to_le_bytes()));
        if let Some(value) = output.value {
            put_bytes(&mut out, value);
        }
        if let Some((name, value)) = output.header {
            put_varint(&mut out, 1);
            put_bytes(&mut out, name);
            put_bytes(&mut out, value);
        }
    }
    out
}

/// Input, sink and value of every output.
fn read(buffer: &[u8], failed: &[u32]) -> Result<Vec<(u32, usize, Option<Option<Vec<u8>>>)>, AnswerError> {
    let failed = failures(failed, 3).unwrap();
    let mut outputs = Outputs::new(buffer, 3, &failed, &SINKS)?;
    let mut found = Vec::new();
    while let Some(output) = outputs.next()? {
        if let Some(headers) = output.headers {
            assert!(
                headers
                    .map(|header| header.map(|_| ()))
                    .all(|header| header.is_ok())
            );
        }
        found.push((
            output.input,
            output.sink,
            output.value.map(|value| value.map(<[u8]>::to_vec)),
        ));
    }
    Ok(found)
}

#[test]
fn outputs_are_read() {
    let plain = Written::default();
    let buffer = written(&[
        plain.clone(),
        Written {
            topic: Some((1, Some(b"second"))),
            timestamp: Some(-5),
            ..plain.clone()
        },
        Written {
            input: 2,
            topic: Some((1, None)),
            value: Some(None),
            ..plain.clone()
        },
        Written {
            input: 2,
            topic: Some((0, None)),
            header: Some((Some(b"h"), None)),
            ..plain
        },
    ]);
    let expected = vec![(0, 0, None), (0, 1, None), (2, 1, Some(None)), (2, 0, None)];
    assert_eq!(read(&buffer, &[1]), Ok(expected));
}

#[test]
fn outputs_that_break_a_rule_are_named() {
    let plain = Written::default();
    let at = |input| Written {
        input,
        ..plain.clone()
    };
    let topic = |number, name| Written {
        topic: Some((number, name)),
        ..plain.clone()
    };
    let cases = [
        (vec![at(3)], AnswerError::OutputIndex { index: 3, count: 3 }),
        (vec![at(2), at(0)], AnswerError::OutputOrder { index: 0, last: 2 }),
        (vec![at(1)], AnswerError::OutputOfFailed { index: 1 }),
        (
            vec![topic(2, None)],
            AnswerError::TopicNumber {
                index: 0,
                number: 2,
                named: 0,
            },
        ),
        (vec![topic(1, Some(b""))], AnswerError::TopicName { index: 0 }),
        (vec![topic(1, Some(b"\xff"))], AnswerError::TopicName { index: 0 }),
        (
            vec![topic(1, Some(b"x"))],
            AnswerError::NoSuchSink {
                index: 0,
                name: "x".to_owned(),
            },
        ),
        (
            vec![Written {
                carries: 1 << 6,
                ..plain.clone()
            }],
            AnswerError::OutputCarries {
                index: 0,
                carries: 1 << 6,
            },
        ),
        (
            vec![Written {
                header: Some((None, None)),
                ..plain.clone()
            }],
            AnswerError::HeaderName { index: 0 },
        ),
    ];
    for (outputs, error) in cases {
        assert_eq!(read(&written(&outputs), &[1]), Err(error));
    }
    let mut longer = written(&[plain]);
    longer.push(0);
    assert_eq!(
        read(&longer, &[]),
        Err(AnswerError::LeftOver {
            part: "outputs",
            bytes: 1
        })
    );
    longer.truncate(7);
    assert!(matches!(
        read(&longer, &[]),
        Err(AnswerError::Malformed { part: "outputs", .. })
    ));
}

fn keys(records: &[(i64, Option<&[u8]>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, key) in records {
        out.extend(at.to_le_bytes());
        put_bytes(&mut out, *key);
    }
    out
}

#[test]
fn keys_are_checked() {
    let check = |buffer: &[u8], failed: &[u32]| {
        let mut out = Vec::new();
        read_keys(buffer, &failures(failed, 2).unwrap(), 2, &mut out).map(|()| {
            out.iter()
                .map(|keyed| keyed.map(|it| it.event_time_ms))
                .collect::<Vec<_>>()
        })
    };
    let two = keys(&[(7, Some(b"a")), (0, None)]);
    assert_eq!(check(&two, &[1]), Ok(vec![Some(7), None]));
    assert_eq!(check(&two, &[0]), Err(AnswerError::KeyOfFailed { index: 0 }));
    assert!(matches!(
        check(&two[..9], &[]),
        Err(AnswerError::Malformed { .. })
    ));
    let three = keys(&[(7, None), (0, None), (0, None)]);
    assert_eq!(
        check(&three, &[]),
        Err(AnswerError::LeftOver {
            part: "keys",
            bytes: 9
        })
    );
    let large = vec![0; KEY_BYTES_MAX + 1];
    let error = AnswerError::KeyTooLarge {
        index: 0,
        bytes: KEY_BYTES_MAX + 1,
    };
    assert_eq!(check(&keys(&[(7, Some(&large)), (0, None)]), &[]), Err(error));
}

#[test]
fn states_are_complete() {
    let mut buffer = 2u32.to_le_bytes().to_vec();
    put_bytes(&mut buffer, Some(b"s"));
    put_bytes(&mut buffer, None);
    let check = |buffer: &[u8], groups, empty: &[u32]| {
        let mut out = Vec::new();
        read_states(buffer, groups, |group| empty.contains(&group), &mut out).map(|()| out.len())
    };
    assert_eq!(check(&buffer, 2, &[1]), Ok(2));
    assert_eq!(check(&buffer, 2, &[]), Err(AnswerError::ItemMissing { group: 1 }));
    assert_eq!(
        check(&buffer, 3, &[]),
        Err(AnswerError::ItemCount {
            found: 2,
            expected: 3
        })
    );
    buffer.push(9);
    assert_eq!(
        check(&buffer, 2, &[1]),
        Err(AnswerError::LeftOver {
            part: "items",
            bytes: 1
        })
    );
}

proptest! {
    #[test]
    fn arbitrary_answers_never_panic(buffer in prop::collection::vec(any::<u8>(), 0..200), records in 0u32..50) {
        let none = Failures::default();
        let _ = read(&buffer, &[1]);
        let _ = check_verdicts(&buffer, &none, records);
        let _ = read_keys(&buffer, &none, records, &mut Vec::new());
        let _ = read_states(&buffer, records, |_| true, &mut Vec::new());
    }
}
