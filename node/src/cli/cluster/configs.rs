//! `headwater cluster configs`: the properties of nodes that may change while they run, of all of them or of one.

use headwater_sdk::protocol::ids::NodeId;
use headwater_sdk::{Admin, ConfigChange, ConfigEntry, ConfigResource};
use serde_json::{Value, json};

use super::super::common::{Common, pair};
use super::super::failure::Failure;
use super::super::table::Table;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One node, by its number [default: what is set for all nodes]
    #[arg(long, value_name = "N")]
    node: Option<i32>,
    /// Set a property; may be given again
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Put a property back to what holds without it; may be given again
    #[arg(long, short, value_name = "KEY")]
    remove: Vec<String>,
    /// Of one node, properties that nobody has set, too
    #[arg(long, requires = "node")]
    all: bool,
}

/// Changes what is to be changed, and shows what is set then.
pub(super) async fn run(common: &Common, admin: &Admin, arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        node,
        set,
        remove,
        all,
    } = arguments;
    let resource = node.map_or(ConfigResource::AllBrokers, |node| {
        ConfigResource::Broker(NodeId(node))
    });
    let set = set
        .into_iter()
        .map(|(name, value)| ConfigChange::Set { name, value });
    let removed = remove.into_iter().map(|name| ConfigChange::Delete { name });
    let changes: Vec<_> = set.chain(removed).collect();
    if !changes.is_empty() {
        admin.alter_configs(&resource, &changes).await?;
    }
    let mut configs = admin.describe_configs(&resource).await?;
    configs.retain(|config| all || !config.is_default);
    let value = Value::Array(configs.iter().map(shape).collect());
    common.answer(&value, shown)
}

fn shape(config: &ConfigEntry) -> Value {
    json!({
        "name": config.name, "value": config.value, "is_default": config.is_default,
        "is_read_only": config.is_read_only,
    })
}

fn shown(value: &Value) -> String {
    let configs = value.as_array().filter(|configs| !configs.is_empty());
    let Some(configs) = configs else {
        return "nothing is set\n".to_owned();
    };
    let mut table = Table::new(&["property", "value", "changes"]);
    for config in configs {
        let changes = match config["is_read_only"].as_bool() {
            Some(true) => "at the next start",
            _ => "at once",
        };
        let text = |name: &str| config[name].as_str().unwrap_or("-").to_owned();
        table.row([text("name"), text("value"), changes.to_owned()]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_shown_with_when_it_changes() {
        let config = |name: &str, value: Option<&str>, is_read_only| ConfigEntry {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            is_default: false,
            is_read_only,
            is_sensitive: value.is_none(),
            documentation: None,
        };
        let set = [config("a", Some("1"), false), config("b", None, true)];
        let shown = shown(&Value::Array(set.iter().map(shape).collect()));
        let lines: Vec<_> = shown.lines().skip(1).map(str::trim_end).collect();
        assert_eq!(
            lines,
            ["a         1      at once", "b         -      at the next start"]
        );
        assert_eq!(super::shown(&Value::Array(Vec::new())), "nothing is set\n");
    }
}
