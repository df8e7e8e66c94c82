//! A guest that does what it is told: calls host functions with any arguments, in any order, and answers from anywhere.
//! The call ends well or with an error, the state stays what it was where it failed, and its bounds hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::ids::Offset;
use headwater_protocol::record::{BatchBuilder, BatchOptions, BatchView, NewRecord};

use super::super::input::Input;
use super::super::instance::{Instance, Module, Setup};
use super::super::keyed::KeyedStore;
use super::super::table::Table;
use super::super::testing::{engine, setup, text::Guest, written};
use super::{Depth, Random, damage, edge, run};

/// Words of an instruction: what it is, and what it is done with.
const WORDS: usize = 8;
const INSTRUCTION_BYTES: usize = 4 * WORDS;
/// Where `realloc` puts the batch.
const BATCH_AT: u32 = 98_304;
const STATE_BYTES_MAX: usize = 1 << 16;

/// Goes through the instructions in the value of the first record.
const INTERPRETER: &str = "
  (local.set $a (call $value (i32.const 0)))
  (local.set $b (i32.add (local.get $a) (call $value_length (i32.const 0))))
  (block $out
    (loop $on
      (br_if $out (i32.gt_u (i32.add (local.get $a) (i32.const 32)) (local.get $b)))
      (local.set $c (i32.load (local.get $a)))
      (if (i32.eq (local.get $c) (i32.const 0)) (then
        (call $log (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)))))
      (if (i32.eq (local.get $c) (i32.const 1)) (then
        (call $get_many (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)))))
      (if (i32.eq (local.get $c) (i32.const 2)) (then
        (call $put_many (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2)))))
      (if (i32.eq (local.get $c) (i32.const 3)) (then
        (call $scan (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)) (call $word (local.get $a) (i32.const 4))
          (call $word (local.get $a) (i32.const 5)) (call $word (local.get $a) (i32.const 6)))))
      (if (i32.eq (local.get $c) (i32.const 4)) (then
        (call $open (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)))))
      (if (i32.eq (local.get $c) (i32.const 5)) (then
        (call $look (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)) (call $word (local.get $a) (i32.const 4)))))
      (if (i32.eq (local.get $c) (i32.const 6)) (then
        (call $look_many (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)) (call $word (local.get $a) (i32.const 4)))))
      (if (i32.eq (local.get $c) (i32.const 7)) (then (call $close (call $word (local.get $a) (i32.const 1)))))
      (if (i32.eq (local.get $c) (i32.const 8)) (then
        (return (call $answer (call $word (local.get $a) (i32.const 1)) (call $word (local.get $a) (i32.const 2))
          (call $word (local.get $a) (i32.const 3)) (call $word (local.get $a) (i32.const 4))))))
      (if (i32.eq (local.get $c) (i32.const 9)) (then (return (call $word (local.get $a) (i32.const 1)))))
      (br_if $out (i32.gt_u (local.get $c) (i32.const 9)))
      (local.set $a (i32.add (local.get $a) (i32.const 32)))
      (br $on)))";

const WORD: &str = "(func $word (param $at i32) (param $number i32) (result i32)
  (i32.load (i32.add (local.get $at) (i32.shl (local.get $number) (i32.const 2)))))";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn host_calls() {
    let engine = engine();
    let guest = Guest {
        more: WORD,
        ..Guest::map(INTERPRETER)
    };
    let module = written(&engine, &guest);
    let setup = Setup {
        memory_bytes_max: 1 << 20,
        cpu_per_call: Duration::from_millis(50),
        answer_bytes_max: 1 << 16,
        tables: Arc::new(BTreeMap::from([("table".to_owned(), table())])),
        ..setup()
    };
    run("host_calls", 2_000, |random| {
        let mut instance = start(&module, &setup, KeyedStore::new(STATE_BYTES_MAX));
        let mut depth = Depth::Shallow;
        for _ in 0..4 {
            let before = entries(instance.keyed_now());
            match instance.transform(&batch(random), 1) {
                Ok((outputs, failures)) => {
                    assert!(outputs.len() <= 1 << 16 && failures.len() <= 1);
                    instance.keyed().commit();
                    depth = Depth::Deep;
                }
                Err(error) => {
                    assert!(error.to_string().len() < 4_000, "{error}");
                    let keyed = instance.into_keyed();
                    assert_eq!(entries(&keyed), before, "{error}");
                    instance = start(&module, &setup, keyed);
                }
            }
            assert!(instance.keyed_now().bytes() <= STATE_BYTES_MAX);
        }
        depth
    });
}

type Entry = (Arc<[u8]>, Arc<[u8]>);

fn entries(keyed: &KeyedStore) -> Vec<Entry> {
    let entries = keyed.entries();
    entries
        .map(|(key, value)| (Arc::clone(key), Arc::clone(value)))
        .collect()
}

fn start(module: &Module, setup: &Setup, keyed: KeyedStore) -> Instance {
    let started = Instance::start(module, setup.clone(), keyed);
    started.map_err(|failed| failed.error).expect("it can be set up")
}

fn table() -> Arc<Table> {
    let table = Table::new("table", 1 << 20);
    let entries: Vec<_> = (0..8u8)
        .map(|number| ([number], vec![number; 100 * usize::from(number)]))
        .collect();
    let records = entries.iter().map(|(key, value)| NewRecord {
        key: Some(key),
        value: Some(value),
        ..NewRecord::default()
    });
    table
        .apply(&BatchView::parse(built(records)).expect("it was just built"))
        .expect("there is room");
    Arc::new(table)
}

fn built<'r>(records: impl Iterator<Item = NewRecord<'r>>) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::PLAIN);
    records.for_each(|record| builder.append(&record).expect("there is room"));
    builder.build().expect("it can be built").expect("it has records")
}

/// Items that stand behind the instructions, and instructions about them.
fn batch(random: &Random) -> Vec<u8> {
    let count = 1 + random.below(6) as usize;
    let program = Program {
        // Behind the header of the batch (4), of its section (28), and the parts of the record before its value.
        at: BATCH_AT + 4 + 28 + 3 + 4 + 3,
        data: count * INSTRUCTION_BYTES,
    };
    let (mut data, mut parts) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let from = data.len();
        data.extend(part(random));
        parts.push((from, data.len() - from));
    }
    let mut value = Vec::new();
    for number in 0..count {
        let what = if number + 1 == count && random.one_in(2) {
            8
        } else {
            random.below(11) as u32
        };
        let words = program.instruction(random, what, &parts);
        value.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    value.extend(data);
    // So that it is always two bytes of length, for `at`.
    value.resize(value.len().max(1_100), 0);
    encoded(&value)
}

struct Program {
    /// Where the value lies in the guest's memory.
    at: u32,
    /// Where the data begins in it.
    data: usize,
}

impl Program {
    fn instruction(&self, random: &Random, what: u32, parts: &[(usize, usize)]) -> [u32; WORDS] {
        let mut words = [0u32; WORDS];
        words[0] = what;
        let bytes = || {
            let (from, length) = parts[random.below(parts.len() as u64) as usize];
            (self.at + (self.data + from) as u32, length as u32)
        };
        let ((one, one_bytes), (two, two_bytes)) = (bytes(), bytes());
        let back = 1120;
        let handle = random.below(4) as u32;
        let sound: [u32; 6] = match what {
            0 => [random.below(5) as u32, one, one_bytes, 0, 0, 0],
            1 | 4 => [one, one_bytes, back, 0, 0, 0],
            2 => [one, one_bytes, 0, 0, 0, 0],
            3 => [one, one_bytes, two, two_bytes, edge(random), back],
            5 | 6 => [handle, one, one_bytes, back, 0, 0],
            7 => [handle, 0, 0, 0, 0, 0],
            8 => [0, 4, 0, 0, 0, 0],
            9 => [1088, 0, 0, 0, 0, 0],
            _ => [0; 6],
        };
        words[1..7].copy_from_slice(&sound);
        if what == 4 && !random.one_in(4) {
            // The only table there is.
            (words[1], words[2]) = (self.at + self.data as u32, 5);
        }
        if random.one_in(6) {
            words[1 + random.below(6) as usize] = edge(random);
        }
        words
    }
}

/// A list of items, sometimes not quite. The first of all stands in for a table's name, too.
fn part(random: &Random) -> Vec<u8> {
    if random.one_in(4) {
        return b"table".to_vec();
    }
    let texts: Vec<Vec<u8>> = (0..random.below(8))
        .map(|_| vec![random.below(8) as u8; 1 + random.below(30) as usize])
        .collect();
    let mut items = super::super::bytes::items(
        texts
            .iter()
            .map(|text| Some(&text[..]).filter(|_| !random.one_in(6))),
    );
    if random.one_in(4) {
        damage(random, &mut items);
    }
    items
}

fn encoded(value: &[u8]) -> Vec<u8> {
    let record = NewRecord {
        value: Some(value),
        ..NewRecord::default()
    };
    let batch = BatchView::parse(built(std::iter::once(record))).expect("it was just built");
    let mut input = Input::default();
    input
        .push(batch, Offset::ZERO, 1 << 20)
        .expect("it was just built");
    let mut buffer = Vec::new();
    input.encode(0..1, &mut buffer);
    buffer
}
