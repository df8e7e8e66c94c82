//! The files that list all APIs and all error codes.
//!
//! Owns `kafka.rs`, `kafka/api_key.rs` and `kafka/error_code.rs`.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::message::{Api, GENERATED};
use super::rust::When;

pub(super) fn modules_file(apis: &[Api]) -> String {
    let mut modules: Vec<_> = apis.iter().map(|api| api.module.as_str()).collect();
    modules.sort_unstable();
    let modules: String = modules
        .iter()
        .map(|module| format!("pub mod {module};\n"))
        .collect();
    format!(
        "//! Kafka's messages: one module per API with its request, its response and their parts.
//!
//! Struct and field names are those of Kafka's definitions. A part's name that occurs in both the request
//! and the response gets the prefix `Request` or `Response`; a field named like a Rust keyword ends in `_`.
//! All but [`Message`] and what stands beside it is generated.
//!
//! {GENERATED}

mod api_key;
mod error_code;
mod header;
mod message;

{modules}
pub use api_key::{{ApiKey, UnknownApiKey}};
pub use error_code::ErrorCode;
pub use header::{{RequestHeader, ResponseHeader}};
pub use message::{{
    EncodeFrameError, Message, Request, RequestPeek, decode_request_header, decode_response, encode_request,
    encode_response, request_header_version, response_header_version,
}};
"
    )
}

pub(super) fn api_key_file(apis: &[Api]) -> String {
    let mut variants = String::new();
    let mut rows = String::new();
    for api in apis {
        let _ = writeln!(variants, "{} = {},", api.name, api.key);
        let flexible = match When::new(api.request.flexible, api.request.versions) {
            When::Never => "i16::MAX".to_owned(),
            When::Always | When::If(_) => api.request.flexible.low.to_string(),
        };
        let (low, high) = (api.request.versions.low, api.request.versions.high);
        let _ = writeln!(
            rows,
            "row(ApiKey::{0}, \"{0}\", {low}..={high}, {flexible}),",
            api.name
        );
    }
    filled(
        include_str!("api_key.template"),
        &[
            ("VARIANTS", &variants),
            ("ROWS", &rows),
            ("COUNT", &apis.len().to_string()),
        ],
    )
}

/// `lines` are `code name retriable`, one for each error, from -1 upwards without a gap.
pub(super) fn error_code_file(lines: &str) -> Result<String> {
    let mut constants = String::new();
    let mut rows = String::new();
    let mut count = 0;
    for (line, expected) in lines.lines().zip(-1i16..) {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("error line {line:?}"));
        let (code, name, retriable) = (word()?, word()?, word()?);
        ensure!(
            code.parse() == Ok(expected),
            "error codes have a gap before {line:?}"
        );
        let message = name.to_lowercase().replace('_', " ");
        let retry = if retriable == "true" {
            "Retry::Yes"
        } else {
            "Retry::No"
        };
        let _ = writeln!(constants, "pub const {name}: Self = Self({code});");
        let _ = writeln!(rows, "row({name:?}, {message:?}, {retry}),");
        count += 1;
    }
    Ok(filled(
        include_str!("error_code.template"),
        &[
            ("CONSTANTS", &constants),
            ("ROWS", &rows),
            ("COUNT", &count.to_string()),
        ],
    ))
}

/// A template with its `@HOLES@` filled.
fn filled(template: &str, holes: &[(&str, &str)]) -> String {
    let mut text = template.replace("@GENERATED@", GENERATED);
    for (name, value) in holes {
        text = text.replace(&format!("@{name}@"), value);
    }
    text
}
