//! The primitive types against hand-made bytes; whole messages are held by the golden vectors.

use bytes::Bytes;

use super::*;

fn reader(bytes: &[u8]) -> Reader {
    Reader::new(Bytes::copy_from_slice(bytes))
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().concat()
}

#[test]
fn varints_round_trip_and_end_at_32_bits() {
    for value in [
        0,
        1,
        127,
        128,
        300,
        16_383,
        16_384,
        1 << 21,
        1 << 28,
        u32::MAX - 1,
        u32::MAX,
    ] {
        let bytes = written(|w| w.uvarint(value));
        assert_eq!(reader(&bytes).uvarint("v"), Ok(value));
        let cut = reader(&bytes[..bytes.len() - 1]).uvarint("v").unwrap_err();
        assert!(matches!(cut.kind, DecodeErrorKind::Truncated { .. }));
    }
    let long = reader(&[0xff, 0xff, 0xff, 0xff, 0x10]).uvarint("v").unwrap_err();
    assert_eq!(long.kind, DecodeErrorKind::Varint);
}

#[test]
fn lengths_beyond_the_message_are_refused_before_anything_is_reserved() {
    let check = |bytes: &[u8], form, kind| {
        let error = reader(bytes).array::<i64>("things", form, 0).unwrap_err();
        assert_eq!((error.what, error.kind), ("things", kind), "{bytes:?}");
    };
    check(
        &[0x7f, 0xff, 0xff, 0xff, 0],
        Form::Classic,
        DecodeErrorKind::Count {
            count: i32::MAX as usize,
            remaining: 1,
        },
    );
    check(
        &[0xff, 0xff, 0xff, 0xfe],
        Form::Classic,
        DecodeErrorKind::NegativeLength(-2),
    );
    check(&[0xff, 0xff, 0xff, 0xff], Form::Classic, DecodeErrorKind::Null);
    check(&[0], Form::Flexible, DecodeErrorKind::Null);
    check(
        &[4, 1],
        Form::Flexible,
        DecodeErrorKind::Count {
            count: 3,
            remaining: 1,
        },
    );
}

#[test]
fn a_message_of_many_tiny_elements_meets_its_memory_budget() {
    // An empty string is one byte on the wire and 32 in memory: 200,000 of them are refused, 1,000 are not.
    let check = |count: u32, fits: bool| {
        let mut bytes = written(|w| w.uvarint(count + 1));
        bytes.resize(bytes.len() + count as usize, 1);
        assert_eq!(
            reader(&bytes).array::<Str>("names", Form::Flexible, 0).is_ok(),
            fits,
            "{count}"
        );
    };
    check(1_000, true);
    check(200_000, false);
}

#[test]
fn an_array_of_hollow_promises_reserves_little() {
    type Wide = [u8; 512];
    let check = |message_bytes: usize| {
        let reserved = reader(&vec![0; message_bytes]).reserve_max::<Wide>() * size_of::<Wide>();
        assert!(
            reserved <= 4 * message_bytes + size_of::<Wide>(),
            "{message_bytes}: {reserved}"
        );
    };
    [0, 1, 61, 512, 100_000].into_iter().for_each(check);
    // What is reserved is a start, not a limit: 1,000 empty strings of one byte take 32,000 bytes.
    let mut bytes = written(|w| w.uvarint(1_001));
    bytes.resize(bytes.len() + 1_000, 1);
    assert_eq!(
        reader(&bytes)
            .array::<Str>("names", Form::Flexible, 0)
            .unwrap()
            .len(),
        1_000
    );
}

#[test]
fn text_bytes_and_records_share_the_frame() {
    let frame = Bytes::from(written(|w| {
        w.string("s", Form::Flexible, &Str::from("héllo")).unwrap();
        w.bytes("b", Form::Classic, &Bytes::from_static(b"xyz")).unwrap();
        w.records(
            "r",
            Form::Flexible,
            Some(&Records::from(vec![
                Bytes::from_static(b"12"),
                Bytes::from_static(b"3"),
            ])),
        )
        .unwrap();
        w.records("n", Form::Classic, None).unwrap();
    }));
    let within = |slice: &[u8]| frame.as_ptr_range().contains(&slice.as_ptr());
    let mut r = Reader::new(frame.clone());
    let text = r.string("s", Form::Flexible).unwrap();
    assert_eq!(text, "héllo");
    assert!(within(text.as_bytes()) && !within(text.detached().as_bytes()));
    assert!(within(&r.bytes("b", Form::Classic).unwrap()));
    let records = r.records("r", Form::Flexible).unwrap().unwrap();
    assert!(within(&records.parts()[0]) && records.parts().len() == 1);
    assert_eq!(records.into_bytes(), &b"123"[..]);
    assert_eq!(r.records("n", Form::Classic), Ok(None));
    assert_eq!(r.finish("message"), Ok(()));
}

#[test]
fn errors_say_what_and_where() {
    let mut r = reader(&[0, 1, 0, 3, b'a', b'b']);
    r.i16("first").unwrap();
    let error = r.string("topic", Form::Classic).unwrap_err();
    assert_eq!(error.to_string(), "topic at byte 4: needs 3 bytes, 2 remain");
    let bad = reader(&[2, 0xff]).string("topic", Form::Flexible).unwrap_err();
    assert_eq!(bad.kind, DecodeErrorKind::Utf8);
}

#[test]
fn large_slices_are_spliced_and_the_frame_length_is_right() {
    let large = Bytes::from(vec![7; SPLICE_BYTES_MIN]);
    let mut w = Writer::new();
    w.i32(1);
    w.records(
        "r",
        Form::Classic,
        Some(&Records::from(vec![large.clone(), large.clone()])),
    )
    .unwrap();
    w.i8(2);
    assert_eq!(w.len(), 4 + 4 + 2 * SPLICE_BYTES_MIN + 1);
    let rope = w.finish_frame().unwrap();
    assert_eq!(rope.len(), 4);
    assert_eq!(rope[1].as_ptr(), large.as_ptr());
    let flat = rope.concat();
    assert_eq!(flat[..4], (flat.len() as u32 - 4).to_be_bytes());
    assert_eq!(flat[4..12], [0, 0, 0, 1, 0, 0, 8, 0]);
    assert_eq!(flat.last(), Some(&2));
}

#[test]
fn unknown_tagged_fields_are_kept_in_order_among_known_ones() {
    let mut unknown = TaggedFields::new();
    unknown.push(1, Bytes::from_static(b"one"));
    unknown.push(9, Bytes::from_static(b"nine"));
    let bytes = written(|w| {
        let mut tags = Tags::new();
        tags.put(0, |w| {
            w.i8(10);
            Ok(())
        })
        .unwrap();
        tags.put(4, |w| {
            w.i8(14);
            Ok(())
        })
        .unwrap();
        tags.finish(w, Form::Flexible, &unknown).unwrap();
    });
    assert_eq!(
        bytes,
        [&[4, 0, 1, 10, 1, 3][..], b"one", &[4, 1, 14, 9, 4], b"nine"].concat()
    );

    let mut seen = Vec::new();
    let mut r = reader(&bytes);
    let kept = r
        .tagged_fields_with(Form::Flexible, |r, tag| {
            if tag == 0 || tag == 4 {
                seen.push((tag, r.i8("v")?));
                return Ok(true);
            }
            Ok(false)
        })
        .unwrap();
    assert_eq!((seen, kept), (vec![(0, 10), (4, 14)], unknown.clone()));
    assert_eq!(r.finish("tags"), Ok(()));

    let clash = |w: &mut Writer| {
        let mut tags = Tags::new();
        tags.put(1, |_| Ok(())).unwrap();
        tags.finish(w, Form::Flexible, &unknown)
    };
    assert_eq!(
        clash(&mut Writer::new()).unwrap_err().kind,
        EncodeErrorKind::DuplicateTag(1)
    );
    let classic = Writer::new().tagged_fields(Form::Classic, &unknown).unwrap_err();
    assert_eq!(classic.kind, EncodeErrorKind::NotFlexible);
}

#[test]
fn a_known_tagged_field_must_fill_its_length() {
    let short = reader(&[1, 0, 2, 5, 6]).tagged_fields_with(Form::Flexible, |r, _| r.i8("v").map(|_| true));
    assert_eq!(short.unwrap_err().kind, DecodeErrorKind::Trailing(1));
    let long = reader(&[1, 0, 1, 5, 6]).tagged_fields_with(Form::Flexible, |r, _| r.i16("v").map(|_| true));
    assert_eq!(
        long.unwrap_err().to_string(),
        "v at byte 3: needs 2 bytes, 1 remain"
    );
}

#[test]
fn uuids_read_and_show_as_kafka_does() {
    // Values and texts as Kafka's own Uuid class shows them.
    let check = |value: u128, text: &str| {
        assert_eq!(Uuid::from_u128(value).to_string(), text);
        assert_eq!(text.parse(), Ok(Uuid::from_u128(value)));
    };
    check(0, "AAAAAAAAAAAAAAAAAAAAAA");
    check(1, "AAAAAAAAAAAAAAAAAAAAAQ");
    check(u128::MAX, "_____________________w");
    check(
        0x0123_4567_89ab_cdef_fedc_ba98_7654_3210,
        "ASNFZ4mrze_-3LqYdlQyEA",
    );
    for bad in [
        "",
        "AAAAAAAAAAAAAAAAAAAAAB",
        "AAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_eq!(bad.parse::<Uuid>(), Err(ParseUuidError), "{bad}");
    }
}

#[test]
fn records_are_equal_by_content() {
    let whole = Records::from(Bytes::from_static(b"abc"));
    let mut cut = Records::from(vec![
        Bytes::from_static(b"a"),
        Bytes::new(),
        Bytes::from_static(b"bc"),
    ]);
    assert_eq!(whole, cut);
    assert_eq!((cut.parts().len(), cut.len()), (2, 3));
    cut.push(Bytes::from_static(b"d"));
    assert_ne!(whole, cut);
    assert!(Records::new().is_empty() && Records::from(Bytes::new()).parts().is_empty());
}

#[test]
fn a_map_keyed_by_str_can_be_asked_with_a_plain_str() {
    let map = std::collections::HashMap::from([(Str::from("orders"), 1)]);
    assert_eq!(map.get("orders"), Some(&1));
    assert!(Str::from_static("a") < Str::from_static("b"));
}
