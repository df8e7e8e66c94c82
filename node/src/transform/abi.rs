//! The typed values of `headwater:module@1.0.0` as they cross the border. Everything else crosses in flat buffers.
//! It owns nothing but their shapes, which must agree with `wasm-modules/wit/module.wit`.

#![allow(dead_code, reason = "variants are made by lifting them from the guest")]
#![allow(
    unsafe_code,
    reason = "the derives below implement the component ABI; there is no unsafe of our own"
)]

use wasmtime::component::{ComponentType, Lift};

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Failure {
    pub(crate) index: u32,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum ParamKind {
    #[component(name = "text")]
    Text,
    #[component(name = "integer")]
    Integer,
    #[component(name = "float")]
    Float,
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "duration")]
    Duration,
    #[component(name = "table")]
    Table,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Param {
    pub(crate) name: String,
    pub(crate) kind: ParamKind,
    pub(crate) required: bool,
    pub(crate) default: Option<String>,
    pub(crate) description: String,
}

#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) params: Vec<Param>,
}

#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
