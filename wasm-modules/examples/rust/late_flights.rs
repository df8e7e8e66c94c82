//! Keeps the flights that were more than 15 minutes late.
use headwater_guest::{Record, filter};

filter!(|record: &Record| {
    let value = record.value().ok_or("the record has no value")?;
    let text = std::str::from_utf8(value)?;
    let delay = text.split_once("\"delay\":").ok_or("the record has no delay")?.1;
    let minutes: i64 = delay.split([',', '}']).next().unwrap_or(delay).trim().parse()?;
    Ok(minutes > 15)
});

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_guest::testing::{TestRecord, Verdict, configure, filter};

    #[test]
    fn keeps_late_flights() {
        let mut module: ClosureFilter = configure(&[]).expect("it has no parameters");
        let values = [
            r#"{"delay":16}"#,
            r#"{"delay": 15, "origin":"ATL"}"#,
            r#"{"delay":"x"}"#,
            "{}",
        ];
        let verdicts = filter(&mut module, &values.map(TestRecord::value));
        let failed = |message: &str| Verdict::Failed(message.into());
        assert_eq!(
            verdicts,
            [
                Verdict::Keep,
                Verdict::Drop,
                failed("invalid digit found in string"),
                failed("the record has no delay")
            ]
        );
    }
}
