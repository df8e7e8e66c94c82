//! The test's half of the golden vectors: code that fills every field by the rule `Golden.java` follows.
//!
//! Owns `tests/golden/fill.rs` and the files beside it in the protocol crate. Tagged fields are filled last,
//! in the order of their tags, as the Java schemas list them.

use std::fmt::Write as _;

use super::message::{Api, GENERATED, tagged};
use super::rust::{When, form_of, has_tags, method};
use super::schema::{Field, Message, Struct, Type, Versions};

pub(super) fn modules_file(apis: &[Api], headers: &[Message]) -> String {
    let modules: String = apis.iter().map(|api| format!("mod {};\n", api.module)).collect();
    let entries: String = apis
        .iter()
        .map(|api| {
            format!(
                "Api::of::<kafka::{0}::{1}Request>({0:?}),\n",
                api.module, api.name
            )
        })
        .collect();
    let sides: String = headers
        .iter()
        .zip(["request", "response"])
        .map(|(header, side)| {
            let Versions { low, high } = header.versions;
            format!("Side::of::<kafka::{}>({side:?}, {low}..={high}),\n", header.name)
        })
        .collect();
    format!(
        "//! All APIs, each with the code that fills its messages. {GENERATED}

use headwater_protocol::kafka;

use crate::vectors::{{Api, Side}};

mod header;
{modules}
pub(crate) fn apis() -> Vec<Api> {{
    vec![ {entries} Api {{ name: \"header\", sides: [ {sides} ] }} ]
}}
"
    )
}

pub(super) fn file(api: &Api) -> String {
    messages_file(
        &api.name,
        &format!("{}::*", api.module),
        &[&api.request, &api.response],
    )
}

pub(super) fn headers_file(headers: &[Message]) -> String {
    let messages: Vec<_> = headers.iter().collect();
    messages_file("all headers", "{RequestHeader, ResponseHeader}", &messages)
}

fn messages_file(name: &str, import: &str, messages: &[&Message]) -> String {
    let mut body = String::new();
    for message in messages {
        for part in &message.structs {
            body.push_str(&implementation(message, part));
        }
    }
    let primitives: Vec<_> = ["Form", "Str", "TaggedFields", "Uuid"]
        .into_iter()
        .filter(|name| body.contains(&format!("{name}::")))
        .collect();
    let primitives = match primitives.is_empty() {
        true => String::new(),
        false => format!(
            "use headwater_protocol::primitives::{{{}}};\n",
            primitives.join(", ")
        ),
    };
    let bytes = if body.contains("Bytes::") {
        "use bytes::Bytes;\n"
    } else {
        ""
    };
    format!(
        "//! Fills the messages of {name}. {GENERATED}\n\n{bytes}use headwater_protocol::kafka::{import};
{primitives}\nuse crate::filler::{{Fill, Filler}};\n\n{body}"
    )
}

fn implementation(message: &Message, part: &Struct) -> String {
    let (form, let_form) = form_of(message, part);
    let plain = part.fields.iter().filter(|field| field.tag.is_none());
    let mut literal = String::new();
    for field in plain.chain(tagged(part)) {
        let value = When::new(field.versions, part.versions).choose(&fill(field), &field.default_value());
        let _ = writeln!(literal, "{}: {value},", field.ident());
    }
    if has_tags(message, part) {
        let _ = writeln!(literal, "unknown_tagged_fields: f.tagged_fields({form}),");
    }
    let body = format!("{} Self {{ {literal} }}", let_form.unwrap_or_default());
    let version = if ["(version", ", version", "version ", "&version"]
        .iter()
        .any(|text| body.contains(text))
    {
        "version"
    } else {
        "_version"
    };
    format!(
        "impl Fill for {} {{ fn fill(f: &mut Filler, {version}: i16) -> Self {{ {body} }} }}\n\n",
        part.name
    )
}

fn fill(field: &Field) -> String {
    let plain = match &field.kind {
        Type::Struct(_) => "Fill::fill(f, version)".to_owned(),
        Type::Array(_) => "f.array(version)".to_owned(),
        other => format!("f.{}()", method(other)),
    };
    if !field.is_option() {
        return plain;
    }
    let nullable = match &field.kind {
        Type::Struct(_) | Type::Array(_) => format!("f.nullable(|f| {plain})"),
        other => format!("f.nullable(Filler::{})", method(other)),
    };
    When::new(field.nullable, field.versions).choose(&nullable, &format!("Some({plain})"))
}
