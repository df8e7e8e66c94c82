//! A module that counts in its state, read and called in steps of every size: each record is counted once, however often a
//! call had to be made again because too much came of it. Records are few where steps are many.

use super::super::super::testing::{text::Guest, written};
use super::*;

/// Counts each record under its key, and sends it on.
const COUNT: &str = "
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $a) (global.get $count)))
      (call $count_one (call $record (local.get $a)))
      (local.set $a (i32.add (local.get $a) (i32.const 1)))
      (br $next)))";

/// At 3072 stands the key as an item, and behind it, to be put, its number.
const COUNT_ONE: &str = "
  (func $count_one (param $record i32)
    (local $behind i32) (local $found i32) (local $number i32)
    (i32.store (i32.const 3072) (i32.const 1))
    (i32.store8 (i32.const 3076) (i32.shl (i32.load offset=4 (local.get $record)) (i32.const 1)))
    (memory.copy (i32.const 3077) (i32.load (local.get $record)) (i32.load offset=4 (local.get $record)))
    (local.set $behind (i32.add (i32.const 3077) (i32.load offset=4 (local.get $record))))
    (call $get_many (i32.const 3072) (i32.sub (local.get $behind) (i32.const 3072)) (i32.const 1120))
    (local.set $found (i32.load (i32.const 1120)))
    (if (i32.ne (i32.load8_u offset=4 (local.get $found)) (i32.const 1))
      (then (local.set $number (i32.load offset=5 (local.get $found)))))
    (i32.store (i32.const 3072) (i32.const 2))
    (i32.store8 (local.get $behind) (i32.const 8))
    (i32.store offset=1 (local.get $behind) (i32.add (local.get $number) (i32.const 1)))
    (call $put_many (i32.const 3072) (i32.sub (i32.add (local.get $behind) (i32.const 5)) (i32.const 3072))))";

/// The source: batches of one to 70 records.
fn source(records: usize) -> (Vec<String>, Vec<Bytes>) {
    let values: Vec<String> = (0..records)
        .map(|index| format!("k{}", index * index % 13))
        .collect();
    let (mut batches, mut from) = (Vec::new(), 0);
    for size in (1..=70).cycle() {
        let to = (from + size).min(records);
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(from as i64),
            ..BatchOptions::PLAIN
        });
        for value in &values[from..to] {
            let value = Some(value.as_bytes());
            let record = NewRecord {
                key: value,
                value,
                ..NewRecord::default()
            };
            builder.append(&record).unwrap();
        }
        batches.push(builder.build().unwrap().unwrap());
        from = to;
        if from == records {
            return (values, batches);
        }
    }
    unreachable!("sizes never end")
}

/// Whole batches up to so many bytes, and one at least: what a read gives.
fn read<'b>(batches: &mut &'b [Bytes], max_bytes: usize) -> &'b [Bytes] {
    let mut bytes = 0;
    let fit = batches.iter().take_while(|batch| {
        bytes += batch.len();
        bytes <= max_bytes
    });
    let (now, rest) = batches.split_at(fit.count().max(1));
    *batches = rest;
    now
}

/// Counts so many records in steps of so many bytes, with answers of so many.
fn check(records: usize, max_bytes: impl Iterator<Item = usize>, answer_bytes_max: u64) {
    let engine = engine();
    let guest = Guest {
        more: COUNT_ONE,
        ..Guest::map(COUNT)
    };
    let module = Arc::new(written(&engine, &guest));
    let (values, batches) = source(records);
    let mut expected: BTreeMap<&str, u32> = BTreeMap::new();
    values
        .iter()
        .for_each(|value| *expected.entry(value).or_default() += 1);
    for max_bytes in max_bytes {
        let mut worker = Worker::new(Parts {
            module: Arc::clone(&module),
            setup: Setup {
                answer_bytes_max,
                cpu_per_call: Duration::from_secs(10),
                ..setup()
            },
            rules: Rules {
                batch_bytes_max: max_bytes,
                ..rules()
            },
            keyed: KeyedStore::new(1 << 20),
            windows: None,
            join: None,
            sinks: sinks(1),
            origin: origin(),
        });
        let (mut left, mut from, mut sent) = (&batches[..], Offset::ZERO, Vec::with_capacity(records));
        while !left.is_empty() {
            let now = read(&mut left, max_bytes);
            assert!(worker.load(joined(now), from, 5).is_empty());
            let mut driven = drive(&mut worker);
            assert!(
                driven.letters.is_empty() && driven.stopped.is_none(),
                "{:?}",
                driven.messages
            );
            from = driven.position.expect("records were dealt with");
            sent.append(driven.sent.get_mut(&(0, 0)).expect("they were sent"));
        }
        assert_eq!((from, &sent), (Offset(records as i64), &values), "{max_bytes}");
        let counted = worker.keyed().entries().map(|(key, value)| {
            let number = u32::from_le_bytes(value[..].try_into().expect("four bytes"));
            (std::str::from_utf8(key).expect("text"), number)
        });
        let counted: BTreeMap<&str, u32> = counted.collect();
        assert_eq!(counted, expected, "{max_bytes} bytes at most");
        assert_eq!(counted.values().sum::<u32>() as usize, records);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_count_is_exact_in_steps_of_every_size() {
    check(300, 1..=200, 1 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_count_is_exact_in_steps_up_to_all_of_it() {
    check(5_000, (9..=19).step_by(2).map(|power| 1 << power), 1 << 20);
}

/// Answers of more than one record, or of some, are too large: calls are halved and made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_count_is_exact_where_answers_are_too_large() {
    for answer_bytes_max in [9, 14, 23, 64, 200, 1_000] {
        check(500, [90, 400, 4_000, 1 << 20].into_iter(), answer_bytes_max);
    }
}
