//! Fields as Rust: types, defaults, and the expressions that read and write them.
//!
//! Owns the mapping from schema types to the primitives of the protocol crate. It emits unformatted text;
//! rustfmt does the rest.

use super::schema::{Field, Message, Struct, Type, Versions};

/// When something holds, within the versions of what surrounds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    Never,
    If(String),
}

impl When {
    pub(super) fn new(versions: Versions, scope: Versions) -> Self {
        let Versions { low, high } = versions.intersect(scope);
        if low > high {
            Self::Never
        } else if (low, high) == (scope.low, scope.high) {
            Self::Always
        } else if low == high {
            Self::If(format!("version == {low}"))
        } else if high == scope.high {
            Self::If(format!("version >= {low}"))
        } else if low == scope.low {
            Self::If(format!("version <= {high}"))
        } else {
            Self::If(format!("({low}..={high}).contains(&version)"))
        }
    }

    /// `yes` or `no`, or the choice between them.
    pub(super) fn choose(&self, yes: &str, no: &str) -> String {
        match self {
            Self::Always => yes.to_owned(),
            Self::Never => no.to_owned(),
            Self::If(condition) => format!("if {condition} {{ {yes} }} else {{ {no} }}"),
        }
    }
}

/// How a struct of a message knows its form: always one, or by the version.
pub(super) fn form_of(message: &Message, part: &Struct) -> (&'static str, Option<String>) {
    match When::new(message.flexible, part.versions) {
        When::Always => ("Form::Flexible", None),
        When::Never => ("Form::Classic", None),
        When::If(_) => (
            "form",
            Some(format!(
                "let form = Form::since(version, {});",
                message.flexible.low
            )),
        ),
    }
}

/// Whether any version of the struct has tagged fields.
pub(super) fn has_tags(message: &Message, part: &Struct) -> bool {
    When::new(message.flexible, part.versions) != When::Never
}

impl Field {
    /// The name as a Rust identifier.
    pub(super) fn ident(&self) -> String {
        match self.name.as_str() {
            keyword @ ("match" | "type" | "move" | "ref" | "mod" | "use" | "loop") => format!("{keyword}_"),
            name => name.to_owned(),
        }
    }

    pub(super) fn is_option(&self) -> bool {
        !self.nullable.is_empty() || self.kind == Type::Records
    }

    pub(super) fn rust_type(&self) -> String {
        let plain = rust_type(&self.kind);
        if self.is_option() {
            format!("Option<{plain}>")
        } else {
            plain
        }
    }

    pub(super) fn default_value(&self) -> String {
        let empty = match &self.kind {
            Type::Bool => return self.default.as_deref().unwrap_or("false").to_lowercase(),
            Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::I64 => return self.default_integer(),
            Type::F64 => return "0.0".to_owned(),
            Type::Uuid => return "Uuid::ZERO".to_owned(),
            Type::Records => return "None".to_owned(),
            Type::Str => "Str::default()".to_owned(),
            Type::Bytes => "Bytes::new()".to_owned(),
            Type::Array(_) => "Vec::new()".to_owned(),
            Type::Struct(name) => format!("{name}::default()"),
        };
        match (self.is_option(), self.default.as_deref()) {
            (true, Some("null")) => "None".to_owned(),
            (true, _) => format!("Some({empty})"),
            (false, _) => empty,
        }
    }

    fn default_integer(&self) -> String {
        let text = self.default.as_deref().unwrap_or("0");
        let value = match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).expect("the definitions hold valid numbers"),
            None => text.parse().expect("the definitions hold valid numbers"),
        };
        const I32_MAX: i64 = i32::MAX as i64;
        const I32_MIN: i64 = i32::MIN as i64;
        match value {
            I32_MAX => "i32::MAX".to_owned(),
            I32_MIN => "i32::MIN".to_owned(),
            i64::MAX => "i64::MAX".to_owned(),
            value => value.to_string(),
        }
    }

    /// Whether `Default` of the Rust type is the schema's default.
    pub(super) fn default_is_derivable(&self) -> bool {
        let value = self.default_value();
        match &self.kind {
            Type::Bool | Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::I64 => {
                value == "0" || value == "false"
            }
            _ => !value.starts_with("Some("),
        }
    }

    /// Conditions on `self` that hold if the field has, or has not, its default value.
    pub(super) fn default_tests(&self) -> (String, String) {
        let field = format!("self.{}", self.ident());
        let value = self.default_value();
        match &self.kind {
            Type::Bool if value == "true" => (field.clone(), format!("!{field}")),
            Type::Bool => (format!("!{field}"), field),
            _ if value == "None" => (format!("{field}.is_none()"), format!("{field}.is_some()")),
            Type::Str | Type::Bytes | Type::Array(_) if self.is_option() => (
                format!("{field}.as_ref().is_some_and(|value| value.is_empty())"),
                format!("{field}.as_ref().is_none_or(|value| !value.is_empty())"),
            ),
            Type::Str | Type::Bytes | Type::Array(_) => {
                (format!("{field}.is_empty()"), format!("!{field}.is_empty()"))
            }
            Type::Uuid => (format!("{field}.is_zero()"), format!("!{field}.is_zero()")),
            _ => (format!("{field} == {value}"), format!("{field} != {value}")),
        }
    }

    /// An expression that reads the field, in versions that carry it.
    pub(super) fn read(&self, form: &str) -> String {
        let form = self.form(form);
        let name = &self.name;
        let (plain, nullable) = match &self.kind {
            Type::Struct(part) => (
                format!("{part}::decode(r, version)?"),
                format!("r.nullable_struct({name:?}, {form}, version)?"),
            ),
            Type::Array(_) => (
                format!("r.array({name:?}, {form}, version)?"),
                format!("r.nullable_array({name:?}, {form}, version)?"),
            ),
            Type::Records => return format!("r.records({name:?}, {form})?"),
            Type::Str | Type::Bytes => {
                let method = method(&self.kind);
                (
                    format!("r.{method}({name:?}, {form})?"),
                    format!("r.nullable_{method}({name:?}, {form})?"),
                )
            }
            fixed => return format!("r.{}({name:?})?", method(fixed)),
        };
        if !self.is_option() {
            return plain;
        }
        When::new(self.nullable, self.versions).choose(&nullable, &format!("Some({plain})"))
    }

    /// A statement that writes the field, in versions that carry it.
    pub(super) fn write(&self, form: &str) -> String {
        let form = self.form(form);
        let (name, field) = (&self.name, format!("self.{}", self.ident()));
        let required = format!("required({name:?}, &{field})?");
        let version = if matches!(self.kind, Type::Struct(_) | Type::Array(_)) {
            "version, "
        } else {
            ""
        };
        let method = method(&self.kind);
        let plain = match &self.kind {
            Type::Records => return format!("w.records({name:?}, {form}, {field}.as_ref())?;"),
            Type::Struct(_) if self.is_option() => format!("{required}.encode(w, version)?;"),
            Type::Struct(_) => return format!("{field}.encode(w, version)?;"),
            Type::Str | Type::Bytes | Type::Array(_) => {
                let value = if self.is_option() {
                    required
                } else {
                    format!("&{field}")
                };
                format!("w.{method}({name:?}, {form}, {version}{value})?;")
            }
            _ => return format!("w.{method}({field});"),
        };
        let nullable = format!("w.nullable_{method}({name:?}, {form}, {version}{field}.as_ref())?;");
        if !self.is_option() {
            return plain;
        }
        When::new(self.nullable, self.versions).choose(&nullable, &plain)
    }

    /// A line of documentation, where there is something to say.
    pub(super) fn doc(&self, scope: Versions) -> String {
        let mut facts = Vec::new();
        let range = |versions: Versions, scope: Versions| match (
            versions.low == scope.low,
            versions.high == scope.high,
        ) {
            (true, true) => None,
            _ if versions.low == versions.high => Some(format!("in version {}", versions.low)),
            (false, true) => Some(format!("from version {}", versions.low)),
            (true, false) => Some(format!("up to version {}", versions.high)),
            (false, false) => Some(format!("in versions {} to {}", versions.low, versions.high)),
        };
        facts.extend(range(self.versions, scope));
        facts.extend(self.tag.map(|tag| format!("tag {tag}")));
        if !self.nullable.is_empty() {
            facts.extend(range(self.nullable, self.versions).map(|text| format!("null allowed {text}")));
        }
        if facts.is_empty() {
            return String::new();
        }
        let mut text = facts.join(", ");
        text[..1].make_ascii_uppercase();
        format!("/// {text}.\n")
    }

    fn form<'a>(&self, form: &'a str) -> &'a str {
        if self.never_flexible {
            "Form::Classic"
        } else {
            form
        }
    }
}

fn rust_type(kind: &Type) -> String {
    match kind {
        Type::Bool => "bool".to_owned(),
        Type::I8 => "i8".to_owned(),
        Type::I16 => "i16".to_owned(),
        Type::U16 => "u16".to_owned(),
        Type::I32 => "i32".to_owned(),
        Type::I64 => "i64".to_owned(),
        Type::F64 => "f64".to_owned(),
        Type::Uuid => "Uuid".to_owned(),
        Type::Str => "Str".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Records => "Records".to_owned(),
        Type::Struct(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", rust_type(element)),
    }
}

/// The method of `Reader` and `Writer` for a type, without `nullable_`.
pub(super) fn method(kind: &Type) -> &'static str {
    match kind {
        Type::Bool => "bool",
        Type::I8 => "i8",
        Type::I16 => "i16",
        Type::U16 => "u16",
        Type::I32 => "i32",
        Type::I64 => "i64",
        Type::F64 => "f64",
        Type::Uuid => "uuid",
        Type::Str => "string",
        Type::Bytes => "bytes",
        Type::Records => "records",
        Type::Struct(_) => "struct",
        Type::Array(_) => "array",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_no_more_than_needed() {
        let scope = Versions { low: 3, high: 13 };
        let check = |text, expected: &str| {
            let when = When::new(Versions::parse(text).unwrap(), scope);
            assert_eq!(when.choose("a", "b"), expected, "{text}");
        };
        check("0+", "a");
        check("3-13", "a");
        check("0-2", "b");
        check("13+", "if version == 13 { a } else { b }");
        check("9+", "if version >= 9 { a } else { b }");
        check("0-12", "if version <= 12 { a } else { b }");
        check("5-7", "if (5..=7).contains(&version) { a } else { b }");
    }
}
