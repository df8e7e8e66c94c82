//! Modules written as WebAssembly text, where a compiler would stand between a test and what it wants to do wrong: they
//! hand the host pointers, lengths and handles of their own, and break in `realloc`, `configure` and after an answer.
//! It owns what they have alike (`text/*.wat`); a test adds what one of them does.

use crate::metadata::World;

/// One module. Each part is text inside of a function or of the core module; empty parts are sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest<'t> {
    pub(crate) world: World,
    /// At each call, before every record is kept or forwarded. It knows `$in`, `$size`, and three numbers `$a` to `$c`.
    pub(crate) call: &'t str,
    /// Before `describe` and `configure` answer, and after each answer of a call was taken.
    pub(crate) describe: &'t str,
    pub(crate) configure: &'t str,
    pub(crate) after: &'t str,
    /// Functions, globals, data.
    pub(crate) more: &'t str,
}

const STORE: &str = include_str!("text/store.wat");
const IMPORTS: &str = include_str!("text/imports.wat");
const GUEST: &str = include_str!("text/guest.wat");
const EXPORTS: &str = include_str!("text/exports.wat");

impl<'t> Guest<'t> {
    pub(crate) const fn map(call: &'t str) -> Self {
        Self {
            world: World::Map,
            call,
            describe: "",
            configure: "",
            after: "",
            more: "",
        }
    }

    pub(crate) const fn filter(call: &'t str) -> Self {
        Self {
            world: World::Filter,
            ..Self::map(call)
        }
    }

    /// The component.
    pub(crate) fn wasm(&self) -> Vec<u8> {
        assemble(&self.text())
    }

    /// The same as text.
    pub(crate) fn text(&self) -> String {
        let Self {
            call,
            describe,
            configure,
            after,
            more,
            ..
        } = self;
        let (function, interface, last) = match self.world {
            World::Filter => ("filter", "filter", "(call $keep (global.get $count))"),
            World::Map => ("transform", "mapping", "(call $forward_all)"),
            World::Aggregate => panic!("no text of an aggregate is here"),
        };
        format!(
            r#"(component
{STORE}
{IMPORTS}
(core module $Guest
{GUEST}
(func (export "describe") (result i32) {describe} (i32.const 1024))
(func (export "configure") (param i32 i32) (result i32) {configure} (i32.const 1088))
(func (export "after") (param i32) {after} (call $reset))
(func (export "call") (param $in i32) (param $size i32) (result i32)
  (local $a i32) (local $b i32) (local $c i32)
  (call $walk (local.get $in))
  {call}
  {last})
{more})
(core instance $guest (instantiate $Guest (with "store" (instance $store)) (with "host" (instance $host))))
{EXPORTS}
(func $call (param "input" $bytes) (result $answered)
  (canon lift (core func $guest "call") (memory $memory) (realloc $realloc) (post-return (core func $guest "after"))))
(instance $world (export "failure" (type $failure)) (export "{function}" (func $call)))
(export "headwater:module/{interface}@1.0.0" (instance $world)))"#
        )
    }
}

/// Turns text into bytes.
pub(crate) fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
