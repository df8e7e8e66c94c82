//! Every Kafka message against the bytes that Kafka's own Java classes write.
//!
//! The vectors in `tests/golden/kafka` hold, for every API, side and stable version, three messages:
//! - `full`: every field has a value of its own, arrays have two elements, structs carry an unknown tagged field;
//! - `sparse`: null wherever the version allows it, otherwise the extremes; arrays have one element;
//! - `plain`: the message as its constructor leaves it.
//!
//! The Java program fills fields in the order of its schemas (tagged ones last, by tag) by a counter; `filler.rs`
//! follows the same rule, so the same message can be made here and compared byte for byte. A schema read
//! wrongly by the generator, a field out of place, a wrong default or a wrong version shows as a difference.
//!
//! `cargo xtask codegen --golden` writes the vectors and the code that fills; `--check` compares them.

mod damage;
mod fill;
mod filler;
mod vectors;

use bytes::Bytes;

use filler::Kind;
use vectors::{Side, Vector, vectors};

fn each(mut check: impl FnMut(&str, &Side, &Vector)) {
    for api in fill::apis() {
        for vector in vectors(api.name) {
            let side = api.side(&vector.side);
            check(
                &format!(
                    "{} {} {} {:?}",
                    api.name, vector.side, vector.version, vector.kind
                ),
                side,
                &vector,
            );
        }
    }
}

#[test]
fn there_is_a_vector_for_every_message_and_version() {
    for api in fill::apis() {
        let found = vectors(api.name);
        for side in &api.sides {
            for version in side.versions.clone() {
                for kind in [Kind::Full, Kind::Sparse, Kind::Plain] {
                    let same = |vector: &&Vector| {
                        (vector.side.as_str(), vector.version, vector.kind) == (side.name, version, kind)
                    };
                    assert_eq!(
                        found.iter().filter(same).count(),
                        1,
                        "{} {} {version} {kind:?}",
                        api.name,
                        side.name
                    );
                }
            }
        }
    }
}

#[test]
fn messages_encode_to_the_bytes_of_java() {
    each(|name, side, vector| {
        let ours = (side.encode_filled)(vector.kind, vector.version);
        assert_eq!(ours.as_deref(), Ok(&vector.bytes[..]), "{name}");
    });
}

#[test]
fn the_bytes_of_java_decode_to_the_same_message() {
    each(|name, side, vector| {
        let decoded = (side.decode_compare)(vector.bytes.clone(), vector.kind, vector.version);
        assert_eq!(decoded, Ok(true), "{name}");
    });
}

#[test]
fn the_bytes_of_java_survive_a_decode_and_an_encode() {
    each(|name, side, vector| {
        let again = (side.round_trip)(vector.bytes.clone(), vector.version);
        assert_eq!(again, Ok(Some(vector.bytes.to_vec())), "{name}");
    });
}

#[test]
fn a_longer_body_is_not_read_to_its_end() {
    each(|name, side, vector| {
        let longer = Bytes::from([&vector.bytes[..], &[0]].concat());
        let error = (side.round_trip)(longer, vector.version).expect_err(name);
        assert_eq!(
            (error.what, error.offset),
            ("message", vector.bytes.len()),
            "{name}"
        );
    });
}
