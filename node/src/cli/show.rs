//! Records and what became of them, as text for people.
//!
//! Pure.

use serde_json::Value;

/// What a module did with sample records: one line in, the lines out of it below.
pub(super) fn tried(answer: &Value) -> String {
    let mut out = String::new();
    let mut counts = [("kept", 0_u64), ("dropped", 0), ("mapped", 0), ("failed", 0)];
    for result in answer["results"].as_array().into_iter().flatten() {
        let outcome = result["outcome"].as_str().unwrap_or("-");
        if let Some((_, number)) = counts.iter_mut().find(|(name, _)| *name == outcome) {
            *number += 1;
        }
        out.push_str(&format!("{outcome:<8} {}\n", record(&result["input"])));
        for output in result["outputs"].as_array().into_iter().flatten() {
            let topic = match output["topic"].as_str() {
                Some(topic) if !topic.is_empty() => format!("{topic}: "),
                // The first sink.
                Some(_) | None => String::new(),
            };
            out.push_str(&format!("      -> {topic}{}\n", record(output)));
            // What an aggregate sends is of many records: the one it is shown with is not what it was.
            let changes = match outcome {
                "mapped" => changes(&result["input"], output),
                _ => Vec::new(),
            };
            for change in changes {
                out.push_str(&format!("         {change}\n"));
            }
        }
        if let Some(error) = result["error"].as_str() {
            out.push_str(&format!("      !! {error}\n"));
        }
    }
    for line in answer["log"].as_array().into_iter().flatten() {
        let text = line["message"]
            .as_str()
            .map_or_else(|| line.to_string(), str::to_owned);
        out.push_str(&format!("log      {text}\n"));
    }
    let counts = counts.map(|(name, number)| format!("{number} {name}")).join(", ");
    let time = answer["cpu_us"]
        .as_u64()
        .map_or_else(String::new, |us| format!(", {us} us"));
    out.push_str(&format!("{counts}{time}\n"));
    out
}

/// What an output has otherwise than its input, where both values are JSON objects: `+ added: 1`, `- taken: 2`,
/// `~ other: 3 => 4`.
fn changes(input: &Value, output: &Value) -> Vec<String> {
    let object = |record: &Value| -> Option<serde_json::Map<String, Value>> {
        serde_json::from_str(record["value"]["utf8"].as_str()?).ok()
    };
    let (Some(before), Some(after)) = (object(input), object(output)) else {
        return Vec::new();
    };
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let gone = gone.map(|(name, value)| format!("- {name}: {value}"));
    let there = after.iter().filter_map(|(name, value)| match before.get(name) {
        None => Some(format!("+ {name}: {value}")),
        Some(old) if old != value => Some(format!("~ {name}: {old} => {value}")),
        Some(_) => None,
    });
    gone.chain(there).collect()
}

/// `key = value`, bytes as text where they are text.
fn record(record: &Value) -> String {
    match data(&record["key"]) {
        Some(key) => format!(
            "{key} = {}",
            data(&record["value"]).unwrap_or_else(|| "(none)".into())
        ),
        None => data(&record["value"]).unwrap_or_else(|| "(none)".into()),
    }
}

/// Bytes as text where they are text.
pub(super) fn data(value: &Value) -> Option<String> {
    let text = value["utf8"].as_str().map(str::to_owned);
    text.or_else(|| value["base64"].as_str().map(|base64| format!("base64:{base64}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_shown_field_by_field() {
        let answer = json!({
            "results": [{
                "input": { "value": { "utf8": r#"{"a":1,"b":2,"c":3}"# } }, "outcome": "mapped",
                "outputs": [{ "value": { "utf8": r#"{"a":1,"b":5,"d":"x"}"# } }],
            }],
        });
        let shown = tried(&answer);
        let expected = "         - c: 3\n         ~ b: 2 => 5\n         + d: \"x\"\n";
        assert!(shown.contains(expected), "{shown}");
        let text = json!({ "results": [{
            "input": { "value": { "utf8": "{}" } }, "outcome": "kept", "outputs": [{ "value": { "utf8": "{\"n\":1}" } }],
        }]});
        assert!(
            !tried(&text).contains("+ n"),
            "an aggregate's result has no input to be compared with"
        );
    }

    #[test]
    fn results_are_lines() {
        let answer = json!({
            "results": [
                { "input": { "key": { "utf8": "a" }, "value": { "utf8": "1" } }, "outcome": "kept", "outputs": [], "error": null },
                { "input": { "key": null, "value": { "base64": "/w==" } }, "outcome": "failed", "outputs": [], "error": "no JSON" },
                { "input": { "value": null }, "outcome": "mapped", "outputs": [{ "topic": "t", "value": { "utf8": "x" } }] },
            ],
            "cpu_us": 17, "log": [],
        });
        let expected = "kept     a = 1\nfailed   base64:/w==\n      !! no JSON\nmapped   (none)\n      -> t: x\n\
                        1 kept, 0 dropped, 1 mapped, 1 failed, 17 us\n";
        assert_eq!(tried(&answer), expected);
    }
}
