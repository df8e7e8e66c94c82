//! What guests answer with, read by the node: nothing may be taken for sound that breaks the contract, and what is taken
//! can be sent.

use headwater_protocol::ids::PartitionIndex;
use headwater_protocol::record::{Batches, Compression, Headers};

use super::super::answer::{Failure, Failures, Items, Outputs, check_verdicts, read_keys, read_states};
use super::super::bytes::{put_bytes, put_varint};
use super::super::outbox::{Outbox, Outgoing, Sink};
use super::{Depth, Random, damage, edge, run};

#[test]
fn answers() {
    run("answers", 8_000, |random| match random.below(4) {
        0 => verdicts(random),
        1 => keys(random),
        2 => states(random),
        _ => outputs(random),
    });
}

/// Sound failures of so many records; now and then others.
fn failures(random: &Random, records: u32) -> Option<Failures> {
    let named = (0..records).filter(|_| random.one_in(5));
    let mut named: Vec<Failure> = named
        .map(|index| Failure {
            index,
            message: "\u{20ac}".repeat(random.below(500) as usize),
        })
        .collect();
    if random.one_in(10) {
        let index = edge(random);
        let message = String::new();
        named.insert(
            random.below(named.len() as u64 + 1) as usize,
            Failure { index, message },
        );
    }
    let checked = Failures::check(named, records).ok()?;
    let mut next = 0;
    for failure in checked.iter() {
        assert!(failure.index >= next && failure.index < records);
        assert!(failure.message.len() <= 1 << 10);
        next = failure.index + 1;
    }
    Some(checked)
}

fn damaged(random: &Random, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.below(3) {
        damage(random, &mut bytes);
    }
    bytes
}

fn verdicts(random: &Random) -> Depth {
    let records = random.below(40) as u32;
    let Some(failures) = failures(random, records) else {
        return Depth::Shallow;
    };
    let mut verdicts: Vec<u8> = (0..records).map(|_| random.below(2) as u8).collect();
    failures
        .iter()
        .for_each(|failure| verdicts[failure.index as usize] = 2);
    let verdicts = damaged(random, verdicts);
    let Ok(kept) = check_verdicts(&verdicts, &failures, records) else {
        return Depth::Shallow;
    };
    assert_eq!(verdicts.len(), records as usize);
    assert_eq!(
        kept as usize,
        verdicts.iter().filter(|verdict| **verdict == 1).count()
    );
    let failed = (0..records).filter(|index| verdicts[*index as usize] == 2);
    assert!(failed.eq(failures.iter().map(|failure| failure.index)));
    Depth::Deep
}

fn text(random: &Random) -> Option<Vec<u8>> {
    let mut bytes = vec![0; random.below(20) as usize];
    random.fill(&mut bytes);
    (!random.one_in(5)).then_some(bytes)
}

fn keys(random: &Random) -> Depth {
    let records = random.below(20) as u32;
    let Some(failures) = failures(random, records) else {
        return Depth::Shallow;
    };
    let mut buffer = Vec::new();
    for index in 0..records {
        buffer.extend((random.u64() as i64).to_le_bytes());
        let has_failed = failures.iter().any(|failure| failure.index == index);
        put_bytes(&mut buffer, text(random).as_deref().filter(|_| !has_failed));
    }
    let buffer = damaged(random, buffer);
    let mut read = Vec::new();
    if read_keys(&buffer, &failures, records, &mut read).is_err() {
        return Depth::Shallow;
    }
    assert_eq!(read.len(), records as usize);
    assert!(
        failures
            .iter()
            .all(|failure| read[failure.index as usize].is_none())
    );
    Depth::Deep
}

fn states(random: &Random) -> Depth {
    let groups = random.below(20) as u32;
    let items: Vec<_> = (0..groups).map(|_| text(random)).collect();
    let buffer = super::super::bytes::items(items.iter().map(Option::as_deref));
    let buffer = damaged(random, buffer);
    let mut read = Vec::new();
    let mut all = Vec::new();
    let items = Items::new(&buffer).and_then(|mut items| {
        while let Some(item) = items.next()? {
            all.push(item);
        }
        Ok(())
    });
    if read_states(&buffer, groups, |group| group % 2 == 0, &mut read).is_err() {
        return Depth::Shallow;
    }
    assert_eq!(items, Ok(()), "states are items");
    assert_eq!((read.len(), &read), (groups as usize, &all));
    assert!(read.iter().skip(1).step_by(2).all(Option::is_some));
    Depth::Deep
}

fn sinks() -> [Sink; 2] {
    ["first", "second"].map(|name| Sink {
        name: name.into(),
        partitions: 3,
        message_bytes_max: 4_000,
    })
}

fn outputs(random: &Random) -> Depth {
    let records = 1 + random.below(12) as u32;
    let Some(failures) = failures(random, records) else {
        return Depth::Shallow;
    };
    let buffer = damaged(random, sound_outputs(random, records, &failures));
    let sinks = sinks();
    let mut outbox = Outbox::new(sinks.clone().into(), PartitionIndex(1));
    let Ok(mut outputs) = Outputs::new(&buffer, records, &failures, &sinks) else {
        return Depth::Shallow;
    };
    let (mut last, mut sent) = (0, 0);
    loop {
        let output = match outputs.next() {
            Ok(Some(output)) => output,
            Ok(None) => break,
            Err(_) => return Depth::Shallow,
        };
        assert!((last..records).contains(&output.input) && output.sink < sinks.len());
        assert!(failures.iter().all(|failure| failure.index != output.input));
        last = output.input;
        let inherited = Outgoing {
            timestamp_ms: 7,
            key: Some(b"key"),
            value: Some(b"value"),
            headers: Headers::NONE,
        };
        let pushed = outbox.push(output.sink, &inherited.changed_by(&output), Compression::None);
        sent += usize::from(pushed.is_ok());
    }
    let mut found = 0;
    for append in outbox.finish().expect("what was pushed can be sent") {
        for batch in Batches::new(append.batches) {
            let batch = batch.expect("batches follow one another");
            batch.check_produced().expect("a sink takes it");
            for record in &batch.records(1 << 20).expect("it was just made") {
                let record = record.expect("it was just written");
                assert!(record.headers.into_iter().all(|header| header.is_ok()));
                found += 1;
            }
        }
    }
    assert_eq!(found, sent, "each once");
    Depth::Deep
}

fn sound_outputs(random: &Random, records: u32, failures: &Failures) -> Vec<u8> {
    let mut inputs: Vec<u32> = (0..random.below(20))
        .map(|_| random.below(records.into()) as u32)
        .collect();
    inputs.sort_unstable();
    inputs.retain(|input| failures.iter().all(|failure| failure.index != *input));
    let mut buffer = (inputs.len() as u32).to_le_bytes().to_vec();
    let mut named: Vec<&str> = Vec::new();
    for input in inputs {
        buffer.extend(input.to_le_bytes());
        let carries = random.below(32) as u8;
        buffer.push(carries);
        if carries & 1 != 0 {
            let name = ["first", "second"][random.below(2) as usize];
            let known = named.iter().position(|known| *known == name);
            let number = known.unwrap_or(named.len()) as u16 + 1;
            buffer.extend(number.to_le_bytes());
            if known.is_none() {
                named.push(name);
                put_bytes(&mut buffer, Some(name.as_bytes()));
            }
        }
        if carries & 2 != 0 {
            let times = [i64::MIN, -1, 0, i64::MAX, random.u64() as i64];
            buffer.extend(times[random.below(5) as usize].to_le_bytes());
        }
        for part in [4, 8] {
            if carries & part != 0 {
                put_bytes(&mut buffer, text(random).as_deref());
            }
        }
        if carries & 16 != 0 {
            let count = random.below(4) as i32;
            put_varint(&mut buffer, count);
            for _ in 0..count {
                put_bytes(&mut buffer, Some(b"name"));
                put_bytes(&mut buffer, text(random).as_deref());
            }
        }
    }
    buffer
}
