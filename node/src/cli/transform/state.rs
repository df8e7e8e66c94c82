//! `headwater transform state`: what a module keeps by key. Owns the flags and what is printed; what there is, the node says.

use serde_json::{Value, json};

use crate::cli::common::Common;
use crate::cli::failure::Failure;
use crate::cli::http::{Http, segment};
use crate::cli::show::data;
use crate::cli::table::Table;

/// As many entries as the node gives at once.
const PAGE: usize = 500;
/// More of a value is left out of the table.
const VALUE_CHARS_MAX: usize = 120;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The transform's name
    name: String,
    /// The source's partition
    #[arg(long, value_name = "N", default_value = "0")]
    partition: i32,
    /// This key alone
    #[arg(long, value_name = "TEXT", conflicts_with = "prefix")]
    key: Option<String>,
    /// Keys that begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// How many entries
    #[arg(long, short = 'n', value_name = "N", default_value = "20")]
    limit: usize,
}

pub(super) async fn show(common: &Common, http: &Http, arguments: &Arguments) -> Result<(), Failure> {
    let path = format!("/transforms/{}/state", segment(&arguments.name));
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let left = arguments.limit.saturating_sub(entries.len());
        let query = arguments.query(left, after.as_deref());
        let mut page = http.get(&format!("{path}?{query}")).await?;
        entries.extend(page["entries"].as_array().into_iter().flatten().cloned());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || entries.len() >= arguments.limit {
            page["entries"] = Value::Array(entries);
            return common.answer(&page, shown);
        }
    }
}

impl Arguments {
    fn query(&self, limit: usize, after: Option<&str>) -> String {
        let all = [
            ("partition", Some(json!(self.partition))),
            ("key", self.key.as_ref().map(|it| json!(it))),
            ("prefix", self.prefix.as_ref().map(|it| json!(it))),
            ("limit", Some(json!(limit.clamp(1, PAGE)))),
            ("after", after.map(|it| json!(it))),
        ];
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), segment);
        let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let pairs = given.map(|(name, value)| format!("{name}={}", text(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

fn shown(page: &Value) -> String {
    let mut table = Table::new(&["key", "value"]);
    for entry in page["entries"].as_array().into_iter().flatten() {
        let value = data(&entry["value"]).unwrap_or_default();
        let value = match value.char_indices().nth(VALUE_CHARS_MAX) {
            Some((end, _)) => format!("{}...", &value[..end]),
            None => value,
        };
        let text = |text: String| text.escape_debug().to_string();
        table.row([text(data(&entry["key"]).unwrap_or_default()), text(value)]);
    }
    let more = match page["next"].is_null() {
        true => "",
        false => ", there are more",
    };
    format!(
        "{}at offset {} of the source{more}\n",
        table.text(),
        page["position"]
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_is_asked_is_what_the_line_says() {
        let query = |line: &str| {
            let words = std::iter::once("x").chain(line.split_whitespace());
            Line::try_parse_from(words)
                .expect("a good line")
                .arguments
                .query(7, Some("YQ=="))
        };
        assert_eq!(query("tally"), "partition=0&limit=7&after=YQ%3D%3D");
        assert_eq!(
            query("tally --partition 2 --key a&b"),
            "partition=2&key=a%26b&limit=7&after=YQ%3D%3D"
        );
    }

    #[test]
    fn entries_are_shown_with_their_moment() {
        let page = json!({
            "position": 41, "next": "YQ==",
            "entries": [
                { "key": { "utf8": "a\n" }, "value": { "base64": "/w==" } },
                { "key": { "utf8": "b" }, "value": { "utf8": "x".repeat(200) } },
            ],
        });
        let expected = format!(
            "KEY  VALUE\na\\n  base64:/w==\nb    {}...\nat offset 41 of the source, there are more\n",
            "x".repeat(120)
        );
        assert_eq!(shown(&page), expected);
    }
}
