//! Sends each line of a value as a record of its own, numbered in a header.
use headwater_guest::{Batch, Error, Mapping, Metadata, Module, Output, Outputs, Param, ParamKind, Params};
use headwater_guest::{export_mapping, package_metadata};

struct SplitLines {
    blank_lines: bool,
}

impl Module for SplitLines {
    fn describe() -> Metadata {
        package_metadata!().param(
            Param::new(
                "blank-lines",
                ParamKind::Boolean,
                "Whether to send empty lines too.",
            )
            .default("false"),
        )
    }

    fn configure(params: &Params) -> Result<Self, Error> {
        Ok(Self {
            blank_lines: params.boolean("blank-lines")?,
        })
    }
}

impl Mapping for SplitLines {
    fn transform(&mut self, batch: &Batch<'_>, outputs: &mut Outputs) {
        for record in batch {
            let Some(value) = record.value() else {
                outputs.fail(&record, "the record has no value");
                continue;
            };
            let lines = value
                .split(|byte| *byte == b'\n')
                .filter(|line| self.blank_lines || !line.is_empty());
            for (number, line) in (1u32..).zip(lines) {
                let headers = [("line", Some(&number.to_be_bytes()[..]))];
                outputs.push(&record, Output::default().value(Some(line)).headers(&headers));
            }
        }
    }
}

export_mapping!(SplitLines);

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, configure, transform};

    #[test]
    fn sends_every_line() {
        let mut module: SplitLines = configure(&[]).expect("no parameter is required");
        let answer = transform(
            &mut module,
            &[TestRecord::value("a\n\nb\n"), TestRecord::tombstone("k")],
        );
        let values: Vec<_> = answer
            .sent
            .iter()
            .map(|sent| sent.record.value.as_deref())
            .collect();
        assert_eq!(values, [Some(&b"a"[..]), Some(&b"b"[..])]);
        assert_eq!(
            answer.sent[1].record.headers,
            [("line".into(), Some(vec![0, 0, 0, 2]))]
        );
        assert_eq!(answer.failures, [(1, "the record has no value".into())]);
    }
}
