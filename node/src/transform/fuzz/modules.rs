//! Uploads: sound modules damaged as bytes, as sections and as text. What is refused is refused with few words; what is
//! taken can be called.

use std::sync::Arc;
use std::time::Duration;

use wasmparser::{Parser, Payload};

use super::super::engine::Engine;
use super::super::instance::{Instance, Module, Setup};
use super::super::keyed::KeyedStore;
use super::super::testing::{engine, setup, text::Guest};
use super::super::validate::{inspect, validate};
use super::{Depth, Random, damage, edge, run};
use crate::metadata::World;
use crate::sys::clock::Clock;

/// What a refusal may say.
const WORDS_MAX: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn modules() {
    let engine = engine();
    let guests = [
        Guest::map(""),
        Guest::filter(""),
        Guest::map("(drop (memory.grow (i32.const 1)))"),
    ];
    let texts = guests.map(|guest| guest.text());
    let sound = guests.map(|guest| guest.wasm());
    run("modules", 500, |random| {
        let which = random.below(3) as usize;
        let wasm = match random.below(3) {
            0 => {
                let mut bytes = sound[which].clone();
                for _ in 0..=random.below(2) {
                    damage(random, &mut bytes);
                }
                bytes
            }
            1 => shuffled(random, &sound[which], &sound[random.below(3) as usize]),
            _ => match wat::parse_str(rewritten(random, &texts[which])) {
                Ok(bytes) => bytes,
                Err(_) => return Depth::Shallow,
            },
        };
        upload(&engine, &wasm)
    });
}

fn upload(engine: &Arc<Engine>, wasm: &[u8]) -> Depth {
    if let Err(error) = inspect(wasm) {
        assert!(error.to_string().len() < WORDS_MAX);
        return Depth::Shallow;
    }
    let valid = match validate(engine, &Clock::system(), wasm) {
        Ok(valid) => valid,
        Err(error) => {
            let words = error.to_string();
            assert!(words.len() < WORDS_MAX, "{} bytes of {:.200}", words.len(), words);
            return Depth::Shallow;
        }
    };
    let component = engine.load(&valid.compiled).expect("it was loaded before");
    let module =
        Module::link(Arc::clone(engine), &component, valid.facts.world).expect("it was linked before");
    let setup = Setup {
        memory_bytes_max: 1 << 20,
        cpu_per_call: Duration::from_millis(20),
        ..setup()
    };
    let Ok(mut instance) = Instance::start(&module, setup, KeyedStore::new(1 << 16)) else {
        return Depth::Deep;
    };
    // An empty batch: no section.
    let _ = match module.world() {
        World::Filter => instance.filter(&[0; 4], 0),
        World::Map => instance.transform(&[0; 4], 0),
        World::Aggregate => instance.keys(&[0; 4], 0),
    };
    Depth::Deep
}

/// A component's outermost sections: taken out, doubled, swapped, or taken from another.
fn shuffled(random: &Random, wasm: &[u8], other: &[u8]) -> Vec<u8> {
    let mut sections = sections(wasm);
    let others = self::sections(other);
    let any = |count: usize| random.below(count as u64) as usize;
    for _ in 0..=random.below(2) {
        let (one, two) = (any(sections.len()), any(sections.len()));
        match random.below(4) {
            0 => drop(sections.remove(one)),
            1 => sections.insert(two, sections[one].clone()),
            2 => sections.swap(one, two),
            _ => sections[one].clone_from(&others[any(others.len())]),
        }
    }
    let mut all = wasm[..8].to_vec();
    sections.iter().for_each(|section| all.extend(section));
    all
}

/// Each with its id and length.
fn sections(wasm: &[u8]) -> Vec<Vec<u8>> {
    let (mut sections, mut from, mut depth) = (Vec::new(), 8, 0);
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.expect("it is sound");
        if let Payload::End(_) = payload {
            depth -= 1;
        }
        let end = match &payload {
            Payload::ModuleSection { unchecked_range, .. }
            | Payload::ComponentSection { unchecked_range, .. } => {
                depth += 1;
                (depth == 1).then_some(unchecked_range.end)
            }
            other => other
                .as_section()
                .filter(|_| depth == 0)
                .map(|(_, range)| range.end),
        };
        if let Some(end) = end {
            sections.push(wasm[from..end].to_vec());
            from = end;
        }
    }
    sections
}

/// The text with one word or line of it replaced: it has the form of a module still.
fn rewritten(random: &Random, text: &str) -> String {
    const INSTEAD: [(&str, &[&str]); 7] = [
        ("(list u8)", &["string", "(list u32)", "(list string)", "u32"]),
        ("u32", &["u64", "s8", "string", "float32"]),
        ("string", &["(list u8)", "char", "(option string)"]),
        ("i32.add", &["i32.sub", "i32.mul", "i32.div_u"]),
        (
            "i32.const 1024",
            &["i32.const 65530", "i32.const 3", "i32.const -4"],
        ),
        (
            "i32.const 1088",
            &["i32.const 1089", "i32.const 1024", "i32.const 2048"],
        ),
        ("$realloc", &["$memory", "$nothing"]),
    ];
    let mut text = text.to_owned();
    match random.below(3) {
        0 => {
            let (word, others) = INSTEAD[random.below(INSTEAD.len() as u64) as usize];
            let places: Vec<usize> = text.match_indices(word).map(|(at, _)| at).collect();
            if !places.is_empty() {
                let at = places[random.below(places.len() as u64) as usize];
                let other = others[random.below(others.len() as u64) as usize];
                text.replace_range(at..at + word.len(), other);
            }
        }
        1 => {
            let places: Vec<usize> = text
                .match_indices("i32.const ")
                .map(|(at, word)| at + word.len())
                .collect();
            let at = places[random.below(places.len() as u64) as usize];
            let length = text[at..].find([')', ' ']).unwrap_or(0);
            text.replace_range(at..at + length, &edge(random).to_string());
        }
        _ => {
            let lines: Vec<&str> = text.lines().collect();
            let gone = random.below(lines.len() as u64) as usize;
            let kept = lines.iter().enumerate().filter(|(number, _)| *number != gone);
            text = kept.map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
        }
    }
    text
}
