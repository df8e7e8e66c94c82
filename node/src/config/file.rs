//! From text to values: a TOML file, environment variables and flags, each over the one before. Pure: whoever calls
//! has read the file and the variables.

use super::properties::PropertyError;
use super::server::{self, NodeConfig, Values};

/// Why the configuration was refused, and where the cause stands.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{origin}: {cause}")]
    Property { origin: String, cause: PropertyError },
    #[error("{origin}: {cause}")]
    Syntax {
        origin: String,
        cause: Box<toml::de::Error>,
    },
    #[error("{origin}: {key} is a {found}, where text, a number or true or false is expected")]
    Shape {
        origin: String,
        key: String,
        found: &'static str,
    },
}

/// Variables that start with `HEADWATER_` but are not properties of a node.
const OTHER_VARIABLES: &[&str] = &[
    "CONFIG",
    "BOOTSTRAP",
    "OUTPUT",
    "HTTP",
    "CA",
    "CERT",
    "KEY",
    "BIN",
];

/// Values collected from the weakest source to the strongest.
#[derive(Debug, Default)]
pub struct Layers {
    values: Values,
}

impl Layers {
    /// Adds a TOML file. Its keys are property names: `num.partitions = 3`, or the same as tables.
    pub fn add_toml(&mut self, origin: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|cause| ConfigError::Syntax {
            origin: origin.to_owned(),
            cause: Box::new(cause),
        })?;
        self.add_table(origin, "", table)
    }

    fn add_table(&mut self, origin: &str, prefix: &str, table: toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}.{name}")
            };
            let value = match value {
                toml::Value::Table(inner) => {
                    self.add_table(origin, &key, inner)?;
                    continue;
                }
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Array(items) => join(origin, &key, items)?,
                toml::Value::Datetime(_) => {
                    return Err(ConfigError::Shape {
                        origin: origin.to_owned(),
                        key,
                        found: "date",
                    });
                }
            };
            self.set(origin, &key, &value)?;
        }
        Ok(())
    }

    /// Adds the variables that start with `HEADWATER_`: `HEADWATER_NUM_PARTITIONS` is `num.partitions`.
    pub fn add_variables(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("HEADWATER_") else {
                continue;
            };
            if OTHER_VARIABLES.contains(&rest) || is_service_discovery(rest) {
                continue;
            }
            self.set(&name, &rest.to_ascii_lowercase().replace('_', "."), &value)?;
        }
        Ok(())
    }

    /// Sets one property; `origin` is what the person wrote: a file's name, a variable, a flag.
    pub fn set(&mut self, origin: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        let kept = server::check(key, value).map_err(|cause| ConfigError::Property {
            origin: origin.to_owned(),
            cause,
        })?;
        self.values.insert(key.to_owned(), kept);
        Ok(())
    }

    /// The typed tree.
    pub fn finish(self) -> Result<NodeConfig, ConfigError> {
        NodeConfig::from_values(self.values).map_err(|cause| ConfigError::Property {
            origin: "configuration".to_owned(),
            cause,
        })
    }
}

fn join(origin: &str, key: &str, items: Vec<toml::Value>) -> Result<String, ConfigError> {
    let texts: Option<Vec<String>> = items
        .into_iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect();
    match texts {
        Some(texts) => Ok(texts.join(",")),
        None => Err(ConfigError::Shape {
            origin: origin.to_owned(),
            key: key.to_owned(),
            found: "mixed list",
        }),
    }
}

/// What Kubernetes sets for a service named `headwater`.
fn is_service_discovery(rest: &str) -> bool {
    rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::ids::NodeId;

    fn read(toml: &str, variables: &[(&str, &str)]) -> Result<NodeConfig, String> {
        let mut layers = Layers::default();
        layers.set("--data-dir", "data.dir", "data").expect("known");
        layers
            .add_toml("node.toml", toml)
            .map_err(|error| error.to_string())?;
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        layers
            .add_variables(variables)
            .map_err(|error| error.to_string())?;
        layers.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn a_variable_beats_the_file_and_the_file_beats_the_default() {
        let config = read(
            "node.id = 7\nnum.partitions = 3\nlog.retention.ms = '2d'\n[auto.create]\ntopics.enable = false",
            &[
                ("HEADWATER_NUM_PARTITIONS", "5"),
                ("HEADWATER_PORT_9092_TCP", "x"),
                ("PATH", "y"),
            ],
        )
        .expect("valid");
        assert_eq!(config.node_id, NodeId(7));
        assert_eq!(config.broker.partitions_default(), 5);
        assert!(!config.broker.auto_create_topics());
        assert_eq!(config.broker.value("log.retention.ms"), "172800000");
        assert_eq!(config.listen.tcp.as_deref(), Some("0.0.0.0:9092"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (toml, variables, expected) in [
            (
                "num.partition = 3",
                &[][..],
                r#"node.toml: unknown key "num.partition", did you mean "num.partitions"?"#,
            ),
            (
                "",
                &[("HEADWATER_NODE_IDD", "1")],
                r#"HEADWATER_NODE_IDD: unknown key "node.idd", did you mean "node.id"?"#,
            ),
            ("zzz = 1", &[], r#"node.toml: unknown key "zzz""#),
            (
                "num.partitions = 0",
                &[],
                r#"node.toml: num.partitions="0" is not valid: a whole number, at least 1 and at most 100000"#,
            ),
            (
                "compression.type = 'zstd'",
                &[],
                r#"node.toml: compression.type="zstd" is not valid: the broker does not compress again, only `producer` is supported"#,
            ),
            (
                "voters = '1@'",
                &[],
                r#"configuration: voters="1@" is not valid: ID@HOST:PORT with commas between"#,
            ),
            (
                "node.id = 2020-01-01",
                &[],
                "node.toml: node.id is a date, where text, a number or true or false is expected",
            ),
        ] {
            assert_eq!(read(toml, variables).expect_err(toml), expected);
        }
        assert!(
            read("node.id = ", &[])
                .expect_err("syntax")
                .starts_with("node.toml: TOML parse error")
        );
    }

    #[test]
    fn voters_are_numbers_with_addresses() {
        let config = read("voters = ['1@a:9092', '2@[::1]:9092']", &[]).expect("valid");
        let ids: Vec<_> = config
            .voters
            .iter()
            .map(|voter| (voter.id.value(), voter.address.as_str()))
            .collect();
        assert_eq!(ids, [(1, "a:9092"), (2, "[::1]:9092")]);
    }
}
