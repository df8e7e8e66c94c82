//! Kafka's message definitions as data.
//!
//! Owns the parsing of the JSON: version ranges, types, defaults, and the flattening of nested structs with
//! the versions in which each can occur. It must never know Rust syntax beyond names.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An inclusive range of versions; empty if `low > high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) low: i16,
    pub(super) high: i16,
}

impl Versions {
    pub(super) const NONE: Self = Self { low: 1, high: 0 };

    pub(super) fn parse(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse::<i16>().with_context(|| format!("versions {text:?}"));
        if text == "none" {
            return Ok(Self::NONE);
        }
        if let Some(low) = text.strip_suffix('+') {
            return Ok(Self {
                low: number(low)?,
                high: i16::MAX,
            });
        }
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        Ok(Self {
            low: number(low)?,
            high: number(high)?,
        })
    }

    pub(super) fn is_empty(self) -> bool {
        self.low > self.high
    }

    pub(super) fn intersect(self, other: Self) -> Self {
        let both = Self {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
        };
        if both.is_empty() { Self::NONE } else { both }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    I8,
    I16,
    U16,
    I32,
    I64,
    F64,
    Uuid,
    Str,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "bool" => Self::Bool,
            "int8" => Self::I8,
            "int16" => Self::I16,
            "uint16" => Self::U16,
            "int32" => Self::I32,
            "int64" => Self::I64,
            "float64" => Self::F64,
            "uuid" => Self::Uuid,
            "string" => Self::Str,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            other => match other.strip_prefix("[]") {
                Some(element) => Self::Array(Box::new(Self::parse(element)?)),
                None if other.starts_with(char::is_uppercase) => Self::Struct(other.to_owned()),
                None => bail!("unknown type {other:?}"),
            },
        })
    }

    fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.struct_name(),
            _ => None,
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        match self {
            Self::Struct(name) if name == from => *name = to.to_owned(),
            Self::Array(element) => element.rename(from, to),
            _ => {}
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    /// In snake case, as errors name it.
    pub(super) name: String,
    pub(super) kind: Type,
    /// Where the field occurs, within its struct's versions.
    pub(super) versions: Versions,
    /// Where it may be null, within its own versions.
    pub(super) nullable: Versions,
    pub(super) tag: Option<u32>,
    pub(super) default: Option<String>,
    pub(super) ignorable: bool,
    /// Written in the classic form even where the message is flexible.
    pub(super) never_flexible: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Struct {
    pub(super) name: String,
    pub(super) versions: Versions,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) name: String,
    pub(super) key: Option<i16>,
    pub(super) versions: Versions,
    pub(super) flexible: Versions,
    /// The message itself, then its parts in the order they are met.
    pub(super) structs: Vec<Struct>,
}

impl Message {
    /// Reads one definition. `versions` overrides the stable versions (a response has its request's).
    pub(super) fn parse(text: &str, versions: Option<Versions>) -> Result<Self> {
        let json: Value = serde_json::from_str(&without_comments(text))?;
        let mut valid = Versions::parse(str_of(&json, "validVersions")?)?;
        if json["latestVersionUnstable"].as_bool() == Some(true) {
            valid.high -= 1;
        }
        valid = versions.unwrap_or(valid);
        let mut message = Self {
            name: str_of(&json, "name")?.to_owned(),
            key: json["apiKey"].as_i64().map(i16::try_from).transpose()?,
            versions: valid,
            flexible: Versions::parse(str_of(&json, "flexibleVersions")?)?,
            structs: Vec::new(),
        };
        let name = message.name.clone();
        message.add_struct(&name, &json["fields"], valid)?;
        for common in json["commonStructs"].as_array().into_iter().flatten() {
            let versions = Versions::parse(str_of(common, "versions")?)?.intersect(valid);
            message.add_struct(str_of(common, "name")?, &common["fields"], versions)?;
        }
        Ok(message)
    }

    pub(super) fn rename_struct(&mut self, from: &str, to: &str) {
        for part in &mut self.structs {
            if part.name == from {
                part.name = to.to_owned();
            }
            for field in &mut part.fields {
                field.kind.rename(from, to);
            }
        }
    }

    fn add_struct(&mut self, name: &str, fields: &Value, versions: Versions) -> Result<()> {
        if self.structs.iter().any(|known| known.name == name) {
            bail!("{}: two structs are named {name}", self.name);
        }
        let at = self.structs.len();
        self.structs.push(Struct {
            name: name.to_owned(),
            versions,
            fields: Vec::new(),
        });
        let mut parsed = Vec::new();
        for json in fields
            .as_array()
            .with_context(|| format!("{name} has no fields"))?
        {
            let field = Field::parse(json, versions).with_context(|| format!("in {name}"))?;
            // Versions that no longer exist, or do not exist yet.
            if field.versions.is_empty() {
                continue;
            }
            if json["fields"].is_array() {
                let part = field.kind.struct_name().context("fields of what is no struct")?;
                self.add_struct(part, &json["fields"], field.versions)?;
            }
            parsed.push(field);
        }
        self.structs[at].fields = parsed;
        Ok(())
    }
}

impl Field {
    fn parse(json: &Value, scope: Versions) -> Result<Self> {
        let name = str_of(json, "name")?;
        let range = |key| json[key].as_str().map_or(Ok(Versions::NONE), Versions::parse);
        let all = range("versions")?;
        let versions = all.intersect(scope);
        let tag = json["tag"].as_u64().map(u32::try_from).transpose()?;
        if tag.is_some() && range("taggedVersions")? != all {
            bail!("{name} is tagged in some of its versions only, which is not supported");
        }
        Ok(Self {
            name: snake_case(name),
            kind: Type::parse(str_of(json, "type")?)?,
            versions,
            nullable: range("nullableVersions")?.intersect(versions),
            tag,
            default: match &json["default"] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            },
            ignorable: json["ignorable"].as_bool() == Some(true),
            never_flexible: json["flexibleVersions"].as_str() == Some("none"),
        })
    }
}

pub(super) fn snake_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (index, character) in characters.iter().enumerate() {
        let after_lower = index > 0 && !characters[index - 1].is_uppercase();
        let before_lower = characters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if index > 0 && character.is_uppercase() && (after_lower || before_lower) {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

fn str_of<'a>(json: &'a Value, key: &str) -> Result<&'a str> {
    json[key]
        .as_str()
        .with_context(|| format!("no {key:?} in {}", json["name"]))
}

/// The definitions are JSON with `//` comments.
fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.lines() {
        let mut in_string = false;
        let end = line.char_indices().find(|&(index, character)| {
            in_string ^= character == '"';
            !in_string && line[index..].starts_with("//")
        });
        clean.push_str(end.map_or(line, |(index, _)| &line[..index]));
        clean.push('\n');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_ranges_parse_and_intersect() {
        let check = |text, low, high| assert_eq!(Versions::parse(text).unwrap(), Versions { low, high });
        check("3", 3, 3);
        check("3-7", 3, 7);
        check("3+", 3, i16::MAX);
        check("none", 1, 0);
        let range = |text| Versions::parse(text).unwrap();
        assert_eq!(range("3+").intersect(range("0-5")), range("3-5"));
        assert!(range("6+").intersect(range("0-5")).is_empty());
    }

    #[test]
    fn comments_go_and_strings_stay() {
        assert_eq!(
            without_comments("{ // a \"b\"\n \"x\": \"// y\" }"),
            "{ \n \"x\": \"// y\" }\n"
        );
    }

    #[test]
    fn names_become_snake_case() {
        assert_eq!(snake_case("PartitionMaxBytes"), "partition_max_bytes");
        assert_eq!(snake_case("KRaftVersion2Feature"), "k_raft_version2_feature");
        assert_eq!(snake_case("TopicIDs"), "topic_i_ds");
    }
}
