//! The longest value of each key in a window of the records' own timestamps.
use headwater_guest::{Aggregate, Error, Metadata, Module, Output, Outputs, Params, Record, Window};
use headwater_guest::{export_aggregate, package_metadata};

struct Longest;

impl Module for Longest {
    fn describe() -> Metadata {
        package_metadata!()
    }

    fn configure(_: &Params) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Aggregate for Longest {
    type State = Vec<u8>;

    fn key(&mut self, record: &Record<'_>, key: &mut Vec<u8>) -> Result<Option<i64>, Error> {
        key.extend_from_slice(record.key().ok_or("the record has no key")?);
        Ok(Some(record.timestamp_ms()))
    }

    fn start(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(bytes.to_vec())
    }

    fn encode(&self, longest: &Vec<u8>, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(longest);
    }

    fn fold(&mut self, longest: &mut Vec<u8>, record: &Record<'_>) -> Result<(), Error> {
        let value = record.value().ok_or("the record has no value")?;
        if value.len() > longest.len() {
            longest.clear();
            longest.extend_from_slice(value);
        }
        Ok(())
    }

    fn emit(&mut self, window: &Window<'_>, longest: Vec<u8>, outputs: &mut Outputs) {
        outputs.push(window, Output::default().value(Some(&longest)));
    }
}

export_aggregate!(Longest);

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, aggregate, configure};

    #[test]
    fn one_per_key_and_window() {
        let mut module: Longest = configure(&[]).expect("it has no parameters");
        let record = |at, key: &str, value: &str| TestRecord::value(value).key(key).timestamp_ms(at);
        let first = [record(0, "a", "1"), record(9, "a", "22"), record(10, "a", "3")];
        let second = [
            record(5, "a", "333"),
            record(5, "b", ""),
            TestRecord::tombstone("a"),
        ];
        let answer = aggregate(&mut module, 10, &[&first, &second]);
        let sent: Vec<_> = answer
            .sent
            .iter()
            .map(|sent| {
                (
                    sent.record.timestamp_ms,
                    sent.record.key.as_deref(),
                    sent.record.value.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            sent,
            [
                (9, Some(&b"a"[..]), Some(&b"333"[..])),
                (9, Some(&b"b"[..]), Some(&b""[..])),
                (19, Some(&b"a"[..]), Some(&b"3"[..]))
            ]
        );
        assert_eq!(answer.failures, [(5, "the record has no value".into())]);
    }
}
