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

fn data(value: &Value) -> Option<String> {
    let text = value["utf8"].as_str().map(str::to_owned);
    text.or_else(|| value["base64"].as_str().map(|base64| format!("base64:{base64}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
